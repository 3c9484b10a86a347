"""Progress on stderr: a bar for people, lines of JSON for programs, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from vhdx2raw.cli.console import Screen, is_terminal, print_message
from vhdx2raw.cli.signals import raise_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vhdx2raw.cli.bar import Bar
    from vhdx2raw.operations.progress import ProgressCallback

JSON_SECONDS = 0.5


def interruptible(show: ProgressCallback) -> ProgressCallback:
    """Return a callback that shows progress, or ends the work if a signal was deferred."""

    def show_unless_interrupted(done: int, total: int) -> None:
        raise_if_interrupted()
        show(done, total)

    return show_unless_interrupted


class ProgressMode(str, Enum):
    """How progress is shown."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"
    JSON = "json"


class FileOfMany(NamedTuple):
    """Which of many files is worked on, from 1 on."""

    name: str
    number: int
    total: int


class Display:
    """Takes the bytes moved so far and the bytes to be moved, and shows nothing.

    Attributes:
        file: What is worked on, if there are many files.
    """

    file: FileOfMany | None = None

    def __call__(self, done: int, total: int) -> None:
        """Take two numbers."""


@contextmanager
def show_progress(mode: ProgressMode) -> Iterator[Display]:
    """Give a display, which is closed at the end."""
    if mode is ProgressMode.JSON:
        yield _JsonLines()
    elif sys.stderr and (
        mode is ProgressMode.ALWAYS or (mode is ProgressMode.AUTO and is_terminal(sys.stderr))
    ):
        bar = _LazyBar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield Display()


class _LazyBar(Display):
    """A bar that appears with the first progress, so that what fails before leaves none."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from vhdx2raw.cli.bar import Bar  # noqa: PLC0415 - brings tqdm; most runs draw no bar

            self._bar = Bar(total)
            Screen.clear_line = self._bar.clear
        self._bar.total = total
        self._bar.file = self.file
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        Screen.clear_line = lambda: None


class _JsonLines(Display):
    """At most two lines a second, and always one when everything is moved."""

    def __init__(self) -> None:
        self._start_time = time.monotonic()
        self._last_time = float("-inf")
        self._last = (-1, -1)

    def __call__(self, done: int, total: int) -> None:
        import json  # noqa: PLC0415 - most runs write none

        now = time.monotonic()
        too_early = now - self._last_time < JSON_SECONDS and done < total
        if too_early or self._last == (done, total):
            return
        self._last_time, self._last = now, (done, total)
        facts: dict[str, object] = {"bytes-done": done, "bytes-total": total}
        if self.file:
            facts |= {
                "filename": self.file.name,
                "index": self.file.number,
                "count": self.file.total,
                "elapsed-seconds": round(now - self._start_time, 3),
            }
        print_message(json.dumps(facts))
