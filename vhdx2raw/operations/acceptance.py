"""Whether an opened disk is acceptable for a conversion, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from vhdx2raw.disk.chain import NamedFinding
from vhdx2raw.disk.checkpoints import find_newest
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Finding, quote
from vhdx2raw.rules import Rule
from vhdx2raw.source.formats import name_image_format

START_SIZE = 4096
STRICT_REMEDY = "without {strict} this is a warning"


def check_acceptable(
    disk: VirtualDisk,
    max_virtual_disk_size: int | None = None,
    *,
    strict: bool = False,
    may_be_older: bool = False,
) -> tuple[NamedFinding, ...]:
    """Refuse a disk that the caller does not accept; return the warnings about it.

    Args:
        disk: The disk.
        max_virtual_disk_size: Most bytes that the disk may have.
        strict: Whether to refuse what is only worth a warning, except that a log was replayed.
        may_be_older: Whether it is meant that checkpoints were made from the disk.

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
    warnings = disk.warnings if may_be_older else (*disk.warnings, *_newer_state(disk))
    for file, warning in warnings:
        if strict and warning.rule is not Rule.LOG_REPLAYED:
            raise CorruptImageError(warning, path=file, remedy=STRICT_REMEDY)
    # A guest can write there whatever it likes.
    format_name = name_image_format(disk.pread(START_SIZE, 0))
    if not format_name:
        return warnings
    problem = (
        f"begins like a {format_name} image, so that a program which guesses the format of the raw"
        " image may be misled: tell it that the format is raw"
    )
    lookalike = Finding(Rule.LOOKALIKE, "disk", problem)
    if strict:
        raise UnsupportedImageError(lookalike, path=disk.name, remedy=STRICT_REMEDY)
    return (*warnings, (disk.name, lookalike))


def _newer_state(disk: VirtualDisk) -> Iterator[NamedFinding]:
    """Yield a warning if a checkpoint beside the file has a newer state of the disk."""
    image = disk.chain.child
    newest = find_newest(image.source, image.header_section.header.data_write_guid)
    if newest is not None:
        problem = (
            "is not the newest state: checkpoints in the same folder were made from it; the"
            f" newest one is {quote(newest)}"
        )
        yield disk.name, Finding(Rule.NEWER_STATE, "file", problem)
