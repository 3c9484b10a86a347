"""Where the numbers of an image stand, by its description: what a mutation can aim at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.builder import (
    FILE_PARAMETERS,
    LOGICAL_SECTOR_SIZE,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    DataDescriptorSpec,
    ImageSpec,
    LogEntrySpec,
)
from tests.support.builder.layout import HEADER_OFFSETS, REGION_TABLE_OFFSETS
from tests.support.builder.placement import bat_values

PAGE = 4096
Layout = tuple[tuple[str, int, int], ...]
"""(name, offset in the structure, size in bytes) of each field."""

HEADER: Layout = (
    ("signature", 0, 4),
    ("checksum", 4, 4),
    ("sequence number", 8, 8),
    ("file write GUID", 16, 16),
    ("data write GUID", 32, 16),
    ("log GUID", 48, 16),
    ("log version", 64, 2),
    ("version", 66, 2),
    ("log length", 68, 4),
    ("log offset", 72, 8),
)
REGION_TABLE: Layout = (("signature", 0, 4), ("checksum", 4, 4), ("entry count", 8, 4))
REGION: Layout = (("GUID", 0, 16), ("file offset", 16, 8), ("length", 24, 4), ("required", 28, 4))
METADATA_TABLE: Layout = (("signature", 0, 8), ("reserved", 8, 2), ("entry count", 10, 2))
METADATA_ENTRY: Layout = (
    ("item", 0, 16),
    ("offset", 16, 4),
    ("length", 20, 4),
    ("flags", 24, 4),
    ("reserved", 28, 4),
)
ITEMS: dict[object, Layout] = {
    FILE_PARAMETERS: (("block size", 0, 4), ("flags", 4, 4)),
    VIRTUAL_DISK_SIZE: (("virtual disk size", 0, 8),),
    VIRTUAL_DISK_ID: (("virtual disk ID", 0, 16),),
    LOGICAL_SECTOR_SIZE: (("logical sector size", 0, 4),),
    PHYSICAL_SECTOR_SIZE: (("physical sector size", 0, 4),),
    PARENT_LOCATOR: (("locator type", 0, 16), ("reserved", 16, 2), ("entry count", 18, 2)),
}
LOCATOR_ENTRY: Layout = (
    ("key offset", 0, 4),
    ("value offset", 4, 4),
    ("key length", 8, 2),
    ("value length", 10, 2),
)
LOG_ENTRY: Layout = (
    ("signature", 0, 4),
    ("checksum", 4, 4),
    ("entry length", 8, 4),
    ("tail", 12, 4),
    ("sequence number", 16, 8),
    ("descriptor count", 24, 4),
    ("reserved", 28, 4),
    ("log GUID", 32, 16),
    ("flushed file offset", 48, 8),
    ("last file offset", 56, 8),
)
DESCRIPTOR: Layout = (
    ("signature", 0, 4),
    ("trailing bytes", 4, 4),
    ("leading bytes or length", 8, 8),
    ("file offset", 16, 8),
    ("sequence number", 24, 8),
)
DATA_SECTOR: Layout = (("signature", 0, 4), ("high", 4, 4), ("low", 4092, 4))


@dataclass(frozen=True)
class Field:
    """A number of the file.

    Attributes:
        name: The structure and the field, for people.
        offset: Where it stands in the file.
        size: Its bytes.
    """

    name: str
    offset: int
    size: int


def fields_of(spec: ImageSpec) -> Iterator[Field]:
    """Give every field of an image, and those of tables that its log rewrites, there too."""
    tables = list(_table_fields(spec))
    for number, offset in enumerate(HEADER_OFFSETS, 1):
        yield from _at(f"header {number}", offset, HEADER)
    yield from tables
    yield from _log_fields(spec)
    yield from _logged(spec, tables)


def _at(structure: str, offset: int, layout: Layout) -> Iterator[Field]:
    for name, start, size in layout:
        yield Field(f"{structure}: {name}", offset + start, size)


def _table_fields(spec: ImageSpec) -> Iterator[Field]:
    for number, offset in enumerate(REGION_TABLE_OFFSETS, 1):
        name = f"region table {number}"
        yield from _at(name, offset, REGION_TABLE)
        for index in range(len(spec.region_tables[number - 1].entries)):
            yield from _at(f"{name}, entry {index}", offset + 16 + 32 * index, REGION)
    yield from _metadata_fields(spec)
    for index in bat_values(spec):
        yield Field(f"BAT entry {index}", spec.bat_offset + 8 * index, 8)
    for chunk, place in spec.placement().bitmaps.items():
        yield Field(f"sector bitmap of chunk {chunk}", place, 8)


def _metadata_fields(spec: ImageSpec) -> Iterator[Field]:
    yield from _at("metadata table", spec.metadata_offset, METADATA_TABLE)
    values = spec.metadata_values()
    cursor, index = 64 << 10, 0
    for item in spec.metadata.items:
        data = values.get(item.item_id) if item.data is None else item.data
        if data is None:
            continue
        place = spec.metadata_offset + 32 + 32 * index
        yield from _at(f"metadata entry {index}", place, METADATA_ENTRY)
        start = spec.metadata_offset + cursor
        yield from _at(f"item {index}", start, ITEMS.get(item.item_id, ()))
        if item.item_id == PARENT_LOCATOR:
            for entry in range(int.from_bytes(data[18:20], "little")):
                yield from _at(f"locator entry {entry}", start + 20 + 12 * entry, LOCATOR_ENTRY)
        cursor += len(data)
        index += 1


def _log_fields(spec: ImageSpec) -> Iterator[Field]:
    for number, entry in enumerate(spec.log.entries):
        name = f"log entry {number}"
        yield from _at(name, in_ring(spec, entry.position), LOG_ENTRY)
        for index in range(len(entry.descriptors)):
            place = in_ring(spec, entry.position + 64 + 32 * index)
            yield from _at(f"{name}, descriptor {index}", place, DESCRIPTOR)
        for index, _, _, data_place in logged_pages(spec, entry):
            yield from _at(f"{name}, data sector {index}", data_place, DATA_SECTOR)


def logged_pages(spec: ImageSpec, entry: LogEntrySpec) -> Iterator[tuple[int, int, int, int]]:
    """Give (number, file offset, place of descriptor, place of data) of each data descriptor."""
    data = entry.position + -(-(64 + 32 * len(entry.descriptors)) // PAGE) * PAGE
    number = 0
    for index, descriptor in enumerate(entry.descriptors):
        if isinstance(descriptor, DataDescriptorSpec):
            place = in_ring(spec, entry.position + 64 + 32 * index)
            yield number, descriptor.file_offset, place, in_ring(spec, data + PAGE * number)
            number += 1


def in_ring(spec: ImageSpec, position: int) -> int:
    """Give the file offset of a position in the ring of the log."""
    return spec.log_offset + position % spec.log_length


def _logged(spec: ImageSpec, tables: list[Field]) -> Iterator[Field]:
    """Give the fields of tables at the places where the log keeps their new values."""
    pages = {
        file_offset: (descriptor, data)
        for entry in spec.log.entries
        for _, file_offset, descriptor, data in logged_pages(spec, entry)
    }
    for field in tables:
        start = field.offset % PAGE
        place = pages.get(field.offset - start)
        if place is not None:
            yield Field(f"logged {field.name}", place_in_log(start, *place), field.size)


def place_in_log(start: int, descriptor: int, data: int) -> int:
    """Give where the byte `start` of a logged page stands: in its data sector, or descriptor."""
    if start < 8:
        return descriptor + 8 + start
    return data + start if start < PAGE - 4 else descriptor + 4 + start - (PAGE - 4)
