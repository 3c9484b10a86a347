"""One partition of a disk, as a disk of its own: what reads a disk need not know the difference."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vhdx2raw.disk.extents import Extent
from vhdx2raw.disk.map import MapEntry
from vhdx2raw.disk.reading import Stretch
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import PartitionError

if TYPE_CHECKING:
    from vhdx2raw.disk.contents import Partition


class PartitionFile(VirtualDisk):
    """The bytes of one partition, from its first to its last; every offset counts from its start.

    It keeps its disk open while anything refers to it. Closing it closes nothing else, and when the
    disk is closed nothing more can be read.

    Attributes:
        disk: The disk that it is a partition of.
        entry: What the partition table says of it, and what begins in it.
    """

    def __init__(self, disk: VirtualDisk, entry: Partition) -> None:
        """Show a partition of `disk` that lies inside of it."""
        super().__init__(disk.chain)
        self.disk = disk
        self.entry = entry

    def __repr__(self) -> str:
        return f"<PartitionFile {self.number} of {self.name!r}, {self.size} bytes>"

    @property
    def number(self) -> int:
        """Its number, as operating systems count, from 1; logical partitions from 5."""
        return self.entry.number

    @property
    def start(self) -> int:
        """Where it begins in the disk, in bytes."""
        return self.entry.start

    @property
    def size(self) -> int:
        return self.entry.size

    def extents(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        self._check_open()
        extents = self.disk.extents(*self._in_disk(virtual_offset, length))
        return (extent.moved(-self.start) for extent in extents)

    def stretches(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[Stretch]:
        self._check_open()
        sector_sizes = (image.geometry.logical_sector_size for image in self.chain.images)
        if self.start % max(sector_sizes):  # a table for sectors of another size
            return self.extents(virtual_offset, length)
        stretches = self.disk.stretches(*self._in_disk(virtual_offset, length))
        return (stretch.moved(-self.start) for stretch in stretches)

    def map_entries(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[MapEntry]:
        self._check_open()
        entries = self.disk.map_entries(*self._in_disk(virtual_offset, length))
        return (entry.moved(-self.start) for entry in entries)

    def _in_disk(self, virtual_offset: int, length: int | None) -> tuple[int, int]:
        """Return where a range lies in the disk, and end with the partition."""
        longest = max(0, self.size - virtual_offset)
        return self.start + virtual_offset, longest if length is None else min(length, longest)

    def close(self) -> None:
        io.RawIOBase.close(self)


def find_partitions(disk: VirtualDisk) -> tuple[PartitionFile, ...]:
    """Return the partitions of a disk that hold something to read; see `VirtualDisk.partitions`."""
    return tuple(
        PartitionFile(disk, entry) for entry in _read_entries(disk) if not _why_not(entry, disk)
    )


def find_partition(disk: VirtualDisk, number: int) -> PartitionFile:
    """Return one partition of a disk; see `VirtualDisk.partition`."""
    entries = _read_entries(disk)
    entry = next((entry for entry in entries if entry.number == number), None)
    numbers = ", ".join(str(entry.number) for entry in entries if not _why_not(entry, disk))
    problem = f"has no partition {number}"
    if entry is not None and not (why_not := _why_not(entry, disk)):
        return PartitionFile(disk, entry)
    if entry is not None:
        problem = f"partition {number} {why_not}"
    elif not numbers:
        problem = "has no partitions"
    remedy = f"there are: {numbers}" if numbers else "without {partition} all of the disk is taken"
    raise PartitionError(problem, path=disk.name, remedy=remedy)


def _read_entries(disk: VirtualDisk) -> tuple[Partition, ...]:
    from vhdx2raw.disk.contents import read_contents  # noqa: PLC0415 - few runs need tables

    table = read_contents(disk, disk.metadata.logical_sector_size).table
    return table.partitions if table is not None else ()


def _why_not(entry: Partition, disk: VirtualDisk) -> str:
    """Return why a partition cannot be read as one, or nothing."""
    reasons = (
        (entry.is_extended, "only holds the logical partitions"),
        (entry.is_protective, "only stands for a GPT, which cannot be used"),
        (not entry.size, "is empty"),
        (entry.end > disk.size, "ends past the end of the disk"),
    )
    return next((reason for applies, reason in reasons if applies), "")
