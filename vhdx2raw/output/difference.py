"""Writes only what differs from what is there, because reading is cheaper than writing."""

from __future__ import annotations

from threading import Lock

from vhdx2raw.output.base import Sink
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB
from vhdx2raw.zeros import iter_runs

UNIT = 4 * KIB
"""Bytes; what differs in one of them is written as a whole."""


class DifferenceSink(Sink):
    """Compares what comes with what an image holds, and hands on to another sink what differs.

    Attributes:
        written_bytes: Handed on to be written.
        zeroed_bytes: Handed on to be made zero.
        left_incomplete: Whether the image was changed, and not to the end.
    """

    zeroing_is_work = True

    def __init__(self, inner: Sink, current: RawFile) -> None:
        """Change what `current` reads, by `inner`. Both are closed with this sink."""
        self._inner = inner
        self._current = current
        self._counting = Lock()
        self.name = inner.name
        self.readable_path = inner.readable_path
        self.piece_size = inner.piece_size
        self.written_bytes = 0
        self.zeroed_bytes = 0
        self._is_complete = False

    @property
    def left_incomplete(self) -> bool:
        return self.written_bytes + self.zeroed_bytes > 0 and not self._is_complete

    def write(self, virtual_offset: int, data: memoryview) -> None:
        current = self._current.pread(virtual_offset, len(data))
        if current == bytes(data):  # not the memoryview: that would compare byte by byte
            return
        start = end = 0
        for place in range(0, len(data), UNIT):
            if bytes(data[place : place + UNIT]) == current[place : place + UNIT]:
                continue
            if place > end:
                self._write(virtual_offset + start, data[start:end])
                start = place
            end = min(place + UNIT, len(data))
        self._write(virtual_offset + start, data[start:end])

    def _write(self, virtual_offset: int, data: memoryview) -> None:
        if data:
            with self._counting:
                self.written_bytes += len(data)
            self._inner.write(virtual_offset, data)

    def zero(self, virtual_offset: int, length: int) -> None:
        """Make zero what is stored in a range, and no hole."""
        for begin, end in self._current.iter_data(virtual_offset, virtual_offset + length):
            for start in range(begin, end, MIB):
                data = self._current.pread(start, min(MIB, end - start))
                for is_zero, first, last in iter_runs(memoryview(data), UNIT):
                    if not is_zero:
                        with self._counting:
                            self.zeroed_bytes += last - first
                        self._inner.zero(start + first, last - first)

    def expect_flush(self) -> None:
        self._inner.expect_flush()

    def flush(self) -> None:
        self._inner.flush()

    def commit(self) -> None:
        self._current.close()
        self._inner.commit()
        self._is_complete = True

    def abort(self) -> None:
        self._current.close()
        self._inner.abort()
