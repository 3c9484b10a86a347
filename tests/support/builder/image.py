"""A whole VHDX file as a description that can be written, broken and read back in theory."""

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from . import layout
from .content import Content
from .expected import expected_bytes, expected_sha256
from .layout import MIB, BlockGeometry, BlockState, round_up, same_bytes_guid
from .log import LogContext, LogSpec
from .placement import Placement, bat_values, bitmap_pieces, payload_pieces, place
from .tables import HeaderDefaults, HeaderSpec, MetadataTableSpec, RegionTableSpec

_PAGE = 4096
_CREATOR_SIZE = 512

FILE_WRITE_GUID = same_bytes_guid(0x11)
DATA_WRITE_GUID = same_bytes_guid(0x22)
DISK_ID = same_bytes_guid(0x33)

DiskReader = Callable[[int, int], bytes]
"""(virtual_offset, length) to bytes, zeros beyond the end of that disk."""


@dataclass
class Block:
    """One payload block.

    file_offset None: the next free MiB. In the states that own no space an explicit file_offset
    is stale: it stands in the BAT and the content is written there, but the disk does not show it.
    sector_bits: the sectors of the block whose bit is 1 (None: all of them in state 7).
    """

    state: int = BlockState.FULLY_PRESENT
    content: Content = None
    file_offset: int | None = None
    sector_bits: Collection[int] | None = None
    reserved_bits: int = 0

    @property
    def owns_space(self) -> bool:
        """Whether the block occupies space in the file."""
        return self.state in (BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT)


@dataclass
class BitmapSpec:
    """A sector bitmap block; `fill` is the byte under blocks that have no sector_bits."""

    file_offset: int | None = None
    fill: int = 0
    state: int = BlockState.FULLY_PRESENT
    reserved_bits: int = 0


def _two_headers() -> list[HeaderSpec]:
    return [HeaderSpec(sequence_number=1), HeaderSpec(sequence_number=2)]


def _two_region_tables() -> list[RegionTableSpec]:
    return [RegionTableSpec(), RegionTableSpec()]


