"""Progress on stderr: a bar for people, lines of JSON for programs, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from vhdx2raw.cli.console import Screen, is_terminal, print_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tqdm import tqdm

    from vhdx2raw.operations.progress import ProgressCallback

JSON_SECONDS = 0.5


class ProgressMode(str, Enum):
    """How progress is shown."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"
    JSON = "json"


@contextmanager
def show_progress(mode: ProgressMode) -> Iterator[ProgressCallback]:
    """Give a function that takes the bytes moved so far and the bytes to be moved."""
    if mode is ProgressMode.JSON:
        yield _JsonLines()
    elif sys.stderr and (
        mode is ProgressMode.ALWAYS or (mode is ProgressMode.AUTO and is_terminal(sys.stderr))
    ):
        from tqdm import tqdm  # noqa: PLC0415 - most runs draw no bar

        bar: tqdm[NoReturn]
        with tqdm(unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr) as bar:
            Screen.make_room = bar.clear
            try:
                yield _Bar(bar)
            finally:
                Screen.make_room = lambda: None
    else:
        yield lambda _done, _total: None


class _Bar:
    def __init__(self, bar: tqdm[NoReturn]) -> None:
        self._bar = bar

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.refresh()


class _JsonLines:
    """At most two lines a second, and always one when everything is moved."""

    def __init__(self) -> None:
        self._last_time = float("-inf")
        self._last = (-1, -1)

    def __call__(self, done: int, total: int) -> None:
        import json  # noqa: PLC0415 - most runs write none

        now = time.monotonic()
        too_early = now - self._last_time < JSON_SECONDS and done < total
        if too_early or self._last == (done, total):
            return
        self._last_time, self._last = now, (done, total)
        print_message(json.dumps({"bytes-done": done, "bytes-total": total}))
