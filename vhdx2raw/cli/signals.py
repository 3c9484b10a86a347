"""SIGINT, SIGTERM and SIGHUP, turned into an exception at a place where nothing can be lost."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Those of them that exist here: Windows has no SIGHUP."""


class Interrupted(BaseException):
    """The user or the system asked the program to end.

    Attributes:
        exit_code: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        words = (
            "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        )
        super().__init__(words)
        self.exit_code = 128 + number


class _State:
    """What the handler knows: whether it may raise at once, and the signal that came."""

    deferred = False
    received: int | None = None


def _handle(number: int, _frame: FrameType | None) -> None:
    _State.received = number
    if not _State.deferred:
        raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Raise `Interrupted` if a signal has come."""
    if _State.received is not None:
        raise Interrupted(_State.received)


@contextmanager
def catch_signals() -> Iterator[None]:
    """Let the signals raise `Interrupted`."""
    _State.received = None
    _State.deferred = False
    # What is ignored stays ignored: nohup and shells that start jobs in the background mean it.
    caught = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _handle) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deferring() -> Iterator[None]:
    """Let a signal raise only at the end, because something is there for a moment only."""
    before, _State.deferred = _State.deferred, True
    try:
        yield
    finally:
        _State.deferred = before
    if not before:
        raise_if_interrupted()


@contextmanager
def by_default() -> Iterator[None]:
    """Let the signals do what the system or a library in C has them do."""
    ours = [number for number in SIGNALS if signal.getsignal(number) is _handle]
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _handle)


def defer() -> None:
    """Let nothing but `raise_if_interrupted` raise from now on, because an output is being made.

    A signal that comes after its last call is too late: the output is complete.
    """
    _State.deferred = True


def end_deferring() -> None:
    """Let every signal raise at once again, beginning with the one that has come meanwhile.

    Raises:
        Interrupted: One has.
    """
    _State.deferred = False
    raise_if_interrupted()
