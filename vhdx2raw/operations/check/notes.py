"""What is unusual about a file though no reader cares: reserved fields, flags, wasted space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.units import MIB
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.header import NO_HEADER
from vhdx2raw.vhdx.image import VhdxImage
from vhdx2raw.vhdx.locator import NAME as LOCATOR
from vhdx2raw.vhdx.metadata_table import IS_REQUIRED, IS_VIRTUAL_DISK, KNOWN_ITEMS, item_name
from vhdx2raw.vhdx.region import KNOWN_REGIONS, REQUIRED_FLAG
from vhdx2raw.zeros import MAX_BUFFER_SIZE, is_zero

RESERVED_RANGES = (
    ("file type identifier", layout.FILE_IDENTIFIER_SIZE, layout.HEADER_OFFSETS[0]),
    ("header 1", layout.HEADER_OFFSETS[0] + layout.HEADER_LAYOUT.size, layout.HEADER_OFFSETS[1]),
    (
        "header 2",
        layout.HEADER_OFFSETS[1] + layout.HEADER_LAYOUT.size,
        layout.REGION_TABLE_OFFSETS[0],
    ),
    (
        "header section",
        layout.REGION_TABLE_OFFSETS[1] + layout.REGION_TABLE_SIZE,
        layout.HEADER_SECTION_SIZE,
    ),
)
"""Parts of the header section that belong to no structure, with what they follow (2.2)."""

REGION_TABLES = tuple(
    (f"region table {number}", file_offset)
    for number, file_offset in enumerate(layout.REGION_TABLE_OFFSETS, 1)
)
RESERVED_OFFSET_STATES = (layout.PayloadBlockState.NOT_PRESENT, layout.PayloadBlockState.ZERO)


def add_notes(source: Source, image: VhdxImage | None, findings: Findings) -> None:
    """Note what is unusual about a file, as far as it can be read."""
    for part in _iter_all(source, image):
        with suppress(TruncatedImageError):  # reported by those who need what is missing
            for finding in part:
                findings.keep(Severity.NOTE, finding)


def _iter_all(source: Source, image: VhdxImage | None) -> Iterator[Iterable[Finding]]:
    yield _reserved_ranges(source)
    for name, file_offset in REGION_TABLES:
        yield _region_table(source, name, file_offset)
    yield _required_flags(source)
    if source.size % MIB:
        found = f"{source.size} bytes"
        problem = "its size is not a multiple of 1 MiB"
        yield [Finding(Rule.SURPLUS, "file", problem, found=found)]
    if image:
        yield _header(image)
        yield _metadata_table(image)
        yield _items(image)
        yield _bat(image)


def _first_not_zero(source: Source, start: int, end: int) -> int | None:
    for piece_start in range(start, end, MAX_BUFFER_SIZE):
        piece = source.pread(piece_start, min(MAX_BUFFER_SIZE, end - piece_start))
        if not is_zero(memoryview(piece)):
            return piece_start + len(piece) - len(piece.lstrip(b"\0"))
    return None


def _reserved_ranges(source: Source) -> Iterator[Finding]:
    for name, start, end in RESERVED_RANGES:
        where = _first_not_zero(source, start, end)
        if where is not None:
            yield Finding(
                Rule.HEADER_RESERVED,
                name,
                "the reserved space after it is not zero",
                file_offset=where,
            )


def _region_table(source: Source, name: str, file_offset: int) -> Iterator[Finding]:
    raw = source.pread(file_offset, layout.REGION_TABLE_SIZE)
    header = layout.REGION_TABLE_HEADER_LAYOUT.unpack(raw)
    if not _is_region_table(header):
        return
    if header.reserved:
        yield Finding(
            Rule.REGION_TABLE_RESERVED,
            name,
            "its reserved field is not zero",
            file_offset=file_offset,
        )
    place = layout.REGION_TABLE_HEADER_LAYOUT.size
    place += header.entry_count * layout.REGION_TABLE_ENTRY_LAYOUT.size
    if any(raw[place:]):
        problem = "the reserved space after its entries is not zero"
        yield Finding(Rule.REGION_TABLE_RESERVED, name, problem, file_offset=file_offset + place)


def _required_flags(source: Source) -> Iterator[Finding]:
    """Yield one finding for all entries: QEMU marks none of them, in any file that it makes."""
    entries = [
        (name, file_offset, entry)
        for name, table_offset in REGION_TABLES
        for file_offset, entry in _iter_region_entries(source, table_offset)
        if entry.guid in KNOWN_REGIONS and entry.required != REQUIRED_FLAG
    ]
    for name, file_offset, entry in entries[:1]:
        problem = f"the {KNOWN_REGIONS[entry.guid]} is not marked as required"
        if len(entries) > 1:
            problem += f" (entries of both tables like this: {len(entries)})"
        found = f"{entry.required:#x}"
        yield Finding(
            Rule.REGION_FLAGS,
            name,
            problem,
            file_offset=file_offset,
            found=found,
            expected="0x1",
        )


def _iter_region_entries(
    source: Source, file_offset: int
) -> Iterator[tuple[int, layout.RegionTableEntry]]:
    """Yield the offset of each entry of a region table, and the entry, if it is such a table."""
    raw = source.pread(file_offset, layout.REGION_TABLE_SIZE)
    header = layout.REGION_TABLE_HEADER_LAYOUT.unpack(raw)
    if _is_region_table(header):
        size = layout.REGION_TABLE_ENTRY_LAYOUT.size
        for index in range(header.entry_count):
            place = layout.REGION_TABLE_HEADER_LAYOUT.size + index * size
            yield file_offset + place, layout.REGION_TABLE_ENTRY_LAYOUT.unpack(raw, place)


def _is_region_table(header: layout.RegionTableHeader) -> bool:
    has_signature = header.signature == layout.REGION_TABLE_SIGNATURE
    return has_signature and header.entry_count <= layout.MAX_TABLE_ENTRIES


def _header(image: VhdxImage) -> Iterator[Finding]:
    section = image.header_section
    header, number = section.header, section.header_number
    where = layout.HEADER_OFFSETS[number - 1]
    name = f"header {number}"
    if header is NO_HEADER:
        return
    if header.log_version and not section.is_dirty:
        problem = "unknown version of the log, which holds nothing"
        yield Finding(
            Rule.LOG_VERSION,
            name,
            problem,
            file_offset=where,
            found=str(header.log_version),
            expected="0",
        )
    if header.data_write_guid == layout.ZERO_GUID:
        problem = (
            "the DataWriteGuid is zero, so that no child can distinguish this version from another"
        )
        yield Finding(Rule.DATA_WRITE_GUID, name, problem, file_offset=where)


def _metadata_table(image: VhdxImage) -> Iterator[Finding]:
    start = image.regions.metadata.file_offset
    raw = image.source.pread(start, layout.METADATA_TABLE_SIZE)
    place = layout.METADATA_TABLE_HEADER_LAYOUT.size
    for _ in range(
        min(layout.METADATA_TABLE_HEADER_LAYOUT.unpack(raw).entry_count, layout.MAX_TABLE_ENTRIES)
    ):
        entry = layout.METADATA_TABLE_ENTRY_LAYOUT.unpack(raw, place)
        flags = entry.flags & (IS_REQUIRED | IS_VIRTUAL_DISK)
        known = KNOWN_ITEMS.get(entry.item_id)
        name = item_name(entry.item_id)
        if known and not entry.is_user and flags != known.flags:
            yield Finding(
                Rule.ITEM_FLAGS,
                name,
                "has unusual flags",
                file_offset=start + place,
                found=f"{flags:#x}",
                expected=f"{known.flags:#x}",
            )
        if entry.offset and not entry.length:
            yield Finding(
                Rule.EMPTY_ITEM,
                name,
                "is empty, but has an offset",
                file_offset=start + place,
                found=f"{entry.offset:#x}",
                expected="0x0",
            )
        place += layout.METADATA_TABLE_ENTRY_LAYOUT.size


def _items(image: VhdxImage) -> Iterator[Finding]:
    metadata = image.metadata
    locator = metadata.parent_locator
    if locator and locator.reserved:
        problem, found = "its reserved field is not zero", f"{locator.reserved:#x}"
        yield Finding(Rule.LOCATOR_PLACE, LOCATOR, problem, found=found)
    logical, physical = metadata.logical_sector_size, metadata.physical_sector_size
    if physical < logical:
        problem = "physical sectors are smaller than logical ones"
        found = f"{physical} and {logical} bytes"
        yield Finding(Rule.PHYSICAL_SECTOR_SIZE, "metadata", problem, found=found)
    if metadata.has_parent and metadata.leave_block_allocated:
        problem = "a differencing disk is marked as fixed, which means nothing"
        yield Finding(Rule.LEAVE_BLOCK_ALLOCATED, "metadata", problem)
    if metadata.virtual_disk_id == layout.ZERO_GUID:
        yield Finding(Rule.VIRTUAL_DISK_ID, "metadata", "the Virtual Disk ID is zero")


def _bat(image: VhdxImage) -> Iterator[Finding]:
    """Note stale offsets, and entries that mean nothing."""
    geometry = image.geometry
    stale = 0
    for run in image.bat.iter_runs(0, geometry.payload_block_count):
        if run.state in RESERVED_OFFSET_STATES and run.entry & layout.FILE_OFFSET_MASK:
            stale += run.block_count
    if stale:
        problem = "entries of blocks that have no place hold a file offset, which is ignored"
        yield Finding(Rule.STALE_OFFSET, "BAT", problem, found=str(stale))
    for start, end in _unused_entries(image):
        where = _first_not_zero(image.source, start, end)
        if where is not None:
            problem = "something stands where the table has no entry in use, which is ignored"
            yield Finding(Rule.UNUSED_ENTRIES, "BAT region", problem, file_offset=where)
            return


def _unused_entries(image: VhdxImage) -> Iterator[tuple[int, int]]:
    """Yield the parts of the BAT region after the last block and after the table, by MiB."""
    geometry, region = image.geometry, image.regions.bat
    file_end = min(region.end, image.source.size)
    after_last_block = geometry.payload_bat_index(geometry.payload_block_count - 1) + 1
    after_table = image.bat.entry_file_offset(geometry.bat_entry_count)
    if geometry.has_parent:
        last_bitmap = image.bat.entry_file_offset(geometry.bat_entry_count - 1)
        yield image.bat.entry_file_offset(after_last_block), min(last_bitmap, file_end)
    for start in range(after_table, file_end, MIB):
        yield start, min(start + MIB, file_end)
