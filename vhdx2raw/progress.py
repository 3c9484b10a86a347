"""How far some work has come, told now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

PROGRESS_SECONDS = 0.1

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes done so far and the bytes to be done."""


def say_nothing(done: int, total: int) -> None:
    """Be the progress callback of someone who wants none."""


def now_and_then(progress: ProgressCallback) -> ProgressCallback:
    """Return a callback that passes on ten calls a second at most."""
    next_time = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            progress(done, total)
            next_time = time.monotonic() + PROGRESS_SECONDS

    return tell
