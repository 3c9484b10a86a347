"""How much time and memory one thing may take: what a limit stops is a finding."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SECONDS = 2.0
"""Of processor time; the clock on the wall would measure the other programs too."""
WALL_SECONDS = 60.0
"""After which a case hangs, though it does not compute."""
MEMORY = 100 << 20
STACKS = 4 * (8 << 20)
"""What the threads of a conversion reserve, and do not use."""


class LimitError(BaseException):
    """Time is up. Not an Exception, so that nothing catches it on the way."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise LimitError("processor time" if number == signal.SIGPROF else "time on the wall")


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raise `LimitError` after some seconds, and `MemoryError` above the limit."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _data_size() + MEMORY + STACKS
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        for number, handler in before.items():
            # None: a handler that was not made in Python, as that of libFuzzer
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _data_size() -> int:
    """Give the bytes that the kernel holds against RLIMIT_DATA now."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmData:")[2].split()[0]) << 10
