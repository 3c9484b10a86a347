"""The known metadata items as one validated value (MS-VHDX 2.6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from vhdx2raw.errors import Findings
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


@dataclass(frozen=True, slots=True)
class Metadata:
    """The known metadata items; that it exists is the proof that they were checked.

    Attributes:
        block_size: Bytes of a payload block.
        leave_block_allocated: Set for a *fixed* disk; means nothing to a reader (R64).
        has_parent: Whether the disk is differencing.
        virtual_disk_size: Bytes of the virtual disk.
        virtual_disk_id: Identity of the disk as the guest sees it, if it is recorded.
        logical_sector_size: 512 or 4096 bytes.
        physical_sector_size: Bytes; for display only.
        parent_locator: The Parent Locator item of a differencing disk, not interpreted.
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
    parameters = _read_file_parameters(items)
    logical_sector_size = items.read_integer(LOGICAL_SECTOR_SIZE, 4, "2.6.2.4")
    if logical_sector_size not in SECTOR_SIZES:
        problem = "is neither 512 nor 4096 bytes"
        items.refuse("R67", LOGICAL_SECTOR_SIZE, problem, "2.6.2.4", str(logical_sector_size))
    has_parent = bool(parameters.flags & FileParameters.HAS_PARENT)
    return Metadata(
        block_size=parameters.block_size,
        leave_block_allocated=bool(parameters.flags & FileParameters.LEAVE_BLOCK_ALLOCATED),
        has_parent=has_parent,
        virtual_disk_size=_read_virtual_disk_size(items, logical_sector_size),
        virtual_disk_id=_read_virtual_disk_id(items),
        logical_sector_size=logical_sector_size,
        physical_sector_size=_read_physical_sector_size(items, logical_sector_size),
        parent_locator=_read_parent_locator(items, has_parent=has_parent),
    )


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
    problem = ""
    if size == 0:
        problem = "the disk has no sector at all"
    elif size > MAX_VIRTUAL_DISK_SIZE:
        problem = "the disk is larger than 64 TiB"
    elif size % logical_sector_size:
        problem = f"is not a multiple of the logical sector size of {logical_sector_size} bytes"
    if problem:
        items.refuse("R66", VIRTUAL_DISK_SIZE, problem, "2.6.2.2", f"{size} bytes")
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
            items.refuse("R94", PARENT_LOCATOR, "a differencing disk needs one", "2.6.2.6", "none")
        return items.read_whole(PARENT_LOCATOR, "2.6.2.6")
    if PARENT_LOCATOR in items:
        problem = "the disk is not differencing; its parent locator is ignored"
        items.warn("R94", PARENT_LOCATOR, problem, "2.6.2.6")
    return None
