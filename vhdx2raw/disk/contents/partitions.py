"""What a partition table says: MBR or GPT, and the rules by which one is believed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from vhdx2raw.disk.contents.partition_types import EXTENDED, MBR_TYPES, PROTECTIVE
from vhdx2raw.disk.contents.volumes import Volume


class Scheme(str, Enum):
    """The kind of a partition table."""

    MBR = "mbr"
    GPT = "gpt"
    HYBRID = "hybrid"
    """A GPT, some of whose partitions are in the MBR as well."""


class Partition(NamedTuple):
    """One partition.

    Attributes:
        number: As operating systems count, from 1; logical ones from 5.
        start: Where it begins in the disk, in bytes.
        size: Its size in bytes.
        type_id: ``0x83`` in an MBR, a GUID in a GPT.
        type_name: What that means; empty if it is none of the common types.
        name: Its name in a GPT, as it was written: it may hold control characters.
        uuid: Its GUID in a GPT.
        volume: What begins in it, if that is known.
    """

    number: int
    start: int
    size: int
    type_id: str
    type_name: str
    name: str = ""
    uuid: str = ""
    volume: Volume | None = None

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def is_extended(self) -> bool:
        """Whether it only holds logical partitions, which are listed on their own."""
        return self.type_id in _EXTENDED_IDS

    @property
    def is_protective(self) -> bool:
        """Whether it only stands for a GPT, in an MBR."""
        return self.type_id == mbr_type_id(PROTECTIVE)


class PartitionTable(NamedTuple):
    """A partition table.

    Attributes:
        scheme: Its kind.
        sector_size: Bytes of the sectors in which it counts.
        disk_id: The GUID or the signature by which it distinguishes disks.
        partitions: In the order of the table.
    """

    scheme: Scheme
    sector_size: int
    disk_id: str
    partitions: tuple[Partition, ...]


def mbr_type_id(number: int) -> str:
    """Return how the type of an MBR partition is written."""
    return f"{number:#04x}"


_EXTENDED_IDS = frozenset(map(mbr_type_id, EXTENDED))


def mbr_partition(
    number: int, type_number: int, start: int, count: int, sector_size: int
) -> Partition:
    """Return a partition of an MBR; `start` and `count` are in sectors."""
    type_id, type_name = mbr_type_id(type_number), MBR_TYPES.get(type_number, "")
    return Partition(number, start * sector_size, count * sector_size, type_id, type_name)


def find_place_problems(partitions: Sequence[Partition], disk_size: int) -> list[str]:
    """Return what cannot be about the places of partitions."""
    problems = [
        f"partition {partition.number} ends past the end of the disk"
        for partition in partitions
        if partition.end > disk_size and not partition.is_protective
    ]
    in_order = sorted(
        (partition for partition in partitions if not partition.is_extended and partition.size),
        key=lambda partition: partition.start,
    )
    problems += [
        f"partitions {before.number} and {after.number} overlap"
        for before, after in pairwise(in_order)
        if before.end > after.start
    ]
    return problems
