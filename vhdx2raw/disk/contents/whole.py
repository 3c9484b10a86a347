"""A disk as a whole: one volume, a partition table with its volumes, or nothing that is known."""

from __future__ import annotations

from typing import Final, NamedTuple

from vhdx2raw.disk.contents.gpt import has_gpt, read_gpt
from vhdx2raw.disk.contents.mbr import read_mbr
from vhdx2raw.disk.contents.partitions import PartitionTable, Scheme, find_place_problems
from vhdx2raw.disk.contents.volumes import PAGE_SIZE, Disk, Volume, identify_volume
from vhdx2raw.source.formats import name_image_format
from vhdx2raw.vhdx.layout import SECTOR_SIZES

NO_VALID_GPT: Final = "the MBR announces a GPT, but there is no valid one"
NO_PROTECTION: Final = (
    "the GPT is not announced by an MBR, so that some programs do not look for it"
)


class Contents(NamedTuple):
    """What lies inside a disk.

    Attributes:
        volume: What the disk holds as a whole, such as a file system without a partition table.
        table: The partition table. Both are there on disks such as hybrid ISO images.
        image_format: The format of disk images that the disk begins like; empty for none.
        problems: What is broken or unusual about all this, each a phrase.
    """

    volume: Volume | None
    table: PartitionTable | None
    image_format: str
    problems: tuple[str, ...]


def read_contents(disk: Disk, sector_size: int) -> Contents:
    """Look what lies inside a disk. Reads some KiB, and as much again for each partition.

    Args:
        disk: Its bytes.
        sector_size: Bytes of its logical sectors, in which partition tables count.

    Raises:
        ImageError: The file that the disk is read from is truncated.
        OSError: The host could not read.
    """
    problems: list[str] = []
    image_format = name_image_format(disk.pread(PAGE_SIZE, 0))
    if image_format:
        problems.append(
            f"the disk begins like a {image_format} image: tell every program that reads the raw"
            " disk that its format is raw"
        )
    volume = identify_volume(disk, 0, disk.size)
    table: PartitionTable | None = None
    if volume is None or not volume.owns_boot_sector:
        table = _read_table(disk, sector_size, problems)
    if table is not None and volume is not None and not table.partitions:
        table = None  # what boots from a file system marks its first sector too
    if table is not None:
        problems += find_place_problems(table.partitions, disk.size)
        table = _with_volumes(disk, table)
    return Contents(volume, table, image_format, tuple(problems))


def _read_table(disk: Disk, sector_size: int, problems: list[str]) -> PartitionTable | None:
    """Return the partition table that an operating system would use, or the one meant."""
    mbr = read_mbr(disk, sector_size, problems)
    protected = mbr is not None and any(part.is_protective for part in mbr.partitions)
    if mbr is not None and mbr.partitions and not protected:
        if has_gpt(disk, sector_size):
            problems.append("there is a GPT too, but the MBR does not announce it: it is ignored")
        return mbr
    sizes = [sector_size, *(size for size in SECTOR_SIZES if size != sector_size)]
    gpt = next((size for size in sizes if has_gpt(disk, size)), None)
    if gpt is None and not protected:
        return mbr
    table = read_gpt(disk, gpt or sector_size, problems)
    if table is None:
        problems += [NO_VALID_GPT] if protected else []
        return mbr
    if mbr is None or not protected:
        problems.append(NO_PROTECTION)
    elif len(mbr.partitions) > 1:
        table = table._replace(scheme=Scheme.HYBRID)
    if table.sector_size != sector_size:
        problems.append(
            f"the GPT is one for sectors of {table.sector_size} bytes, but those of the disk have"
            f" {sector_size}: an operating system finds no partition"
        )
    return table


def _with_volumes(disk: Disk, table: PartitionTable) -> PartitionTable:
    """Look what begins in each partition."""
    partitions = tuple(
        part
        if part.is_extended or part.is_protective
        else part._replace(volume=identify_volume(disk, part.start, part.end))
        for part in table.partitions
    )
    return table._replace(partitions=partitions)
