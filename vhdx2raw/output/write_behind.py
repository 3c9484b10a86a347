"""Writes that the host brings to storage while more is written, for a caller who waits for that.

Left to itself, it begins when a tenth of the memory is to be written, or at the end. And what is on
storage leaves the page cache again, so that memory is used anew and what others had cached stays.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final

from vhdx2raw import host
from vhdx2raw.units import MIB

SPAN_SIZE: Final = 8 * MIB
"""Bytes that are begun at once."""
MAX_SPANS: Final = 8
"""How many are on their way; then the first of them is taken to be on storage."""


class WriteBehind:
    """What was written to one open file, and is not known to be on storage."""

    def __init__(self, descriptor: int) -> None:
        """Begin with nothing written."""
        self._descriptor = descriptor
        self._changing = Lock()
        self._start = self._end = self._written = 0
        self._begun: deque[tuple[int, int]] = deque()

    def note(self, file_offset: int, length: int) -> None:
        """Take account of what was written, by any thread, and now and then begin to store it."""
        end = file_offset + length
        with self._changing:
            # Several threads write here and there, so what lies between counts as well.
            self._start = min(self._start, file_offset) if self._written else file_offset
            self._end = max(self._end, end) if self._written else end
            self._written += length
            if self._written < SPAN_SIZE:
                return
            self._written = 0
            span = self._start, self._end - self._start
            self._begun.append(span)
            stored = self._begun.popleft() if len(self._begun) > MAX_SPANS else None
        host.drop_cached(self._descriptor, *span)
        if stored:
            host.drop_cached(self._descriptor, *stored)
