"""The known metadata items as one validated value (MS-VHDX 2.6.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from uuid import UUID

from vhdx2raw.errors import CorruptImageError, Finding, Findings, Severity
from vhdx2raw.metadata_table import MetadataItems
from vhdx2raw.region import Region
from vhdx2raw.source import Source
from vhdx2raw.structures import (
    FILE_PARAMETERS,
    LOGICAL_SECTOR_SIZE,
    MAX_BLOCK_SIZE,
    MAX_VIRTUAL_DISK_SIZE,
    MIN_BLOCK_SIZE,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    SECTOR_SIZES,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    FileParameters,
)

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
        parent_locator: The Parent Locator item of a differencing disk, not interpreted; None for
            any other disk, and where only a lenient reader goes on.
    """

    block_size: int
    leave_block_allocated: bool
    has_parent: bool
    virtual_disk_size: int
    virtual_disk_id: UUID | None
    logical_sector_size: int
    physical_sector_size: int
    parent_locator: bytes | None

    @property
    def disk_type(self) -> str:
        """``dynamic``, ``fixed`` or ``differencing``; the format itself has no such field."""
        if self.has_parent:
            return "differencing"
        return "fixed" if self.leave_block_allocated else "dynamic"


def read_metadata(source: Source, region: Region, findings: Findings) -> Metadata:
    """Read and check the known metadata items (R54 to R70, R94).

    Raises:
        UnsupportedImageError: A required item is unknown.
        CorruptImageError: A needed item is missing or has an impossible value.
    """
    items = MetadataItems(source, region, findings)
    parameters = _attempt(lambda: _read_file_parameters(items), findings)
    logical_sector_size = _attempt(lambda: _read_logical_sector_size(items), findings)
    # A lenient reader assumes what nearly every disk has.
    logical_sector_size = logical_sector_size or SECTOR_SIZES[0]
    virtual_disk_size = _attempt(
        lambda: _read_virtual_disk_size(items, logical_sector_size), findings
    )
    if parameters is None or virtual_disk_size is None:
        reasons = "; ".join(map(str, findings.of(Severity.ERROR)[-2:]))
        problem = f"nothing can stand in for the sizes of the disk and of its blocks: {reasons}"
        raise CorruptImageError(Finding("R61", "metadata", problem))
    has_parent = bool(parameters.flags & FileParameters.HAS_PARENT)
    return Metadata(
        block_size=parameters.block_size,
        leave_block_allocated=bool(parameters.flags & FileParameters.LEAVE_BLOCK_ALLOCATED),
        has_parent=has_parent,
        virtual_disk_size=virtual_disk_size,
        virtual_disk_id=_read_virtual_disk_id(items),
        logical_sector_size=logical_sector_size,
        physical_sector_size=_read_physical_sector_size(items, logical_sector_size),
        parent_locator=_attempt(
            lambda: _read_parent_locator(items, has_parent=has_parent), findings
        ),
    )


def _attempt(read: Callable[[], _Value], findings: Findings) -> _Value | None:
    """Return what `read` returns; None if it fails and the reader is lenient."""
    try:
        return read()
    except CorruptImageError as error:
        findings.error(error)
        return None


def _read_logical_sector_size(items: MetadataItems) -> int:
    size = items.read_integer(LOGICAL_SECTOR_SIZE, 4, "2.6.2.4")
    if size not in SECTOR_SIZES:
        problem = "is neither 512 nor 4096 bytes"
        items.refuse("R67", LOGICAL_SECTOR_SIZE, problem, "2.6.2.4", str(size))
    return size


def _read_file_parameters(items: MetadataItems) -> FileParameters:
    raw = items.read(FILE_PARAMETERS, FileParameters.LAYOUT.size, "2.6.2.1")
    parameters = FileParameters.unpack(raw)
    size = parameters.block_size
    if not MIN_BLOCK_SIZE <= size <= MAX_BLOCK_SIZE or size.bit_count() != 1:
        problem = "the block size is not a power of two from 1 MiB to 256 MiB"
        items.refuse("R63", FILE_PARAMETERS, problem, "2.6.2.1", f"{size} bytes")
    if parameters.flags & FileParameters.RESERVED_FLAGS:
        problem = "reserved flags are set"
        items.warn("R65", FILE_PARAMETERS, problem, "2.6.2.1", f"{parameters.flags:#x}")
    return parameters


def _read_virtual_disk_size(items: MetadataItems, logical_sector_size: int) -> int:
    size = items.read_integer(VIRTUAL_DISK_SIZE, 8, "2.6.2.2")
    found = f"{size} bytes"
    if size == 0:
        items.refuse("R66", VIRTUAL_DISK_SIZE, "the disk has no sector at all", "2.6.2.2", found)
    if size > MAX_VIRTUAL_DISK_SIZE:
        problem = "the disk is larger than 64 TiB"
        items.refuse("R66", VIRTUAL_DISK_SIZE, problem, "2.6.2.2", found)
    if size % logical_sector_size:
        problem = f"is not a multiple of the logical sector size of {logical_sector_size} bytes"
        items.error("R66", VIRTUAL_DISK_SIZE, problem, "2.6.2.2", found)
    return size


def _read_virtual_disk_id(items: MetadataItems) -> UUID | None:
    raw = items.read_optional(VIRTUAL_DISK_ID, 16, "2.6.2.3")
    return UUID(bytes_le=raw) if raw else None


def _read_physical_sector_size(items: MetadataItems, logical_sector_size: int) -> int:
    raw = items.read_optional(PHYSICAL_SECTOR_SIZE, 4, "2.6.2.5")
    if raw is None:
        return logical_sector_size
    size = int.from_bytes(raw, "little")
    if size not in SECTOR_SIZES:
        items.warn(
            "R68", PHYSICAL_SECTOR_SIZE, "is neither 512 nor 4096 bytes", "2.6.2.5", str(size)
        )
    return size


def _read_parent_locator(items: MetadataItems, *, has_parent: bool) -> bytes | None:
    """Read the item that a differencing disk has, and no other disk (R94)."""
    if has_parent:
        if PARENT_LOCATOR not in items:
            items.error("R94", PARENT_LOCATOR, "a differencing disk needs one", "2.6.2.6", "none")
            return None
        return items.read_whole(PARENT_LOCATOR, "2.6.2.6")
    if PARENT_LOCATOR in items:
        problem = "the disk is not differencing; its parent locator is ignored"
        items.warn("R94", PARENT_LOCATOR, problem, "2.6.2.6")
    return None
