"""The master boot record and the chain of logical partitions (records of 512 bytes each)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from vhdx2raw.disk.contents.partition_types import EXTENDED
from vhdx2raw.disk.contents.partitions import PartitionTable, Scheme, mbr_partition
from vhdx2raw.disk.contents.volumes import Disk
from vhdx2raw.source.formats import BOOT_SIGNATURE

MAX_LOGICAL_PARTITIONS: Final = 64
FIRST_LOGICAL_NUMBER: Final = 5
_RECORD_SIZE: Final = 512
_TABLE_OFFSET: Final = 446
_DISK_SIGNATURE: Final = struct.Struct("<440xI")
_ENTRY: Final = struct.Struct("<BxxxBxxxII")
_STATUSES: Final = (0x00, 0x80)


class _Entry(NamedTuple):
    """An entry of a record."""

    status: int
    type_number: int
    start_sector: int
    sector_count: int

    @property
    def is_used(self) -> bool:
        return bool(self.type_number and self.sector_count)


def read_mbr(disk: Disk, sector_size: int, problems: list[str]) -> PartitionTable | None:
    """Return the table in the first sector, or None if there is none.

    Args:
        disk: Whose first sector is read.
        sector_size: Bytes of the sectors in which an MBR counts.
        problems: Takes what is wrong, in words.
    """
    record = disk.pread(_RECORD_SIZE, 0)
    if record[510:] != BOOT_SIGNATURE:
        return None
    entries = _unpack_entries(record)
    if any(entry.status not in _STATUSES for entry in entries):
        problems.append("the first sector has the mark of a boot sector, but no partition table")
        return None
    partitions = [
        mbr_partition(
            number, entry.type_number, entry.start_sector, entry.sector_count, sector_size
        )
        for number, entry in enumerate(entries, 1)
        if entry.is_used
    ]
    starts = [
        entry.start_sector for entry in entries if entry.is_used and entry.type_number in EXTENDED
    ]
    logical = _iter_logical(disk, sector_size, starts, problems)
    for number, entry_start in enumerate(logical, FIRST_LOGICAL_NUMBER):
        entry, start = entry_start
        partitions.append(
            mbr_partition(number, entry.type_number, start, entry.sector_count, sector_size)
        )
    (signature,) = _DISK_SIGNATURE.unpack_from(record)
    return PartitionTable(Scheme.MBR, sector_size, f"{signature:08x}", tuple(partitions))


def _unpack_entries(record: bytes) -> list[_Entry]:
    table = record[_TABLE_OFFSET : _TABLE_OFFSET + 4 * _ENTRY.size]
    return [_Entry(*fields) for fields in _ENTRY.iter_unpack(table)]


def _iter_logical(
    disk: Disk, sector_size: int, extended_starts: list[int], problems: list[str]
) -> Iterator[tuple[_Entry, int]]:
    """Yield each logical partition and its first sector.

    Every record describes one partition, relative to itself, and names the next record, relative
    to the extended partition. No record is read twice.
    """
    known: set[int] = set()
    for extended_start in extended_starts:
        place: int | None = extended_start
        while place is not None:
            if place in known:
                problems.append("the chain of logical partitions runs in a circle")
                break
            if len(known) == MAX_LOGICAL_PARTITIONS:
                problems.append(
                    f"the chain of logical partitions has more than {MAX_LOGICAL_PARTITIONS}"
                    " records; the others are left out"
                )
                return
            known.add(place)
            record = disk.pread(_RECORD_SIZE, place * sector_size)
            if record[510:] != BOOT_SIGNATURE:
                problems.append(f"the record of a logical partition is missing in sector {place}")
                break
            partition, following = _unpack_entries(record)[:2]
            if partition.is_used:
                yield partition, place + partition.start_sector
            goes_on = following.type_number in EXTENDED
            place = extended_start + following.start_sector if goes_on else None
