"""Reading what a damaged disk still holds, and remembering what is lost.

A range is lost if no table shows where it lies, if it lies past the end of the file, or if the
host cannot read it. It becomes zeros, and a line in a map file, lest they be taken for data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from threading import Lock

from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.reading import Blend, Stretch
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.zeros import fill_zeros

GRANULE = 512
"""Bytes; the smallest part that is tried by itself."""

Range = tuple[int, int]
"""Offset in the virtual disk and length, in bytes."""


MAX_RANGES = 10_000
"""How many lost ranges are listed."""


class LostRanges:
    """The ranges of a virtual disk that are lost. Any thread may add to them.

    A small file can describe millions. Where there are too many, those with the least between
    them are listed as one: whatever is lost lies in a range of the list.

    Attributes:
        total_bytes: Of all that was added.
        unlisted: How many ranges are not listed by themselves; at least so many if they did not
            come in order.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self.unlisted = 0
        self._ranges: list[Range] = []
        self._changing = Lock()

    def add(self, virtual_offset: int, length: int) -> None:
        with self._changing:
            self.total_bytes += length
            if self._ranges and sum(self._ranges[-1]) == virtual_offset:
                virtual_offset, known = self._ranges.pop()
                length += known
            self._ranges.append((virtual_offset, length))
            if len(self._ranges) > 2 * MAX_RANGES:
                self._ranges = self._joined(MAX_RANGES // 2)

    def merged(self) -> tuple[Range, ...]:
        """Return the ranges in order, no two of which touch."""
        with self._changing:
            self._ranges = self._joined(MAX_RANGES)
            return tuple(self._ranges)

    def _joined(self, limit: int) -> list[Range]:
        """Return the ranges in order, no more than `limit`, with as little as possible between."""
        merged = list(_iter_joined(sorted(self._ranges)))
        excess = len(merged) - limit
        if excess <= 0:
            return merged
        gaps = sorted((start - sum(before), start) for before, (start, _) in pairwise(merged))
        self.unlisted += excess
        return list(_iter_joined(merged, {start for _, start in gaps[:excess]}))

    def note_lost(self, stretches: Iterable[Stretch]) -> Iterator[Stretch]:
        """Pass `stretches` on, and remember what no table covers."""
        for stretch in stretches:
            if isinstance(stretch, Blend):
                for start, end in stretch.spans(stretch.lost):
                    self.add(stretch.virtual_offset + start, end - start)
            elif stretch.kind is ExtentKind.LOST:
                self.add(stretch.virtual_offset, stretch.length)
            yield stretch

    def read_into(self, stretch: Stretch, buffer: memoryview) -> None:
        """Fill `buffer` with what can be read, and with zeros for what cannot."""
        try:
            stretch.read_into(buffer)
        except (OSError, TruncatedImageError):
            start, end = stretch.virtual_offset, stretch.virtual_end
            if isinstance(stretch, Blend):
                fill_zeros(buffer)
                for extent in stretch.iter_extents():
                    if extent.kind is ExtentKind.DATA:
                        part = slice(extent.virtual_offset - start, extent.virtual_end - start)
                        self.read_into(extent, buffer[part])
                return
            if stretch.length <= GRANULE:
                fill_zeros(buffer)
                self.add(start, stretch.length)
                return
            size = -(-stretch.length // 2 // GRANULE) * GRANULE
            self.read_into(stretch.cut(start, start + size), buffer[:size])
            self.read_into(stretch.cut(start + size, end), buffer[size:])


def _iter_joined(ranges: Iterable[Range], joined: Collection[int] = ()) -> Iterator[Range]:
    """Yield ordered ranges, as one where they touch or the second one begins in `joined`."""
    pending: Range | None = None
    for start, length in ranges:
        if pending is None:
            pending = start, length
        elif sum(pending) >= start or start in joined:
            first, known = pending
            pending = first, max(known, start + length - first)
        else:
            yield pending
            pending = start, length
    if pending is not None:
        yield pending


def iter_mapfile(lost: Iterable[Range], virtual_disk_size: int) -> Iterator[str]:
    """Yield the lines of a map file, as GNU ddrescue and ddrescueview read it.

    Args:
        lost: The lost ranges, in order.
        virtual_disk_size: Bytes of the disk that the map describes.
    """
    yield "# Mapfile. Created by vhdx2raw"
    yield "# current_pos  current_status  current_pass"
    yield f"{virtual_disk_size:#012x}     +               1"
    yield "#      pos        size  status"
    done = 0
    for start, length in lost:
        if done < start:
            yield f"{done:#012x}  {start - done:#012x}  +"
        yield f"{start:#012x}  {length:#012x}  -"
        done = start + length
    if done < virtual_disk_size:
        yield f"{done:#012x}  {virtual_disk_size - done:#012x}  +"
