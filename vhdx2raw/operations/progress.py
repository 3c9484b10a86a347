"""How far some work has come, reported now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

PROGRESS_SECONDS = 0.1

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes done so far and the bytes to be done."""


def no_progress(done: int, total: int) -> None:
    """Do nothing: the default callback."""


def throttled(progress: ProgressCallback, *, later: bool = False) -> ProgressCallback:
    """Return a callback that passes on ten calls a second at most, the first at once or later."""
    next_time = time.monotonic() + PROGRESS_SECONDS if later else 0.0

    def report(done: int, total: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            progress(done, total)
            next_time = time.monotonic() + PROGRESS_SECONDS

    return report
