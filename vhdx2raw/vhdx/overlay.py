"""Replayed sectors laid over a file, as a source like any other.

What a log changes is never written to the file, nor copied out of it: the overlay remembers where
in the log each new sector stands and puts it together again when it is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from vhdx2raw.source.base import Fetched, Source, Status
from vhdx2raw.vhdx.layout import LEADING_SIZE, LOG_DESCRIPTOR, LOG_SECTOR_SIZE, TRAILING_SIZE
from vhdx2raw.zeros import fill_zeros


class Updates:
    """What a log does to its file, in the order in which it does it.

    Memory is a few words for each sector and each range of zeros, whatever its length.
    """

    def __init__(self) -> None:
        # By file offset: the order of the last update of a sector, and the two places in the
        # file from which the sector can be put together.
        self.sectors: dict[int, tuple[int, int, int]] = {}
        # (start, end, order) of ranges that become zeros.
        self.zero_ranges: list[tuple[int, int, int]] = []
        self.end = 0
        self._order = 0

    def add_sector(self, file_offset: int, data_place: int, descriptor_place: int) -> None:
        """Replace a sector: its data and its descriptor lie at these offsets of the file."""
        self._order += 1
        self.sectors[file_offset] = (self._order, data_place, descriptor_place)
        self.end = max(self.end, file_offset + LOG_SECTOR_SIZE)

    def add_zeros(self, file_offset: int, length: int) -> None:
        self._order += 1
        if length:
            self.zero_ranges.append((file_offset, file_offset + length, self._order))
            self.end = max(self.end, file_offset + length)


class OverlaySource(Source):
    """A file as it reads after some updates. It may be longer than the file itself."""

    def __init__(self, source: Source, updates: Updates, size: int) -> None:
        self._source = source
        self.name = source.name
        self.size = size
        self.identity = source.identity
        self.url, self.read_ahead = source.url, source.read_ahead
        self._sector_offsets = array("Q")
        self._data_places = array("Q")
        self._descriptor_places = array("Q")
        for file_offset, data_place, descriptor_place in _iter_surviving(updates):
            self._sector_offsets.append(file_offset)
            self._data_places.append(data_place)
            self._descriptor_places.append(descriptor_place)
        self._zero_starts = array("Q")
        self._zero_ends = array("Q")
        growth = [(source.size, size, 0)] if size > source.size else []
        for start, end in _iter_union([*updates.zero_ranges, *growth]):
            self._zero_starts.append(start)
            self._zero_ends.append(end)

    @property
    def descriptor(self) -> int:
        return self._source.descriptor

    @property
    def file(self) -> Source:
        return self._source

    @property
    def fetched(self) -> Fetched | None:
        return self._source.fetched

    def cancel(self) -> None:
        self._source.cancel()

    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        end = file_offset + len(buffer)
        in_file = max(0, min(end, self._source.size) - file_offset)
        if in_file:
            self._source.pread_into(file_offset, buffer[:in_file])
        for start, stop in self._iter_zero_ranges(file_offset, end):
            fill_zeros(buffer[start - file_offset : stop - file_offset])
        for index in self._sectors_between(file_offset, end):
            place = self._sector_offsets[index]
            start, stop = max(place, file_offset), min(place + LOG_SECTOR_SIZE, end)
            sector = self._read_sector(index)
            buffer[start - file_offset : stop - file_offset] = sector[start - place : stop - place]
        return len(buffer)

    def pread_scattered(self, file_offset: int, buffers: Sequence[memoryview]) -> None:
        length = sum(map(len, buffers))
        if list(self.iter_in_file(file_offset, length)) == [(file_offset, length)]:
            self._source.pread_scattered(file_offset, buffers)
        else:
            super().pread_scattered(file_offset, buffers)

    def prefetch(self, file_offset: int, length: int, *, again: bool = False) -> None:
        inside = min(length, self._source.size - file_offset)
        if inside > 0:
            self._source.prefetch(file_offset, inside, again=again)

    def iter_without_holes(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield what may be other than zeros; of what an update has touched, everything."""
        done, end = file_offset, file_offset + length
        for start, count in self.iter_in_file(file_offset, length):
            if done < start:
                yield done, start - done
            yield from self._source.iter_without_holes(start, count)
            done = start + count
        if done < end:
            yield done, end - done

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of what stands in the file and no update has touched.

        Only these may be handed to the kernel, which knows nothing of the overlay.
        """
        end = file_offset + length
        touched = list(self._iter_zero_ranges(file_offset, end))
        for index in self._sectors_between(file_offset, end):
            place = self._sector_offsets[index]
            touched.append((max(place, file_offset), min(place + LOG_SECTOR_SIZE, end)))
        for start, stop in sorted(touched):
            if file_offset < start:
                yield from self._source.iter_in_file(file_offset, start - file_offset)
            file_offset = max(file_offset, stop)
        if file_offset < end:
            yield from self._source.iter_in_file(file_offset, end - file_offset)

    def iter_stored(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of all but the zeros that lie past the end of the file.

        In order, and no two of the parts touch.
        """
        end = file_offset + length
        growth_start = min(max(file_offset, self._source.size), end)
        stored_start = file_offset  # of the part that is not yielded yet
        for zeros_start, zeros_end in self._iter_zero_ranges(growth_start, end):
            done = zeros_start
            for index in self._sectors_between(zeros_start, zeros_end):
                place = self._sector_offsets[index]
                if done < place:
                    if stored_start < done:
                        yield stored_start, done - stored_start
                    stored_start = place
                done = min(place + LOG_SECTOR_SIZE, zeros_end)
            if done < zeros_end:
                if stored_start < done:
                    yield stored_start, done - stored_start
                stored_start = zeros_end
        if stored_start < end:
            yield stored_start, end - stored_start

    def status(self) -> Status:
        return self._source.status()

    def times(self) -> tuple[int, int] | None:
        return self._source.times()

    def watch(self) -> None:
        self._source.watch()

    def close(self) -> None:
        self._source.close()

    def _iter_zero_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        first = bisect_right(self._zero_ends, start)
        for index in range(first, bisect_left(self._zero_starts, end)):
            yield max(start, self._zero_starts[index]), min(end, self._zero_ends[index])

    def _sectors_between(self, start: int, end: int) -> range:
        first = bisect_right(self._sector_offsets, start - LOG_SECTOR_SIZE) if start else 0
        return range(first, bisect_left(self._sector_offsets, end))

    def _read_sector(self, index: int) -> bytes:
        """Put a sector together from its data sector and its descriptor (2.3.1.3, 2.3.1.4)."""
        data = self._source.pread(self._data_places[index], LOG_SECTOR_SIZE)
        raw = self._source.pread(self._descriptor_places[index], LOG_DESCRIPTOR.size)
        _, trailing, leading, _, _ = LOG_DESCRIPTOR.unpack(raw)
        return b"".join((leading, data[LEADING_SIZE:-TRAILING_SIZE], trailing))


def _iter_surviving(updates: Updates) -> Iterator[tuple[int, int, int]]:
    """Yield the sectors, in order of their offsets, that no later range of zeros covers."""
    ranges = sorted(updates.zero_ranges, reverse=True)
    covering: list[tuple[int, int]] = []  # a heap of (-order, end): the latest range on top
    for sector in sorted(updates.sectors):
        while ranges and ranges[-1][0] <= sector:
            _, end, order = ranges.pop()
            heappush(covering, (-order, end))
        while covering and covering[0][1] <= sector:
            heappop(covering)
        order, data_place, descriptor_place = updates.sectors[sector]
        if not covering or -covering[0][0] < order:
            yield sector, data_place, descriptor_place


def _iter_union(ranges: list[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield disjoint (start, end), in order, that cover what `ranges` cover."""
    current: tuple[int, int] | None = None
    for start, end, _ in sorted(ranges):
        if current and start <= current[1]:
            current = current[0], max(current[1], end)
        else:
            if current:
                yield current
            current = start, end
    if current:
        yield current
