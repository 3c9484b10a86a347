"""The block allocation table: where each payload block lies, as runs of like blocks.

MS-VHDX 2.5. The table of a 64 TiB disk has 64 Mi entries and no checksum. So it is read in
pieces of whole chunks and never held as one object per entry. What the entries say is held
against the file in `allocation`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from vhdx2raw.source.base import Source
from vhdx2raw.units import KIB, MIB
from vhdx2raw.vhdx.geometry import Geometry
from vhdx2raw.vhdx.layout import BAT_ENTRY_SIZE, FILE_OFFSET_MASK, STATE_MASK, PayloadBlockState
from vhdx2raw.vhdx.region import Region

PIECE_SIZE = MIB
"""About how much of the table is read at once, in bytes, where it is the only one."""
CACHED_PIECES = 4
CACHE_SIZE = CACHED_PIECES * PIECE_SIZE
"""Bytes that are kept of all tables of a chain."""
MIN_PIECE_SIZE = 4 * KIB
AHEAD_SIZE = 8 * MIB
"""Bytes of the table that are asked for at once, where that takes a while."""
_ZEROS = bytes(PIECE_SIZE)
MISSING_ENTRY = 0xFFFF_FFFF_FFFF_FFF8 | PayloadBlockState.RESERVED
"""What stands for an entry that a lenient reader cannot have: every bit that must not be set, and a
state that nothing can have. A table that holds this itself is as broken as any other."""
READ_GRANULE = 512 // BAT_ENTRY_SIZE
"""Entries; the least that is tried by itself where the host cannot read all."""
MIN_BULK_COUNT = 32
"""Entries; fewer are looked at one by one."""

OCCUPYING_STATES = (PayloadBlockState.FULLY_PRESENT, PayloadBlockState.PARTIALLY_PRESENT)
"""The states of blocks that have a place in the file."""


class BlockRun(NamedTuple):
    """Consecutive payload blocks whose entries follow from the first one.

    They share one state, and where that occupies space they lie one after the other in the file.

    Attributes:
        first_block: Index of the first payload block.
        block_count: How many.
        entry: The BAT entry of the first one.
    """

    first_block: int
    block_count: int
    entry: int

    @property
    def state(self) -> PayloadBlockState:
        return PayloadBlockState(self.entry & STATE_MASK)

    @property
    def file_offset(self) -> int:
        """Where the first block lies, in bytes; meaningful if the state occupies space (R79)."""
        return self.entry & FILE_OFFSET_MASK

    @property
    def end_block(self) -> int:
        """Index after the last payload block."""
        return self.first_block + self.block_count

    def split(self, block_size: int) -> Iterator[BlockRun]:
        stride = block_size if self.state in OCCUPYING_STATES else 0
        for index in range(self.block_count):
            yield BlockRun(self.first_block + index, 1, self.entry + index * stride)


class Bat:
    """The table of one file, read on demand.

    Safe for reads from several threads.

    Attributes:
        lacks_entries: Whether payload entries are known to be missing, as only a lenient reader
            puts up with; `MISSING_ENTRY` stands for them.
        unreadable: By file offset, why the host cannot read a part of the table; lenient only.
    """

    def __init__(
        self, source: Source, region: Region, geometry: Geometry, *, lenient: bool = False
    ) -> None:
        """Lay the table over `region`; nothing is read yet.

        To a lenient reader, entries that the host cannot read are missing ones.
        """
        self._source = source
        self._region = region
        self.geometry = geometry
        self._chunk_entries = geometry.chunk_ratio + 1
        self.unreadable: dict[int, str] = {}
        self._lenient = lenient
        self._asked_entries = 0
        # What can be read of the table: a differencing disk may lack its last entries (R74), and
        # to a lenient reader any disk.
        length = max(0, min(region.length, source.size - region.file_offset))
        self._entry_count = min(geometry.bat_entry_count, length // BAT_ENTRY_SIZE)
        last_block = geometry.payload_bat_index(geometry.payload_block_count - 1)
        self.lacks_entries = self._entry_count <= last_block
        self.share_cache(1)

    def share_cache(self, table_count: int) -> None:
        """Keep no more than is due to one of so many tables."""
        size = max(MIN_PIECE_SIZE, PIECE_SIZE // table_count)
        self._piece_entries = size // BAT_ENTRY_SIZE
        self._read_piece = lru_cache(CACHED_PIECES)(self._read_piece_uncached)

    def iter_chunks(self) -> Iterator[tuple[range, array[int] | None, int]]:
        """Yield (indexes of chunks, payload entries, entry of the sector bitmap block).

        All of the table, in order, with nothing kept. Where all of some chunks is zero, they come
        together, and without entries; else one by one. Entries that are known to be missing are
        left out.
        """
        at_once = max(1, PIECE_SIZE // (BAT_ENTRY_SIZE * self._chunk_entries))
        for first in range(0, self.geometry.chunk_count, at_once):
            chunks = range(first, min(first + at_once, self.geometry.chunk_count))
            self._ask_ahead((first + at_once) * self._chunk_entries)
            piece = self._read_array(first * self._chunk_entries, at_once * self._chunk_entries)
            if piece is None:
                yield chunks, None, 0
                continue
            for chunk_index in chunks:
                start = (chunk_index - first) * self._chunk_entries
                count = len(self.geometry.blocks_of_chunk(chunk_index))
                bitmap = piece[start + self.geometry.chunk_ratio :][:1]
                yield (
                    range(chunk_index, chunk_index + 1),
                    piece[start : start + count],
                    bitmap[0] if bitmap else 0,
                )

    def _ask_ahead(self, end: int) -> None:
        """Ask for entries well before those up to `end` are read, where that takes a while."""
        ahead = AHEAD_SIZE // BAT_ENTRY_SIZE
        while self._source.read_ahead and self._asked_entries < min(end + ahead, self._entry_count):
            count = min(ahead, self._entry_count - self._asked_entries)
            place = self.entry_file_offset(self._asked_entries)
            self._source.prefetch(place, count * BAT_ENTRY_SIZE, again=True)
            self._asked_entries += count

    def iter_runs(self, first_block: int, end_block: int) -> Iterator[BlockRun]:
        """Yield the runs that tile the payload blocks from `first_block` to `end_block`.

        A run ends at a chunk at the latest, unless its whole piece of the table is zero, and where
        a piece ends.
        """
        ratio = self.geometry.chunk_ratio
        while first_block < end_block:
            piece_index = self.geometry.payload_bat_index(first_block) // self._piece_entries
            end_index = (piece_index + 1) * self._piece_entries
            end_of_piece = min(end_block, end_index - end_index // self._chunk_entries)
            entries = self._read_piece(piece_index)
            if entries is None:
                yield BlockRun(first_block, end_of_piece - first_block, 0)
                first_block = end_of_piece
                continue
            while first_block < end_of_piece:
                chunk_index = first_block // ratio
                end_of_chunk = min(end_of_piece, (chunk_index + 1) * ratio)
                start = (first_block + chunk_index) % self._piece_entries
                chunk = entries[start : start + end_of_chunk - first_block]
                yield from iter_runs_of_chunk(chunk, first_block, self.geometry.block_size)
                first_block += len(chunk)
                if first_block < end_of_chunk:
                    yield BlockRun(first_block, end_of_chunk - first_block, MISSING_ENTRY)
                    first_block = end_of_chunk

    def sector_bitmap_entry(self, chunk_index: int) -> int:
        """Return the entry of the sector bitmap block of a chunk; 0 if the table ends before it."""
        index = self.geometry.sector_bitmap_bat_index(chunk_index)
        if index >= self._entry_count:
            return 0
        entries = self._read_piece(index // self._piece_entries)
        return entries[index % self._piece_entries] if entries else 0

    def entry_file_offset(self, bat_index: int) -> int:
        """Return where in the file an entry of the table lies, in bytes."""
        return self._region.file_offset + bat_index * BAT_ENTRY_SIZE

    def _read_piece_uncached(self, piece_index: int) -> array[int] | None:
        return self._read_array(piece_index * self._piece_entries, self._piece_entries)

    def _read_array(self, start: int, length: int) -> array[int] | None:
        """Read some entries of the table; None if every byte of them is zero."""
        count = max(0, min(length, self._entry_count - start))
        complete = count == min(length, self.geometry.bat_entry_count - start)
        place, size = self.entry_file_offset(start), count * BAT_ENTRY_SIZE
        if complete and not any(self._source.iter_without_holes(place, size)):
            return None  # the table of a large disk that is empty is a hole of its file
        raw = self._read_entries(start, count) if count else b""
        if complete and _ZEROS.startswith(raw):
            return None
        entries = array("Q", raw)
        if sys.byteorder == "big":
            entries.byteswap()
        return entries

    def _read_entries(self, first: int, count: int) -> bytes:
        """Read `count` entries; to a lenient reader, those that cannot be read are missing."""
        try:
            return self._source.pread(self.entry_file_offset(first), count * BAT_ENTRY_SIZE)
        except OSError as error:
            if not self._lenient:
                raise
            if count > READ_GRANULE:
                middle = max(first // READ_GRANULE + 1, (first + count // 2) // READ_GRANULE)
                middle *= READ_GRANULE
                after = self._read_entries(middle, first + count - middle)
                return self._read_entries(first, middle - first) + after
            self.unreadable[self.entry_file_offset(first)] = str(error.strerror)
            self.lacks_entries = True
            return MISSING_ENTRY.to_bytes(BAT_ENTRY_SIZE, "little") * count


def iter_runs_of_chunk(
    entries: array[int], first_block: int, block_size: int
) -> Iterator[BlockRun]:
    """Yield the runs of some entries of one chunk, the first of them for `first_block`."""
    count = len(entries)
    if count and entries == entries[:1] * count and entries[0] & STATE_MASK not in OCCUPYING_STATES:
        yield BlockRun(first_block, count, entries[0])  # most chunks of most disks
        return
    if is_one_run(entries, block_size):
        yield BlockRun(first_block, count, entries[0])
        return
    start = 0
    while start < count:
        expected = entries[start]
        stride = block_size if expected & STATE_MASK in OCCUPYING_STATES else 0
        end = start + 1
        has_place = expected & FILE_OFFSET_MASK or not stride  # else nothing can follow it
        while has_place and end < count and entries[end] == expected + stride:
            expected += stride
            end += 1
        yield BlockRun(first_block + start, end - start, entries[start])
        start = end


def is_one_run(entries: array[int], block_size: int) -> bool:
    """Return whether blocks of one chunk are stored in order, found without a look at each."""
    count = len(entries)
    if sys.byteorder == "big" or count < MIN_BULK_COUNT:
        return False
    first, last = entries[0], entries[-1]
    if first & STATE_MASK not in OCCUPYING_STATES or not first & FILE_OFFSET_MASK:
        return False
    if last != first + (count - 1) * block_size:
        return False
    ones, ramp = _lanes(count, block_size)
    return int.from_bytes(entries.tobytes(), "little") == first * ones + ramp


@lru_cache(2)
def _lanes(count: int, stride: int) -> tuple[int, int]:
    """Return numbers that stand for so many entries of 1, and of multiples of `stride`."""
    ones, ramp = array("Q", [1]) * count, array("Q", range(0, count * stride, stride))
    return int.from_bytes(ones.tobytes(), "little"), int.from_bytes(ramp.tobytes(), "little")
