"""Whether an opened disk is acceptable for a conversion, before anything is written."""

from __future__ import annotations

from vhdx2raw.disk.chain import NamedFinding
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.formats import name_image_format

START_SIZE = 4096
STRICT_REMEDY = "without {strict} this is a warning"


def check_acceptable(
    disk: VirtualDisk, max_virtual_disk_size: int | None = None, *, strict: bool = False
) -> tuple[NamedFinding, ...]:
    """Refuse a disk that the caller does not accept; return the warnings about it.

    Args:
        disk: The disk.
        max_virtual_disk_size: Most bytes that the disk may have.
        strict: Whether to refuse what is only worth a warning, except that a log was replayed.

    Raises:
        UnsupportedImageError: It is longer than that, or would be taken for another format.
        CorruptImageError: There is a warning about a file of it.
        OSError: The host could not read.
    """
    if max_virtual_disk_size is not None and disk.size > max_virtual_disk_size:
        finding = Finding(
            Rule.VIRTUAL_DISK_SIZE,
            "disk",
            "is larger than is allowed here",
            found=f"{disk.size} bytes",
            expected=f"at most {max_virtual_disk_size}",
        )
        raise UnsupportedImageError(finding, path=disk.name)
    for file, warning in disk.warnings:
        if strict and warning.rule is not Rule.LOG_REPLAYED:
            raise CorruptImageError(warning, path=file, remedy=STRICT_REMEDY)
    # A guest can write there whatever it likes.
    format_name = name_image_format(disk.pread(START_SIZE, 0))
    if not format_name:
        return disk.warnings
    problem = (
        f"begins like a {format_name} image, so that a program which guesses the format of the raw"
        " image may be misled: tell it that the format is raw"
    )
    lookalike = Finding(Rule.LOOKALIKE, "disk", problem)
    if strict:
        raise UnsupportedImageError(lookalike, path=disk.name, remedy=STRICT_REMEDY)
    return (*disk.warnings, (disk.name, lookalike))
