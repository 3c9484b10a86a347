"""Headers, region tables and the metadata table: every field can be set, checksums follow."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from .crc import seal
from .layout import (
    BAT_REGION,
    FILE_PARAMETERS,
    HEADER_SIZE,
    IS_REQUIRED,
    IS_VIRTUAL_DISK,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    METADATA_TABLE_SIZE,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    REGION_TABLE_SIZE,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
)


@dataclass
class HeaderDefaults:
    """What a header holds where its spec leaves a field open."""

    file_write_guid: UUID
    data_write_guid: UUID
    log_guid: UUID
    log_length: int
    log_offset: int


@dataclass
class HeaderSpec:
    """One header; None means: as in the image."""

    sequence_number: int = 0
    file_write_guid: UUID | None = None
    data_write_guid: UUID | None = None
    log_guid: UUID | None = None
    log_version: int = 0
    version: int = 1
    log_length: int | None = None
    log_offset: int | None = None
    reserved: bytes = b""
    """Bytes from offset 80 on, padded with zeros."""
    signature: bytes = b"head"
    checksum: int | None = None

    def pack(self, defaults: HeaderDefaults) -> bytes:
        """Give the 4096 bytes."""
        packed = struct.pack(
            "<4sIQ16s16s16sHHIQ",
            self.signature,
            0,
            self.sequence_number,
            _guid(self.file_write_guid, defaults.file_write_guid),
            _guid(self.data_write_guid, defaults.data_write_guid),
            _guid(self.log_guid, defaults.log_guid),
            self.log_version,
            self.version,
            defaults.log_length if self.log_length is None else self.log_length,
            defaults.log_offset if self.log_offset is None else self.log_offset,
        )
        page = bytearray((packed + self.reserved).ljust(HEADER_SIZE, b"\0"))
        return seal(page, self.checksum, HEADER_SIZE)


def _guid(chosen: UUID | None, default: UUID) -> bytes:
    return (default if chosen is None else chosen).bytes_le


@dataclass
class RegionEntrySpec:
    """One region; a file_offset or length of None: those of the image for this GUID."""

    guid: UUID
    file_offset: int | None = None
    length: int | None = None
    required: int = 1


def default_regions() -> list[RegionEntrySpec]:
    """Give the two known regions, BAT first."""
    return [RegionEntrySpec(BAT_REGION), RegionEntrySpec(METADATA_REGION)]


@dataclass
class RegionTableSpec:
    """One copy of the region table."""

    entries: list[RegionEntrySpec] = field(default_factory=default_regions)
    entry_count: int | None = None
    reserved: int = 0
    signature: bytes = b"regi"
    checksum: int | None = None

    def entry(self, guid: UUID) -> RegionEntrySpec:
        """Give the first entry with this GUID."""
        return next(entry for entry in self.entries if entry.guid == guid)

    def pack(self, places: dict[UUID, tuple[int, int]]) -> bytes:
        """Give the 65536 bytes; `places` has (file_offset, length) of the known regions."""
        count = len(self.entries) if self.entry_count is None else self.entry_count
        packed = bytearray(struct.pack("<4sIII", self.signature, 0, count, self.reserved))
        for entry in self.entries:
            default_offset, default_length = places.get(entry.guid, (0, 0))
            packed += struct.pack(
                "<16sQII",
                entry.guid.bytes_le,
                default_offset if entry.file_offset is None else entry.file_offset,
                default_length if entry.length is None else entry.length,
                entry.required,
            )
        packed = packed.ljust(REGION_TABLE_SIZE, b"\0")[:REGION_TABLE_SIZE]
        return seal(packed, self.checksum)


@dataclass
class MetadataItemSpec:
    """One item; data of None: the image's own value (a locator without one is left out).

    `offset` is relative to the metadata region (None: after the item before); `length` is what
    the table claims (None: the truth).
    """

    item_id: UUID
    data: bytes | None = None
    flags: int = IS_REQUIRED | IS_VIRTUAL_DISK
    offset: int | None = None
    length: int | None = None
    reserved: int = 0


def default_items() -> list[MetadataItemSpec]:
    """Give the known items in the order of the golden images."""
    return [
        MetadataItemSpec(FILE_PARAMETERS, flags=IS_REQUIRED),
        MetadataItemSpec(VIRTUAL_DISK_SIZE),
        MetadataItemSpec(VIRTUAL_DISK_ID),
        MetadataItemSpec(LOGICAL_SECTOR_SIZE),
        MetadataItemSpec(PHYSICAL_SECTOR_SIZE),
        MetadataItemSpec(PARENT_LOCATOR, flags=IS_REQUIRED),
    ]


@dataclass
class MetadataTableSpec:
    """The metadata table with its items."""

    items: list[MetadataItemSpec] = field(default_factory=default_items)
    entry_count: int | None = None
    signature: bytes = b"metadata"
    reserved: int = 0
    reserved2: bytes = bytes(20)

    def item(self, item_id: UUID) -> MetadataItemSpec:
        """Give the first item with this GUID."""
        return next(item for item in self.items if item.item_id == item_id)

    def remove(self, item_id: UUID) -> None:
        """Take every item with this GUID out."""
        self.items = [item for item in self.items if item.item_id != item_id]

    def pieces(self, values: dict[UUID, bytes]) -> Iterator[tuple[int, bytes]]:
        """Give (offset in the region, bytes): the items, then the table."""
        entries = bytearray()
        count = 0
        cursor = METADATA_TABLE_SIZE
        for item in self.items:
            data = values.get(item.item_id) if item.data is None else item.data
            if data is None:
                continue
            length = len(data) if item.length is None else item.length
            offset = item.offset
            if offset is None:
                offset = cursor if length else 0
                cursor += len(data)
            count += 1
            entries += struct.pack(
                "<16sIIII", item.item_id.bytes_le, offset, length, item.flags, item.reserved
            )
            yield offset, data
        count = count if self.entry_count is None else self.entry_count
        head = struct.pack("<8sHH20s", self.signature, self.reserved, count, self.reserved2)
        yield 0, (head + entries).ljust(METADATA_TABLE_SIZE, b"\0")[:METADATA_TABLE_SIZE]