@dataclass
class ImageSpec:
    """The description of one VHDX file; change any field, checksums follow."""

    virtual_disk_size: int
    block_size: int = 32 * MIB
    blocks: dict[int, Block] = field(default_factory=dict)
    """By payload block index; the order of insertion is the order in the file."""
    tag: str = "base"
    """The layer name in the default content of blocks."""
    logical_sector_size: int = 512
    physical_sector_size: int = 4096
    leave_block_allocated: bool = False
    has_parent: bool | None = None
    """None: if there is a locator."""
    file_parameters_flags: int | None = None
    """The raw flags, instead of the two fields above."""
    locator: bytes | None = None
    parent: "ImageSpec | DiskReader | None" = None
    """What expected_disk() takes for the parent; not written anywhere."""
    bitmaps: dict[int, BitmapSpec | None] = field(default_factory=dict)
    """By chunk index. Not named: present if a block of the chunk needs it. None: left out."""
    bat_overrides: dict[int, int] = field(default_factory=dict)
    """Raw entries by BAT index, also past the end; expected_disk() does not look at them."""
    file_write_guid: UUID = FILE_WRITE_GUID
    data_write_guid: UUID = DATA_WRITE_GUID
    virtual_disk_id: UUID = DISK_ID
    log_guid: UUID = layout.ZERO_GUID
    log: LogSpec = field(default_factory=LogSpec)
    signature: bytes = b"vhdxfile"
    creator: str | bytes = "imagebuilder"
    headers: list[HeaderSpec] = field(default_factory=_two_headers)
    region_tables: list[RegionTableSpec] = field(default_factory=_two_region_tables)
    metadata: MetadataTableSpec = field(default_factory=MetadataTableSpec)
    log_offset: int = MIB
    log_length: int = MIB
    metadata_offset: int = 2 * MIB
    metadata_length: int = MIB
    bat_offset: int = 3 * MIB
    bat_length: int | None = None
    file_size: int | None = None
    patches: dict[int, bytes] = field(default_factory=dict)
    """Raw bytes by file offset, written last; expected_disk() does not look at them."""

    @property
    def geometry(self) -> BlockGeometry:
        """The counts and indexes that follow from the sizes."""
        return BlockGeometry(self.virtual_disk_size, self.block_size, self.logical_sector_size)

    @property
    def flags(self) -> int:
        """The flags of the File Parameters."""
        if self.file_parameters_flags is not None:
            return self.file_parameters_flags
        has_parent = self.locator is not None if self.has_parent is None else self.has_parent
        return int(self.leave_block_allocated) | int(has_parent) << 1

    @property
    def is_differencing(self) -> bool:
        """Whether the disk has a parent, by its flags."""
        return bool(self.flags & 2)

    @property
    def resolved_bat_length(self) -> int:
        """The length of the BAT region as placed and declared."""
        if self.bat_length is not None:
            return self.bat_length
        entries = self.geometry.bat_entry_count(differencing=self.is_differencing)
        return round_up(max(1, 8 * entries), MIB)

    @property
    def resolved_file_size(self) -> int:
        """The size of the file as written, before patches."""
        return self.placement().end if self.file_size is None else self.file_size

    def placement(self) -> Placement:
        """Decide where every payload block and sector bitmap block lies."""
        return place(self)

    def block_file_offset(self, payload_block_index: int) -> int:
        """Give the place of a payload block in the file."""
        return self.placement().blocks[payload_block_index]

    def payload_bat_file_offset(self, payload_block_index: int) -> int:
        """Give the place of a payload block's BAT entry in the file."""
        return self.bat_offset + 8 * self.geometry.payload_bat_index(payload_block_index)

    def write(self, path: Path | str) -> None:
        """Write the file, sparse; the same description gives the same bytes."""
        size = self.resolved_file_size
        with Path(path).open("wb", buffering=0) as file:
            for file_offset, data in payload_pieces(self):
                _write_clipped(file, file_offset, data, size)
            for file_offset, data in self.structure_pieces():
                _write_clipped(file, file_offset, data, size)
            file.truncate(size)
            for file_offset, data in self.patches.items():
                _write_clipped(file, file_offset, data, file_offset + len(data))

    def structure_pieces(self) -> Iterator[tuple[int, bytes]]:
        """Give (file_offset, bytes) of all but the payload; later ones win."""
        context = LogContext(self.log_guid, max(_PAGE, self.log_length), self.resolved_file_size)
        for position, data in self.log.pieces(context):
            yield self.log_offset + position, data
        yield from self.table_pieces()
        defaults = HeaderDefaults(
            self.file_write_guid,
            self.data_write_guid,
            self.log_guid,
            self.log_length,
            self.log_offset,
        )
        for file_offset, header in zip(layout.HEADER_OFFSETS, self.headers, strict=True):
            yield file_offset, header.pack(defaults)
        yield 0, self.signature + self._creator_bytes()

    def table_pieces(self) -> Iterator[tuple[int, bytes]]:
        """Give (file_offset, bytes) of what a log may rewrite: bitmaps and all the tables."""
        yield from bitmap_pieces(self)
        for offset, data in self.metadata.pieces(self.metadata_values()):
            if offset + len(data) <= max(self.metadata_length, MIB):
                yield self.metadata_offset + offset, data
        yield from _bat_pieces(self.bat_offset, bat_values(self))
        places = {
            layout.BAT_REGION: (self.bat_offset, self.resolved_bat_length),
            layout.METADATA_REGION: (self.metadata_offset, self.metadata_length),
        }
        for offset, table in zip(layout.REGION_TABLE_OFFSETS, self.region_tables, strict=True):
            yield offset, table.pack(places)

    def metadata_values(self) -> dict[UUID, bytes]:
        """Give the contents of the known metadata items."""
        values = {
            layout.FILE_PARAMETERS: struct.pack("<II", self.block_size, self.flags),
            layout.VIRTUAL_DISK_SIZE: struct.pack("<Q", self.virtual_disk_size),
            layout.VIRTUAL_DISK_ID: self.virtual_disk_id.bytes_le,
            layout.LOGICAL_SECTOR_SIZE: struct.pack("<I", self.logical_sector_size),
            layout.PHYSICAL_SECTOR_SIZE: struct.pack("<I", self.physical_sector_size),
        }
        if self.locator is not None:
            values[layout.PARENT_LOCATOR] = self.locator
        return values

    def expected_disk(
        self, offset: int, length: int, parent: "ImageSpec | DiskReader | None" = None
    ) -> bytes:
        """Give what the virtual disk must hold there, by the description alone.

        Beyond the end of the disk: zeros, as a larger child sees it. `parent` goes before
        self.parent.
        """
        return expected_bytes(self, offset, length, self.parent if parent is None else parent)

    def expected_sha256(self, parent: "ImageSpec | DiskReader | None" = None) -> str:
        """Give the SHA-256 of the raw disk."""
        return expected_sha256(self, self.parent if parent is None else parent)

    def _creator_bytes(self) -> bytes:
        creator = self.creator
        if isinstance(creator, str):
            creator = creator.encode("utf-16-le", "surrogatepass")
        return creator[:_CREATOR_SIZE].ljust(_CREATOR_SIZE, b"\0")


def _bat_pieces(bat_offset: int, values: dict[int, int]) -> Iterator[tuple[int, bytes]]:
    per_page = _PAGE // 8
    pages: dict[int, list[int]] = {}
    for index, value in values.items():
        pages.setdefault(index // per_page, [0] * per_page)[index % per_page] = value
    for page, entries in pages.items():
        yield bat_offset + page * _PAGE, struct.pack(f"<{per_page}Q", *entries)


def _write_clipped(file: BinaryIO, file_offset: int, data: bytes, size: int) -> None:
    if file_offset < size:
        file.seek(file_offset)
        file.write(data[: size - file_offset])
