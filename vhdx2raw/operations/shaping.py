"""Which shape a disk gets for the program that takes it next, and what that means for the disk."""

from __future__ import annotations

from collections.abc import Iterator

from vhdx2raw.disk.chain import NamedFinding
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.findings import Finding
from vhdx2raw.output import vhd
from vhdx2raw.output.shape import OutputFormat, Shape, rounded_size
from vhdx2raw.rules import Rule
from vhdx2raw.units import GIB

NOT_VHD_REMEDY = "write it raw; {output_format} raw does"
SECOND_NS = 10**9


def shape_of(disk: VirtualDisk, output_format: OutputFormat, round_size: int | None) -> Shape:
    """Return the parts of an output.

    Args:
        disk: What becomes the first of them.
        output_format: What it is to be.
        round_size: Bytes of which its size becomes a multiple; for a VHD by default a MiB.

    Raises:
        OutputError: The disk cannot be in that format.
    """
    end = rounded_size(disk.size, output_format, round_size)
    if output_format != "vhd":
        return Shape(disk.size, end)
    sector_size = disk.metadata.logical_sector_size
    if sector_size != vhd.SECTOR_SIZE:
        problem = f"has sectors of {sector_size} bytes, and a VHD can only have sectors of 512"
        raise OutputError(problem, path=disk.name, remedy=NOT_VHD_REMEDY)
    if end > vhd.MAX_SIZE:
        limit = vhd.MAX_SIZE // GIB
        problem = f"has {disk.size} bytes, and a VHD can hold at most {vhd.MAX_SIZE} ({limit} GiB)"
        raise OutputError(problem, path=disk.name, remedy=NOT_VHD_REMEDY)
    image = disk.chain.child
    # Nothing by chance or by the clock: what is made twice is the same.
    created = (image.state.status.modified_ns or 0) // SECOND_NS
    guid = image.header_section.header.data_write_guid
    return Shape(disk.size, end, vhd.make_footer(end, created, guid))


def find_misplaced_backup(disk: VirtualDisk, shape: Shape) -> Iterator[NamedFinding]:
    """Yield a warning if zeros follow the backup of a GPT, which has to be at the end of a disk.

    Raises:
        ImageError: A file turned out to be truncated.
        OSError: The host could not read.
    """
    if shape.end == disk.size:
        return
    from vhdx2raw.disk.contents import Scheme, read_contents  # noqa: PLC0415 - takes a while

    table = read_contents(disk, disk.metadata.logical_sector_size).table
    if table is not None and table.scheme is not Scheme.MBR:
        problem = (
            f"ends {shape.end - disk.size} bytes before the image, and so does the backup of its"
            " GPT: `sgdisk -e IMAGE` moves that to the end"
        )
        yield disk.name, Finding(Rule.BACKUP_GPT, "GPT", problem)
