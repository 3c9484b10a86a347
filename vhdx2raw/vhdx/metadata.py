"""The known metadata items as one validated value (MS-VHDX 2.6.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from uuid import UUID

from vhdx2raw.errors import CorruptImageError, ImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.locator import ParentLocator, parse_parent_locator
from vhdx2raw.vhdx.metadata_table import MetadataItems
from vhdx2raw.vhdx.region import Region

_Value = TypeVar("_Value")


class Metadata(NamedTuple):
    """The known metadata items; that it exists is the proof that they were checked.

    Attributes:
        block_size: Bytes of a payload block.
        leave_block_allocated: Set for a *fixed* disk; means nothing to a reader (R64).
        has_parent: Whether the disk is differencing.
        virtual_disk_size: Bytes of the virtual disk.
        virtual_disk_id: Identity of the disk as the guest sees it, if it is recorded.
        logical_sector_size: 512 or 4096 bytes.
        physical_sector_size: Bytes; for display only.
        parent_locator: Which parent a differencing disk needs; None for any other disk, and if
            it cannot be read.
        parent_locator_error: Why the locator of a differencing disk cannot be read, if so. The
            disk is readable all the same where its parent is known from elsewhere.
    """

    block_size: int
    leave_block_allocated: bool
    has_parent: bool
    virtual_disk_size: int
    virtual_disk_id: UUID | None
    logical_sector_size: int
    physical_sector_size: int
    parent_locator: ParentLocator | None
    parent_locator_error: ImageError | None

    @property
    def disk_type(self) -> str:
        """``dynamic``, ``fixed`` or ``differencing``; the format itself has no such field."""
        if self.has_parent:
            return "differencing"
        return "fixed" if self.leave_block_allocated else "dynamic"


def read_metadata(source: Source, region: Region, findings: Findings) -> Metadata:
    """Read and check the known metadata items (R54 to R70, R94 to R101).

    Raises:
        UnsupportedImageError: A required item is unknown.
        CorruptImageError: A needed item is missing or has an impossible value.
    """
    items = MetadataItems(source, region, findings)
    parameters = _attempt(lambda: _read_file_parameters(items, findings), findings)
    logical_sector_size = _attempt(lambda: _read_logical_sector_size(items), findings)
    # A lenient reader assumes what nearly every disk has.
    logical_sector_size = logical_sector_size or layout.SECTOR_SIZES[0]
    virtual_disk_size = _attempt(
        lambda: _read_virtual_disk_size(items, logical_sector_size, findings), findings
    )
    if parameters is None or virtual_disk_size is None:
        reasons = "; ".join(map(str, findings.of(Severity.ERROR)[-2:]))
        problem = f"nothing can stand in for the sizes of the disk and of its blocks: {reasons}"
        raise CorruptImageError(Finding(Rule.NEEDED_ITEM, "metadata", problem))
    has_parent = bool(parameters.flags & layout.DISK_HAS_PARENT)
    virtual_disk_id = items.read_optional(layout.VIRTUAL_DISK_ID)
    locator, locator_error = _read_parent_locator(items, findings, has_parent=has_parent)
    return Metadata(
        block_size=parameters.block_size,
        leave_block_allocated=bool(parameters.flags & layout.DISK_LEAVE_BLOCK_ALLOCATED),
        has_parent=has_parent,
        virtual_disk_size=virtual_disk_size,
        virtual_disk_id=UUID(bytes_le=virtual_disk_id) if virtual_disk_id else None,
        logical_sector_size=logical_sector_size,
        physical_sector_size=_read_physical_sector_size(items, logical_sector_size, findings),
        parent_locator=locator,
        parent_locator_error=locator_error,
    )


def _attempt(read: Callable[[], _Value], findings: Findings) -> _Value | None:
    """Return what `read` returns; None if it fails and the reader is lenient."""
    try:
        return read()
    except CorruptImageError as error:
        findings.forgive(error, error.finding)
        return None


def _read_logical_sector_size(items: MetadataItems) -> int:
    size = items.read_integer(layout.LOGICAL_SECTOR_SIZE)
    if size not in layout.SECTOR_SIZES:
        problem = "is neither 512 nor 4096 bytes"
        raise CorruptImageError(
            items.finding(Rule.LOGICAL_SECTOR_SIZE, layout.LOGICAL_SECTOR_SIZE, problem, str(size))
        )
    return size


def _read_file_parameters(items: MetadataItems, findings: Findings) -> layout.FileParameters:
    parameters = layout.FILE_PARAMETERS_LAYOUT.unpack(items.read(layout.FILE_PARAMETERS))
    size, flags = parameters.block_size, parameters.flags
    if not layout.MIN_BLOCK_SIZE <= size <= layout.MAX_BLOCK_SIZE or size.bit_count() != 1:
        problem = "the block size is not a power of two from 1 MiB to 256 MiB"
        raise CorruptImageError(
            items.finding(Rule.BLOCK_SIZE, layout.FILE_PARAMETERS, problem, f"{size} bytes")
        )
    if flags & layout.DISK_RESERVED_FLAGS:
        rule, problem = Rule.FILE_PARAMETERS_RESERVED, "reserved flags are set"
        findings.keep(
            Severity.WARNING, items.finding(rule, layout.FILE_PARAMETERS, problem, f"{flags:#x}")
        )
    return parameters


def _read_virtual_disk_size(
    items: MetadataItems, logical_sector_size: int, findings: Findings
) -> int:
    size = items.read_integer(layout.VIRTUAL_DISK_SIZE)

    def finding(problem: str) -> Finding:
        return items.finding(
            Rule.VIRTUAL_DISK_SIZE, layout.VIRTUAL_DISK_SIZE, problem, f"{size} bytes"
        )

    if size == 0:
        raise CorruptImageError(finding("the disk has no sector at all"))
    if size > layout.MAX_VIRTUAL_DISK_SIZE:
        raise CorruptImageError(finding("the disk is larger than 64 TiB"))
    if size % logical_sector_size:
        problem = f"is not a multiple of the logical sector size of {logical_sector_size} bytes"
        findings.refuse(finding(problem), CorruptImageError)
    return size


def _read_physical_sector_size(
    items: MetadataItems, logical_sector_size: int, findings: Findings
) -> int:
    raw = items.read_optional(layout.PHYSICAL_SECTOR_SIZE)
    if raw is None:
        return logical_sector_size
    size = int.from_bytes(raw, "little")
    if size not in layout.SECTOR_SIZES:
        rule, problem = Rule.PHYSICAL_SECTOR_SIZE, "is neither 512 nor 4096 bytes"
        findings.keep(
            Severity.NOTE, items.finding(rule, layout.PHYSICAL_SECTOR_SIZE, problem, str(size))
        )
    return size


def _read_parent_locator(
    items: MetadataItems, findings: Findings, *, has_parent: bool
) -> tuple[ParentLocator | None, ImageError | None]:
    """Read what a differencing disk has, and no other disk (R94); or say why it cannot be read."""
    if not has_parent:
        if layout.PARENT_LOCATOR in items:
            problem = "the disk is not differencing; its parent locator is ignored"
            findings.keep(
                Severity.WARNING, items.finding(Rule.PARENT_LOCATOR, layout.PARENT_LOCATOR, problem)
            )
        return None, None
    if layout.PARENT_LOCATOR not in items:
        problem = "a differencing disk needs one"
        finding = items.finding(Rule.PARENT_LOCATOR, layout.PARENT_LOCATOR, problem, "none")
        findings.refuse(finding, CorruptImageError)
        return None, None
    raw = _attempt(lambda: items.read(layout.PARENT_LOCATOR), findings)
    if raw is None:
        return None, None
    try:
        return parse_parent_locator(raw, findings), None
    except ImageError as error:
        if findings.lenient:
            findings.forgive(error, error.finding)
        return None, error
