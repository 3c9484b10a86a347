"""The entries of a log: each one complete and checked, or not there at all.

MS-VHDX 2.3.1. An entry that breaks any rule ends a sequence and is no error of the file: a torn
last entry is what a crash leaves behind. An entry may run over the end of the ring.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from vhdx2raw.errors import CorruptImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.crc import crc32c
from vhdx2raw.vhdx.overlay import Updates

MAX_TARGET = 1 << 63
CHECKSUM_ROUNDS = 4
"""How often the whole log may be read for checksums. Real entries do not overlap, so one round
is enough for them; overlapping ones are made to cost time."""


class LogEntry(NamedTuple):
    """An entry that obeys every rule.

    Attributes:
        position: Where it begins in the ring, in bytes.
        length: Bytes in the ring.
        tail: Where the oldest entry of its sequence begins, by its own account.
        sequence_number: One more than that of the entry before.
        descriptor_count: How many updates it holds.
        flushed_file_offset: Bytes that the file had for certain when this was written.
        last_file_offset: Bytes that the file needs to hold everything.
    """

    position: int
    length: int
    tail: int
    sequence_number: int
    descriptor_count: int
    flushed_file_offset: int
    last_file_offset: int


class LogReader:
    """Reads the ring of one file."""

    def __init__(self, source: Source, header: layout.Header) -> None:
        self._source = source
        self._offset = header.log_offset
        self._length = header.log_length
        self._guid = header.log_guid
        self._checksum_bytes_left = CHECKSUM_ROUNDS * header.log_length
        self._descriptors_left = layout.MAX_LOG_DESCRIPTORS

    def iter_entries(self) -> Iterator[LogEntry]:
        """Yield every valid entry in the ring, by position.

        Raises:
            CorruptImageError: The entries overlap or hold more updates than any real log (R40).
        """
        for start in range(0, self._length, MIB):
            raw = self._source.pread(self._offset + start, MIB)
            for place in range(0, len(raw), layout.LOG_SECTOR_SIZE):
                if not raw.startswith(layout.LOG_ENTRY_SIGNATURE, place):
                    continue
                header = layout.LOG_ENTRY_HEADER_LAYOUT.unpack(raw, place)
                if self._is_plausible(header) and self._is_sound(start + place, header):
                    yield LogEntry(
                        start + place,
                        header.entry_length,
                        header.tail,
                        header.sequence_number,
                        header.descriptor_count,
                        header.flushed_file_offset,
                        header.last_file_offset,
                    )

    def apply(self, entry: LogEntry, updates: Updates) -> None:
        """Add the updates of an entry, in their order (R33 to R35)."""
        descriptors_end = self._descriptors_size(entry.descriptor_count)
        data_place = self._place(entry.position + descriptors_end)
        for index, descriptor in enumerate(self._iter_descriptors(entry.position, entry)):
            signature, _, length_or_leading, file_offset, _ = descriptor
            if signature == layout.ZERO_DESCRIPTOR_SIGNATURE:
                updates.add_zeros(file_offset, int.from_bytes(length_or_leading, "little"))
            else:
                place = (
                    entry.position
                    + layout.LOG_ENTRY_HEADER_LAYOUT.size
                    + index * layout.LOG_DESCRIPTOR.size
                )
                updates.add_sector(file_offset, data_place, self._place(place))
                data_place = self._place(data_place - self._offset + layout.LOG_SECTOR_SIZE)

    def _is_plausible(self, header: layout.LogEntryHeader) -> bool:
        """Return whether the fields of a header can be those of an entry (R19, R21).

        The two file offsets are not looked at: they should be multiples of 1 MiB, but to drop an
        entry whose checksum is right would silently give an older state.
        """
        return (
            header.entry_length > 0
            and header.entry_length % layout.LOG_SECTOR_SIZE == 0
            and header.entry_length <= self._length
            and header.tail % layout.LOG_SECTOR_SIZE == 0
            and header.tail < self._length
            and header.sequence_number > 0
            and header.log_guid == self._guid
            and self._descriptors_size(header.descriptor_count) <= header.entry_length
        )

    def _is_sound(self, position: int, header: layout.LogEntryHeader) -> bool:
        """Return whether descriptors, data sectors and checksum are right (R20 to R24)."""
        data_count = self._count_data_descriptors(position, header)
        if data_count is None:
            return False
        data_start = self._descriptors_size(header.descriptor_count)
        if data_start + data_count * layout.LOG_SECTOR_SIZE > header.entry_length:
            return False
        return self._data_sectors_belong(
            position + data_start, data_count, header.sequence_number
        ) and self._checksum_is_right(position, header)

    def _count_data_descriptors(self, position: int, header: layout.LogEntryHeader) -> int | None:
        """Count the data descriptors; None if any descriptor is invalid (R22, R24)."""
        self._descriptors_left -= header.descriptor_count
        if self._descriptors_left < 0:
            raise self._too_much(f"more than {layout.MAX_LOG_DESCRIPTORS} updates")
        data_count = 0
        for descriptor in self._iter_descriptors(position, header):
            signature, _, length_or_leading, file_offset, sequence_number = descriptor
            if signature == layout.DATA_DESCRIPTOR_SIGNATURE:
                length = layout.LOG_SECTOR_SIZE
                data_count += 1
            elif signature == layout.ZERO_DESCRIPTOR_SIGNATURE:
                length = int.from_bytes(length_or_leading, "little")
            else:
                return None
            if (
                sequence_number != header.sequence_number
                or file_offset % layout.LOG_SECTOR_SIZE
                or length % layout.LOG_SECTOR_SIZE
                or not self._is_target(file_offset, length)
            ):
                return None
        return data_count

    def _is_target(self, file_offset: int, length: int) -> bool:
        """Return whether a log may update a range: not the headers, and not itself (R24)."""
        end = file_offset + length
        in_log = length and file_offset < self._offset + self._length and end > self._offset
        return file_offset >= layout.REGION_TABLE_OFFSETS[0] and end < MAX_TARGET and not in_log

    def _data_sectors_belong(self, position: int, count: int, sequence_number: int) -> bool:
        """Return whether every data sector was written with this entry (R23)."""
        high, low = divmod(sequence_number, 1 << 32)
        start = layout.DATA_SECTOR_SIGNATURE + high.to_bytes(4, "little")
        end = low.to_bytes(layout.TRAILING_SIZE, "little")
        for raw in self._iter_ring(position, count * layout.LOG_SECTOR_SIZE):
            for place in range(0, len(raw), layout.LOG_SECTOR_SIZE):
                sector_end = place + layout.LOG_SECTOR_SIZE
                if not (raw.startswith(start, place) and raw.endswith(end, place, sector_end)):
                    return False
        return True

    def _checksum_is_right(self, position: int, header: layout.LogEntryHeader) -> bool:
        """Return whether the CRC-32C over the whole entry, in ring order, is right (R20)."""
        self._checksum_bytes_left -= header.entry_length
        if self._checksum_bytes_left < 0:
            raise self._too_much("entries that overlap again and again")
        computed = 0
        for index, raw in enumerate(self._iter_ring(position, header.entry_length)):
            covered = raw if index else b"".join((raw[:4], bytes(4), raw[8:]))
            computed = crc32c(covered, computed)
        return computed == header.checksum

    def _iter_descriptors(
        self, position: int, entry: LogEntry | layout.LogEntryHeader
    ) -> Iterator[tuple[bytes, bytes, bytes, int, int]]:
        """Yield the descriptors of an entry, which follow its header without a gap (R26)."""
        size = (
            layout.LOG_ENTRY_HEADER_LAYOUT.size
            + entry.descriptor_count * layout.LOG_DESCRIPTOR.size
        )
        skip = layout.LOG_ENTRY_HEADER_LAYOUT.size // layout.LOG_DESCRIPTOR.size
        # A header is as long as two descriptors, so pieces of the ring hold whole ones.
        for raw in self._iter_ring(position, size):
            yield from islice(layout.LOG_DESCRIPTOR.iter_unpack(raw), skip, None)
            skip = 0

    def _iter_ring(self, position: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes of the ring from `position` on, in pieces that end at 1 MiB."""
        while length:
            position %= self._length
            count = min(length, MIB - position % MIB)
            yield self._source.pread(self._offset + position, count)
            position += count
            length -= count

    def _place(self, position: int) -> int:
        """Return the file offset of a position in the ring."""
        return self._offset + position % self._length

    @staticmethod
    def _descriptors_size(count: int) -> int:
        """Return the bytes of header and descriptors, padded to whole sectors (2.3.1)."""
        size = layout.LOG_ENTRY_HEADER_LAYOUT.size + count * layout.LOG_DESCRIPTOR.size
        return ceil_div(size, layout.LOG_SECTOR_SIZE) * layout.LOG_SECTOR_SIZE

    def _too_much(self, found: str) -> CorruptImageError:
        problem = "would take too long to make sense of"
        return CorruptImageError(
            Finding(Rule.LOG_LIMITS, "log", problem, file_offset=self._offset, found=found)
        )
