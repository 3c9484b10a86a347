"""The GUID partition table: a header in the second sector, and its copy in the last one."""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple
from uuid import UUID

from vhdx2raw.disk.contents.partition_types import GPT_TYPES
from vhdx2raw.disk.contents.partitions import Partition, PartitionTable, Scheme
from vhdx2raw.disk.contents.volumes import Disk
from vhdx2raw.units import KIB
from vhdx2raw.vhdx.layout import ZERO_GUID

MAX_TABLE_SIZE: Final = 16 * KIB
"""Bytes of a table that are read: 128 entries, as many as all programs make."""
_SIGNATURE: Final = b"EFI PART"
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_CHECKSUM_OFFSET: Final = 16


class _Header(NamedTuple):
    """One of the two headers."""

    signature: bytes
    revision: int
    header_size: int
    checksum: int
    reserved: int
    own_sector: int
    other_sector: int
    first_usable: int
    last_usable: int
    disk_guid: bytes
    table_sector: int
    entry_count: int
    entry_size: int
    table_checksum: int

    @property
    def table_size(self) -> int:
        """Bytes of the table, which may be any number at all."""
        return self.entry_count * self.entry_size


def has_gpt(disk: Disk, sector_size: int) -> bool:
    """Return whether there is a header of a GPT for sectors of `sector_size` bytes, good or not."""
    return disk.pread(len(_SIGNATURE), sector_size) == _SIGNATURE


def read_gpt(disk: Disk, sector_size: int, problems: list[str]) -> PartitionTable | None:
    """Return the GPT for sectors of `sector_size` bytes, from its copy if need be, or None.

    Args:
        disk: Where the table is looked for.
        sector_size: Bytes of the sectors in which it counts.
        problems: Takes what is wrong, in words.
    """
    last_sector = disk.size // sector_size - 1
    for name, sector in (("primary", 1), ("backup", last_sector)):
        header, problem = _read_header(disk, sector_size, sector)
        table = b"" if problem else _read_table(disk, sector_size, header)
        if not problem and header.table_size <= MAX_TABLE_SIZE:
            is_sound = zlib.crc32(table) == header.table_checksum
            problem = "" if is_sound else "the checksum of its entries is wrong"
        if problem:
            problems.append(f"the {name} GPT in sector {sector} cannot be used: {problem}")
            continue
        if header.table_size > MAX_TABLE_SIZE:
            shown = len(table) // header.entry_size
            problems.append(
                f"the GPT has room for {header.entry_count} entries; only the first {shown} are"
                " read, and they are not checked"
            )
        if sector == 1 and header.other_sector != last_sector:
            problems.append("the backup GPT is not at the end of the disk")
        partitions = _unpack_partitions(table, header.entry_size, sector_size, problems)
        disk_id = str(UUID(bytes_le=header.disk_guid))
        return PartitionTable(Scheme.GPT, sector_size, disk_id, partitions)
    return None


def _read_header(disk: Disk, sector_size: int, sector: int) -> tuple[_Header, str]:
    """Return a header and what makes it unusable."""
    raw = disk.pread(sector_size, max(0, sector) * sector_size)
    header = _Header(*_HEADER.unpack_from(raw.ljust(_HEADER.size, b"\0")))
    size, entry_size = header.header_size, header.entry_size
    summed = bytearray(raw[:size])
    summed[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4] = bytes(4)
    table_end = header.table_sector * sector_size + min(header.table_size, MAX_TABLE_SIZE)
    checks = (
        (header.signature != _SIGNATURE, "its signature is missing"),
        (not _HEADER.size <= size <= len(raw), f"its header has {size} bytes"),
        (zlib.crc32(summed) != header.checksum, "the checksum of its header is wrong"),
        (header.own_sector != sector, f"it says that it lies in sector {header.own_sector}"),
        (
            not _ENTRY.size <= entry_size <= MAX_TABLE_SIZE or entry_size.bit_count() != 1,
            f"its entries have {entry_size} bytes",
        ),
        (table_end > disk.size, "its entries lie past the end of the disk"),
    )
    return header, next((problem for is_wrong, problem in checks if is_wrong), "")


def _read_table(disk: Disk, sector_size: int, header: _Header) -> bytes:
    size = min(header.table_size, MAX_TABLE_SIZE)
    return disk.pread(size, header.table_sector * sector_size)


def _unpack_partitions(
    table: bytes, entry_size: int, sector_size: int, problems: list[str]
) -> tuple[Partition, ...]:
    partitions: list[Partition] = []
    for index in range(len(table) // entry_size):
        type_guid, guid, first, last, _, name = _ENTRY.unpack_from(table, index * entry_size)
        if UUID(bytes_le=type_guid) == ZERO_GUID:
            continue
        if last < first:
            problems.append(f"partition {index + 1} ends before it begins")
        type_id = str(UUID(bytes_le=type_guid))
        partition = Partition(
            index + 1,
            first * sector_size,
            max(0, last + 1 - first) * sector_size,
            type_id,
            GPT_TYPES.get(type_id, ""),
            name.decode("utf-16-le", errors="replace").partition("\0")[0],
            str(UUID(bytes_le=guid)),
        )
        partitions.append(partition)
    return tuple(partitions)
