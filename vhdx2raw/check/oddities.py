"""What is odd about a file though no reader cares: reserved fields, flags, wasted space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from vhdx2raw.errors import Finding, Findings, TruncatedImageError
from vhdx2raw.header import NO_HEADER
from vhdx2raw.image import VhdxImage
from vhdx2raw.metadata_table import ITEM_NAMES
from vhdx2raw.region import KNOWN_REGIONS, REQUIRED_FLAG
from vhdx2raw.source import Source
from vhdx2raw.structures import (
    FILE_IDENTIFIER_SIZE,
    FILE_OFFSET_MASK,
    FILE_PARAMETERS,
    GUID_SIZE,
    HEADER_OFFSETS,
    HEADER_SECTION_SIZE,
    LOGICAL_SECTOR_SIZE,
    MAX_TABLE_ENTRIES,
    METADATA_TABLE_SIZE,
    MIB,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    REGION_TABLE_OFFSETS,
    REGION_TABLE_SIGNATURE,
    REGION_TABLE_SIZE,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    ZERO_GUID,
    Header,
    MetadataTableEntry,
    MetadataTableHeader,
    PayloadBlockState,
    RegionTableEntry,
    RegionTableHeader,
)
from vhdx2raw.zeros import MAX_BUFFER_SIZE, is_zero

RESERVED_RANGES = (
    ("file type identifier", FILE_IDENTIFIER_SIZE, HEADER_OFFSETS[0]),
    ("header 1", HEADER_OFFSETS[0] + Header.LAYOUT.size, HEADER_OFFSETS[1]),
    ("header 2", HEADER_OFFSETS[1] + Header.LAYOUT.size, REGION_TABLE_OFFSETS[0]),
    ("header section", REGION_TABLE_OFFSETS[1] + REGION_TABLE_SIZE, HEADER_SECTION_SIZE),
)
"""Parts of the header section that belong to nobody, with what they follow (2.2)."""

IS_REQUIRED, IS_VIRTUAL_DISK = MetadataTableEntry.IS_REQUIRED, MetadataTableEntry.IS_VIRTUAL_DISK
ITEM_FLAGS = {
    FILE_PARAMETERS: IS_REQUIRED,
    VIRTUAL_DISK_SIZE: IS_REQUIRED | IS_VIRTUAL_DISK,
    VIRTUAL_DISK_ID: IS_REQUIRED | IS_VIRTUAL_DISK,
    LOGICAL_SECTOR_SIZE: IS_REQUIRED | IS_VIRTUAL_DISK,
    PHYSICAL_SECTOR_SIZE: IS_REQUIRED | IS_VIRTUAL_DISK,
    PARENT_LOCATOR: IS_REQUIRED,
}
"""The flags that the known items should have (2.6.2)."""

RESERVED_OFFSET_STATES = (PayloadBlockState.NOT_PRESENT, PayloadBlockState.ZERO)


def find_oddities(source: Source, image: VhdxImage | None, findings: Findings) -> None:
    """Note what is odd about a file, as far as it can be read."""
    for part in _iter_all(source, image):
        with suppress(TruncatedImageError):  # reported by those who need what is missing
            for finding in part:
                findings.note(finding)


def _iter_all(source: Source, image: VhdxImage | None) -> Iterator[Iterable[Finding]]:
    yield _reserved_ranges(source)
    for number, file_offset in enumerate(REGION_TABLE_OFFSETS, 1):
        yield _region_table(source, f"region table {number}", file_offset)
    if source.size % MIB:
        found = f"{source.size} bytes"
        problem = "its size is not a multiple of 1 MiB"
        yield [Finding("R113", "file", problem, "", found=found)]
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
            yield Finding("R16", name, "the reserved space behind it is not zero", "2.2", where)


def _region_table(source: Source, name: str, file_offset: int) -> Iterator[Finding]:
    raw = source.pread(file_offset, REGION_TABLE_SIZE)
    header = RegionTableHeader.unpack(raw)
    if header.signature != REGION_TABLE_SIGNATURE or header.entry_count > MAX_TABLE_ENTRIES:
        return
    if header.reserved:
        yield Finding("R53", name, "its reserved field is not zero", "2.2.3.1", file_offset)
    place = RegionTableHeader.LAYOUT.size
    for _ in range(header.entry_count):
        entry = RegionTableEntry.unpack(raw, place)
        if entry.guid in KNOWN_REGIONS and entry.required != REQUIRED_FLAG:
            problem = f"the {KNOWN_REGIONS[entry.guid]} is not marked as required"
            found = f"{entry.required:#x}"
            yield Finding("R50", name, problem, "2.2.3.2", file_offset + place, found, "0x1")
        place += RegionTableEntry.LAYOUT.size
    if any(raw[place:]):
        problem = "the reserved space behind its entries is not zero"
        yield Finding("R53", name, problem, "2.2.3.1", file_offset + place)


def _header(image: VhdxImage) -> Iterator[Finding]:
    section = image.header_section
    header, number = section.header, section.header_number
    where = HEADER_OFFSETS[number - 1]
    name = f"header {number}"
    if header is NO_HEADER:
        return
    if header.log_version and not section.is_dirty:
        problem = "unknown version of the log, which holds nothing"
        yield Finding("R12", name, problem, "2.2.2", where, str(header.log_version), "0")
    if header.data_write_guid == ZERO_GUID:
        problem = "the DataWriteGuid is zero, so that no child can tell this version from another"
        yield Finding("R17", name, problem, "2.2.2", where)


def _metadata_table(image: VhdxImage) -> Iterator[Finding]:
    start = image.regions.metadata.file_offset
    raw = image.source.pread(start, METADATA_TABLE_SIZE)
    place = MetadataTableHeader.LAYOUT.size
    for _ in range(min(MetadataTableHeader.unpack(raw).entry_count, MAX_TABLE_ENTRIES)):
        entry = MetadataTableEntry.unpack(raw, place)
        flags = entry.flags & (IS_REQUIRED | IS_VIRTUAL_DISK)
        expected = ITEM_FLAGS.get(entry.item_id, flags)
        name = f"metadata item {ITEM_NAMES.get(entry.item_id, entry.item_id)}"
        if not entry.is_user and flags != expected:
            facts = f"{flags:#x}", f"{expected:#x}"
            problem = "has unusual flags"
            yield Finding("R60", name, problem, "2.6.1.2", start + place, *facts)
        if entry.offset and not entry.length:
            problem = "is empty, but has an offset"
            found = f"{entry.offset:#x}"
            yield Finding("R56", name, problem, "2.6.1.2", start + place, found, "0x0")
        place += MetadataTableEntry.LAYOUT.size


def _items(image: VhdxImage) -> Iterator[Finding]:
    metadata = image.metadata
    locator = metadata.parent_locator or b""
    reserved = int.from_bytes(locator[GUID_SIZE : GUID_SIZE + 2], "little")
    if reserved:
        name = f"metadata item {ITEM_NAMES[PARENT_LOCATOR]}"
        problem = "its reserved field is not zero"
        yield Finding("R95", name, problem, "2.6.2.6.1", found=f"{reserved:#x}")
    logical, physical = metadata.logical_sector_size, metadata.physical_sector_size
    if physical < logical:
        problem = "physical sectors are smaller than logical ones"
        found = f"{physical} and {logical} bytes"
        yield Finding("R68", "metadata", problem, "2.6.2.5", found=found)
    if metadata.has_parent and metadata.leave_block_allocated:
        problem = "a differencing disk is marked as fixed, which means nothing"
        yield Finding("R64", "metadata", problem, "2.6.2.1")
    if metadata.virtual_disk_id == ZERO_GUID:
        yield Finding("R69", "metadata", "the Virtual Disk ID is zero", "2.6.2.3")


def _bat(image: VhdxImage) -> Iterator[Finding]:
    """Note stale offsets, and entries that mean nothing."""
    geometry = image.geometry
    stale = 0
    for run in image.bat.iter_runs(0, geometry.payload_block_count):
        if run.state in RESERVED_OFFSET_STATES and run.entry & FILE_OFFSET_MASK:
            stale += run.block_count
    if stale:
        problem = "entries of blocks that have no place hold a file offset, which is ignored"
        yield Finding("R79", "BAT", problem, "2.5.1", found=str(stale))
    for start, end in _unused_entries(image):
        where = _first_not_zero(image.source, start, end)
        if where is not None:
            problem = "something stands where the table has no entry in use, which is ignored"
            yield Finding("R75", "BAT region", problem, "2.5", where)
            return


def _unused_entries(image: VhdxImage) -> Iterator[tuple[int, int]]:
    """Yield the parts of the BAT region behind the last block and behind the table, by MiB."""
    geometry, region = image.geometry, image.regions.bat
    file_end = min(region.end, image.source.size)
    behind_last_block = geometry.payload_bat_index(geometry.payload_block_count - 1) + 1
    behind_table = image.bat.entry_file_offset(geometry.bat_entry_count)
    if geometry.has_parent:
        last_bitmap = image.bat.entry_file_offset(geometry.bat_entry_count - 1)
        yield image.bat.entry_file_offset(behind_last_block), min(last_bitmap, file_end)
    for start in range(behind_table, file_end, MIB):
        yield start, min(start + MIB, file_end)
