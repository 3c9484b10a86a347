"""Files that each break one rule of the format, and everything that a check must find in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from tests.support.builder import (
    BAT_REGION,
    FILE_PARAMETERS,
    GIB,
    IS_REQUIRED,
    IS_USER,
    IS_VIRTUAL_DISK,
    KIB,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    MIB,
    PHYSICAL_SECTOR_SIZE,
    TIB,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    ZERO_GUID,
    BitmapSpec,
    Block,
    BlockState,
    DataDescriptorSpec,
    HeaderSpec,
    ImageSpec,
    LocatorEntrySpec,
    LogEntrySpec,
    MetadataItemSpec,
    RegionEntrySpec,
    RegionTableSpec,
    child_of,
    linkage_text,
    make_dirty,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import BASE_NAME, OTHER_GUID, RELATIVE
from tests.support.logs import PAGE, blank_disk, disk_with, entry, mark
from vhdx2raw.findings import Severity

Fields = Mapping[str, Any]
UNKNOWN = same_bytes_guid(0xAB)
INCOMPLETE = UUID("71CC85F0-1B69-4E28-9558-C3BF83AE75D3")
PARTIAL = BlockState.PARTIALLY_PRESENT
HEADER_1, HEADER_2, TABLE_1, TABLE_2 = (number * 64 * KIB for number in (1, 2, 3, 4))
FIRST_REGION, SECOND_REGION, THIRD_REGION, FOURTH_REGION = (16 + 32 * n for n in range(4))
LOG, METADATA, BAT = MIB, 2 * MIB, 3 * MIB
ITEMS = METADATA + 64 * KIB
"""Where the items begin: File Parameters, Virtual Disk Size, ID, sector sizes, Parent Locator."""
SIZE_ITEM, ID_ITEM, LOGICAL_ITEM, PHYSICAL_ITEM, LOCATOR_ITEM = (
    ITEMS + place for place in (8, 16, 32, 36, 40)
)
NEW_ITEM = METADATA + 32 + 5 * 32
"""Where the table entry of a sixth item stands."""
BITMAP_ENTRY = BAT + 8 * 4096


@dataclass(frozen=True)
class Found:
    """One finding: its severity and rule, a pattern of its text, and where in the file it is."""

    severity: Severity
    rule: str
    text: str
    file_offset: int | None = None


@dataclass(frozen=True)
class Fault:
    """A file that breaks a rule.

    Attributes:
        rule: The rule.
        what: How it is broken.
        files: The file, and after it its parent if it has one, by name.
        found: All that a check finds, in order.
        refused: Whether it is not to be opened though its own contents are certain.
    """

    rule: str
    what: str
    files: Mapping[str, ImageSpec | bytes]
    found: tuple[Found, ...]
    refused: bool = False


def error(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.ERROR, rule, text, at)


def warning(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.WARNING, rule, text, at)


def note(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.NOTE, rule, text, at)


def fault(
    rule: str, what: str, files: Mapping[str, ImageSpec | bytes] | ImageSpec, *found: Found
) -> Fault:
    files = {"disk.vhdx": files} if isinstance(files, ImageSpec) else files
    return Fault(rule, what, files, found)


# -- files ---------------------------------------------------------------------------------------


def disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe 4 MiB with two blocks; log, metadata and BAT lie at 1, 2 and 3 MiB."""
    defaults: dict[str, Any] = {
        "virtual_disk_size": 4 * MIB,
        "block_size": MIB,
        "blocks": {0: Block(), 2: Block()},
    }
    return ImageSpec(**(defaults | fields))


def headers(first: Fields, second: Fields) -> list[HeaderSpec]:
    """Describe the two headers with some other fields."""
    return [replace(HeaderSpec(1), **first), replace(HeaderSpec(2), **second)]


def current(**fields: Any) -> list[HeaderSpec]:  # noqa: ANN401
    """Describe two headers, the current one with other fields."""
    return headers({}, fields)


def tables(first: Fields, second: Fields) -> ImageSpec:
    """Describe the disk with other fields in its region tables."""
    return disk(region_tables=[RegionTableSpec(**first), RegionTableSpec(**second)])


def regions(
    *more: RegionEntrySpec,
    bat: Fields | None = None,
    metadata: Fields | None = None,
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe the disk with other regions in both of its tables."""
    entries = [
        RegionEntrySpec(BAT_REGION, **(bat or {})),
        RegionEntrySpec(METADATA_REGION, **(metadata or {})),
        *more,
    ]
    return disk(region_tables=[RegionTableSpec(entries), RegionTableSpec(entries)], **fields)


def only(guid: UUID) -> ImageSpec:
    """Describe the disk with one region."""
    entries = [RegionEntrySpec(guid)]
    return disk(region_tables=[RegionTableSpec(entries), RegionTableSpec(entries)])


def item(item_id: UUID, **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe the disk with other fields in the table entry of a metadata item."""
    spec = disk()
    table = spec.metadata
    table.items = [replace(i, **fields) if i.item_id == item_id else i for i in table.items]
    return spec


def without(item_id: UUID) -> ImageSpec:
    """Describe the disk without a metadata item."""
    spec = disk()
    spec.metadata.remove(item_id)
    return spec


def more_items(*items: MetadataItemSpec) -> ImageSpec:
    """Describe the disk with more metadata items."""
    spec = disk()
    spec.metadata.items += items
    return spec


def table(**fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe the disk with other fields at the head of its metadata table."""
    spec = disk()
    spec.metadata = replace(spec.metadata, **fields)
    return spec


LINKAGE = linkage_text(disk().data_write_guid)
KEYS = {"parent_linkage": LINKAGE, "relative_path": RELATIVE}


def child(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a child of `disk`, one block of which is partially present."""
    defaults: dict[str, Any] = {
        "blocks": {0: Block(PARTIAL, sector_bits={1, 2}), 1: Block()},
        "bitmaps": {0: BitmapSpec()},
    }
    return child_of(disk(), RELATIVE, **(defaults | fields))


def family(
    child: ImageSpec, parent: ImageSpec | bytes | None = None
) -> Mapping[str, ImageSpec | bytes]:
    """Give a child and its parent by their names."""
    return {"child.vhdx": child, BASE_NAME: disk() if parent is None else parent}


def locator(*more: LocatorEntrySpec, **keys: str) -> bytes:
    """Give a locator with more entries, or with other values of its keys."""
    return parent_locator([*(KEYS | keys).items(), *more])


def bad_entry(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of LogEntrySpec
    """Describe a dirty disk whose only log entry has other fields."""
    return disk_with(entry(0, 1, mark(0, 1), **fields))


def bad_descriptor(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of DataDescriptorSpec
    """Describe a dirty disk whose only update has other fields."""
    return disk_with(entry(0, 1, mark(0, 1, **fields)))


def bad_target(file_offset: int) -> ImageSpec:
    """Describe a dirty disk whose only update goes to this place."""
    return disk_with(entry(0, 1, DataDescriptorSpec(file_offset, bytes(PAGE))))


def dirty_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a disk with an empty entry to replay, which changes nothing."""
    return disk_with(entry(0, 1), **fields)


def with_log_place(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of HeaderSpec
    """Describe a dirty disk whose current header has the log elsewhere."""
    return dirty_disk(headers=current(**fields))


def no_sequence(valid_entries: int = 0) -> Found:
    text = f"no complete sequence of entries: found {valid_entries} valid"
    return error("R31", text, LOG)


def entry_of(block: int) -> int:
    """Give the place of the BAT entry of a block."""
    return BAT + 8 * block


# -- what is found along with many faults --------------------------------------------------------

ODD_SIZE = note("R113", "its size is not a multiple of 1 MiB")
NO_SIZES = error("R61", "nothing can stand in for the sizes")
REPLAYED = note("R120", "was replayed in memory", LOG)
NO_TABLES = error("R43", "none is valid; region table 1 .* beyond the end .* table 2 .* beyond")
UNUSED_LOG = warning("R13", "the unused log has an impossible place", HEADER_2)
NO_PARENT = note("R110", r"was not found.* tried .*base\.vhdx: does not exist")

# -- the header section (2.2) --------------------------------------------------------------------

HEADER_FAULTS = (
    fault(
        "R1",
        "the first bytes were overwritten",
        disk(signature=b"garbage!"),
        error("R1", "file: is something else, not a VHDX"),
    ),
    fault(
        "R3",
        "the file ends behind the identifier",
        disk(file_size=HEADER_1),
        error("R10", "none is valid; header 1 .* beyond the end .* header 2 .* beyond the end"),
        NO_TABLES,
        ODD_SIZE,
    ),
    fault(
        "R3",
        "the file ends behind header 1",
        disk(file_size=HEADER_2),
        warning("R7", "header 2 .* it lies beyond the end of the file", HEADER_2),
        NO_TABLES,
        ODD_SIZE,
    ),
    fault(
        "R3",
        "the file ends inside region table 1",
        disk(file_size=TABLE_1 + 100),
        NO_TABLES,
        ODD_SIZE,
    ),
    fault(
        "R3",
        "the file ends behind region table 1",
        disk(file_size=TABLE_2),
        warning("R42", "region table 2 .* it lies beyond the end of the file", TABLE_2),
        UNUSED_LOG,
        error("R52", "metadata table .* lies beyond the end of the file", METADATA),
        ODD_SIZE,
    ),
    fault(
        "R7",
        "header 1 has a wrong checksum",
        disk(headers=headers({"checksum": 0}, {})),
        warning("R7", "header 1 .* checksum is wrong .stored 0x00000000, computed 0x", HEADER_1),
    ),
    fault(
        "R7",
        "header 2, the newer one, has a wrong checksum",
        disk(headers=headers({}, {"checksum": 0})),
        warning("R7", "header 2 .* the checksum is wrong", HEADER_2),
    ),
    fault(
        "R7",
        "header 1 has another signature",
        disk(headers=headers({"signature": b"HEAD"}, {})),
        warning("R7", "header 1 .* the signature head is missing", HEADER_1),
    ),
    fault(
        "R9",
        "two different headers have the same number",
        disk(headers=headers({}, {"sequence_number": 1, "data_write_guid": UNKNOWN})),
        error("R9", "both are valid and have the same sequence number, but they differ"),
    ),
    fault(
        "R10",
        "both headers have a wrong checksum",
        disk(headers=headers({"checksum": 0}, {"checksum": 0})),
        error("R10", "headers: none is valid; header 1 .* header 2 .* the checksum is wrong"),
    ),
    fault(
        "R11",
        "the version is 2",
        disk(headers=current(version=2)),
        error("R11", "header 2 .* unknown version of the format: found 2, expected 1", HEADER_2),
    ),
    fault(
        "R12",
        "the version of a log with updates is 1",
        with_log_place(log_version=1),
        error("R12", "log .* unknown version of the log: found 1, expected 0", HEADER_2),
    ),
    fault(
        "R12",
        "the version of an empty log is 1",
        disk(headers=current(log_version=1)),
        note("R12", "header 2 .* unknown version of the log, which holds nothing", HEADER_2),
    ),
    *(
        fault(
            "R13",
            f"an empty log {what}",
            disk(headers=current(**fields)),
            warning("R13", f"impossible place, which is ignored: {facts}", HEADER_2),
        )
        for what, fields, facts in (
            ("is not aligned", {"log_offset": LOG + 512}, "found file offset 0x100200"),
            ("has a length that is not", {"log_length": 4096}, ".* length 0x1000"),
            ("lies in the header section", {"log_offset": 0}, "found file offset 0x0,"),
            ("lies behind the end", {"log_offset": 100 * MIB}, "found file offset 0x6400000"),
        )
    ),
    *(
        fault(
            "R15",
            f"the log with updates {what}",
            with_log_place(**fields),
            error("R15", f"log .* {text}: found file offset 0x", HEADER_2),
        )
        for what, fields, text in (
            ("is not aligned", {"log_offset": LOG + PAGE}, "not a multiple of 1 MiB"),
            ("has a length that is not", {"log_length": PAGE}, "not a multiple of 1 MiB"),
            ("lies in the header section", {"log_offset": 0}, "inside the header section"),
            ("lies behind the end", {"log_offset": 64 * MIB}, "beyond the end of the file"),
            ("has no length", {"log_length": 0}, "holds updates, but its length is zero"),
        )
    ),
    fault(
        "R15",
        "the log with updates is longer than 1 GiB",
        dirty_disk(headers=current(log_offset=5 * MIB, log_length=GIB + MIB), file_size=2 * GIB),
        error("R15", "log .* is longer than 1 GiB: .* length 0x40100000", HEADER_2),
    ),
    *(
        fault("R16", f"something stands {where}", spec, note("R16", "is not zero", place))
        for where, place, spec in (
            ("behind the identifier", 600, disk(patches={600: b"x"})),
            ("in header 1", HEADER_1 + 80, disk(headers=headers({"reserved": b"x"}, {}))),
            ("behind header 2", HEADER_2 + 5000, disk(patches={HEADER_2 + 5000: b"x"})),
            ("at 320 KiB", 320 * KIB, disk(patches={320 * KIB: b"x"})),
            ("at the end of 1 MiB", MIB - 1, disk(patches={MIB - 1: b"x"})),
        )
    ),
    fault(
        "R17",
        "the DataWriteGuid is zero",
        disk(data_write_guid=ZERO_GUID),
        note("R17", "header 2 .* the DataWriteGuid is zero", HEADER_2),
    ),
)

# -- the log (2.3) -------------------------------------------------------------------------------

LOG_FAULTS = (
    *(
        fault(rule, what, spec, no_sequence())
        for rule, what, spec in (
            ("R18", "an entry begins inside of a sector", disk_with(LogEntrySpec(512, 1, tail=0))),
            ("R19", "an entry has another signature", bad_entry(signature=b"LOGE")),
            ("R19", "an entry has no length", bad_entry(entry_length=0)),
            ("R19", "an entry ends inside of a sector", bad_entry(entry_length=PAGE + 64)),
            ("R19", "an entry is longer than the log", bad_entry(entry_length=MIB + PAGE)),
            ("R19", "an entry has another GUID", bad_entry(log_guid=UNKNOWN)),
            ("R19", "an entry has the number 0", disk_with(entry(0, 0))),
            ("R19", "a tail lies outside of the log", bad_entry(tail=256)),
            ("R20", "an entry has a wrong checksum", bad_entry(checksum=0)),
            ("R21", "an entry has too many descriptors", bad_entry(descriptor_count=2)),
            ("R22", "a descriptor has no signature", bad_descriptor(signature=b"DESC")),
            ("R22", "a descriptor has another number", bad_descriptor(sequence_number=7)),
            ("R22", "a target is not aligned", bad_target(4 * MIB + 512)),
            ("R23", "a data sector has no signature", bad_descriptor(data_signature=b"DATA")),
            ("R23", "a data sector begins with another number", bad_descriptor(sequence_high=7)),
            ("R23", "a data sector ends with another number", bad_descriptor(sequence_low=7)),
            ("R24", "the target is a header", bad_target(HEADER_1)),
            ("R24", "the target is the log", bad_target(LOG + 10 * PAGE)),
            ("R31", "a log with updates has no entry", blank_disk()),
        )
    ),
    fault(
        "R27",
        "a gap in the numbers cuts the sequence",
        disk_with(entry(0, 1, tail=9), entry(1, 3, tail=0)),
        no_sequence(2),
    ),
    fault(
        "R28",
        "the tail is in the middle of nowhere",
        disk_with(entry(0, 1), entry(1, 2, tail=100)),
        no_sequence(2),
    ),
    fault(
        "R29",
        "two sequences end with the same number",
        disk_with(entry(0, 5), entry(9, 5)),
        error("R29", "two sequences of entries that end .* found sequence number 5", LOG),
    ),
    fault(
        "R36",
        "the file is shorter than when its log was written",
        disk_with(entry(0, 1, flushed_file_offset=64 * MIB)),
        error("R36", "is shorter than it was .* expected at least 67108864"),
        REPLAYED,
    ),
    fault(
        "R40",
        "an entry claims more updates than any real one",
        disk_with(
            entry(0, 1, descriptor_count=(1 << 18) + 1, entry_length=9 * MIB),
            log_length=16 * MIB,
            metadata_offset=17 * MIB,
            bat_offset=18 * MIB,
        ),
        error("R40", "would take too long to make sense of: found more than 262144 updates", LOG),
    ),
    fault(
        "R120",
        "the log holds updates",
        make_dirty(disk(), disk(blocks={0: Block(), 2: Block(), 3: Block()})),
        REPLAYED,
    ),
)

# -- the region tables (2.2.3) -------------------------------------------------------------------

REGION_FAULTS = (
    *(
        fault("R42", f"table {1 + is_second} {what}", spec, warning("R42", text, place))
        for is_second, place in ((False, TABLE_1), (True, TABLE_2))
        for what, fields, text in (
            ("has a wrong checksum", {"checksum": 0}, "the checksum is wrong"),
            ("has another signature", {"signature": b"REGI"}, "the signature regi is missing"),
            ("has too many entries", {"entry_count": 2048}, "2048 entries, at most 2047 fit"),
        )
        for spec in [tables({}, fields) if is_second else tables(fields, {})]
    ),
    fault(
        "R43",
        "both tables have a wrong checksum",
        tables({"checksum": 0}, {"checksum": 0}),
        error("R43", "region tables: none is valid; .* the checksum is wrong .* checksum is wrong"),
    ),
    fault(
        "R43",
        "both tables have no signature",
        tables({"signature": b"REGI"}, {"signature": b"REGI"}),
        error("R43", "region tables: none is valid; .* signature regi is missing"),
    ),
    fault(
        "R44",
        "the tables differ",
        tables({}, {"entries": [RegionEntrySpec(METADATA_REGION), RegionEntrySpec(BAT_REGION)]}),
        warning("R44", "both are valid but they differ; the first one is used"),
    ),
    fault(
        "R46",
        "there are two BAT regions",
        regions(RegionEntrySpec(BAT_REGION, 8 * MIB, MIB)),
        error("R46", "2dc27766-.* is listed twice", TABLE_1 + THIRD_REGION),
    ),
    fault(
        "R46",
        "an unknown region is listed twice",
        regions(*[RegionEntrySpec(UNKNOWN, n * MIB, MIB, 0) for n in (6, 7)], file_size=8 * MIB),
        error("R46", f"region {UNKNOWN} is listed twice", TABLE_1 + FOURTH_REGION),
    ),
    fault(
        "R47",
        "the BAT region is not aligned",
        regions(bat={"length": MIB - 512}),
        error("R47", "not a multiple of 1 MiB: .* length 0xffe00", TABLE_1 + FIRST_REGION),
    ),
    fault(
        "R47",
        "the BAT region has no length",
        regions(bat={"length": 0}),
        error("R47", "entry of the BAT region .* its length is zero", TABLE_1 + FIRST_REGION),
        error("R74", "is too short for the disk: found 0 bytes, expected at least 32", BAT),
    ),
    fault(
        "R47",
        "an unknown region is not aligned",
        regions(RegionEntrySpec(UNKNOWN, 6 * MIB + 1, MIB, 0)),
        warning("R47", "not a multiple of 1 MiB; ignored", TABLE_1 + THIRD_REGION),
    ),
    fault(
        "R48",
        "an unknown region is required",
        regions(RegionEntrySpec(UNKNOWN, 6 * MIB, MIB, 1), file_size=7 * MIB),
        error("R48", "the file requires this region", TABLE_1 + THIRD_REGION),
    ),
    fault(
        "R49",
        "there is no BAT region",
        only(METADATA_REGION),
        error("R49", "region table 1: no BAT region is listed"),
        error("R74", "is too short for the disk: found 0 bytes", 0),
    ),
    fault(
        "R49",
        "there is no metadata region",
        only(BAT_REGION),
        error("R49", "region table 1: no metadata region is listed"),
    ),
    fault(
        "R50",
        "the known regions are not marked as required",
        regions(bat={"required": 0}, metadata={"required": 0xDEADBEEF}),
        *(
            note("R50", f"{name} is not marked as required: found {found}", at + place)
            for at in (TABLE_1, TABLE_2)
            for name, found, place in (
                ("BAT region", "0x0", FIRST_REGION),
                ("metadata region", "0xdeadbeef", SECOND_REGION),
            )
        ),
    ),
    fault(
        "R50",
        "an unknown region has reserved bits",
        regions(RegionEntrySpec(UNKNOWN, 6 * MIB, MIB, 2), file_size=7 * MIB),
        warning("R50", "reserved bits of the Required field", TABLE_1 + THIRD_REGION),
    ),
    fault(
        "R51",
        "the metadata region overlaps the BAT",
        disk(metadata_length=2 * MIB),
        error("R51", "metadata region .* overlaps the BAT region at file offset 0x3", METADATA),
    ),
    fault(
        "R51",
        "an unknown region lies where the BAT lies",
        regions(RegionEntrySpec(UNKNOWN, BAT, MIB, 0)),
        error("R51", f"BAT region .* overlaps the region {UNKNOWN}", BAT),
    ),
    fault(
        "R51",
        "the log lies where the BAT lies",
        disk(headers=current(log_offset=BAT)),
        error("R51", "BAT region .* overlaps the log .* found it ends at 0x400000", BAT),
    ),
    fault(
        "R52",
        "the metadata region lies behind the end",
        regions(metadata={"file_offset": 64 * MIB}),
        error("R52", "metadata table .* lies beyond the end of the file", 64 * MIB),
    ),
    fault(
        "R52",
        "the BAT lies behind the end",
        regions(bat={"file_offset": 64 * MIB}),
        error("R52", "BAT region .* the table goes on past the end of the file", 64 * MIB),
    ),
    fault(
        "R52",
        "a metadata item lies behind the end",
        disk(metadata_offset=4 * MIB, blocks={}, file_size=4 * MIB + 64 * KIB + 8),
        error("R52", "Logical Sector Size .* lies beyond the end", 4 * MIB + 64 * KIB + 32),
        error("R52", "Virtual Disk Size .* lies beyond the end", 4 * MIB + 64 * KIB + 8),
        NO_SIZES,
        ODD_SIZE,
    ),
    fault(
        "R52",
        "the BAT region ends behind the end, but not its entries",
        disk(bat_offset=8 * MIB, blocks={0: Block(file_offset=4 * MIB)}, file_size=8 * MIB + PAGE),
        warning("R52", "BAT region .* ends past the end of the file", 8 * MIB),
        ODD_SIZE,
    ),
    fault(
        "R53",
        "the reserved field of the tables is not zero",
        tables({"reserved": 1}, {"reserved": 1}),
        *(note("R53", "its reserved field is not zero", place) for place in (TABLE_1, TABLE_2)),
    ),
    fault(
        "R53",
        "something stands behind the entries of both tables",
        disk(
            region_tables=2
            * [
                RegionTableSpec(
                    [*RegionTableSpec().entries, RegionEntrySpec(UNKNOWN)], entry_count=2
                )
            ]
        ),
        *(
            note("R53", "space after its entries is not zero", place + THIRD_REGION)
            for place in (TABLE_1, TABLE_2)
        ),
    ),
)

# -- the metadata (2.6) --------------------------------------------------------------------------

ITEM_TABLE_FAULTS = (
    fault(
        "R54",
        "the table has another signature",
        table(signature=b"METADATA"),
        error("R54", "metadata table .* the signature metadata is missing", METADATA),
    ),
    fault(
        "R54",
        "the table claims too many entries",
        table(entry_count=2048),
        error("R54", "it claims 2048 entries, at most 2047 fit", METADATA),
    ),
    fault(
        "R54",
        "a reserved field of the table is not zero",
        table(reserved=1),
        warning("R54", "reserved fields are not zero", METADATA),
    ),
    fault(
        "R54",
        "the other reserved field of the table is not zero",
        table(reserved2=bytes(19) + b"x"),
        warning("R54", "reserved fields are not zero", METADATA),
    ),
    fault(
        "R55",
        "a needed item lies behind the region",
        item(VIRTUAL_DISK_SIZE, offset=MIB),
        error("R55", "its end 0x100008 lies past the metadata region", BAT),
        NO_SIZES,
    ),
    fault(
        "R55",
        "a needed item lies in the table",
        item(VIRTUAL_DISK_SIZE, offset=4096),
        error("R55", "its offset 0x1000 lies inside the metadata table", METADATA + 4096),
        NO_SIZES,
    ),
    fault(
        "R55",
        "a needed item is too long",
        item(VIRTUAL_DISK_SIZE, length=MIB + 1),
        warning("R57", "two items share bytes", ID_ITEM),
        error("R55", "its length of 1048577 bytes is above 1 MiB", SIZE_ITEM),
        NO_SIZES,
    ),
    fault(
        "R55",
        "an unknown item lies behind the region",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, MIB - 4, 8)),
        warning("R55", "its end 0x100004 lies past the metadata region; ignored", NEW_ITEM),
    ),
    fault(
        "R56",
        "a needed item is empty",
        item(LOGICAL_SECTOR_SIZE, length=0),
        error("R62", "Logical Sector Size .* is 0 bytes long instead of 4", METADATA),
    ),
    fault(
        "R56",
        "an empty item has an offset",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, 0x18000, 0)),
        note("R56", "is empty, but has an offset: found 0x18000, expected 0x0", NEW_ITEM),
    ),
    fault(
        "R57",
        "a known item is listed twice",
        more_items(MetadataItemSpec(VIRTUAL_DISK_SIZE)),
        error("R57", "metadata item Virtual Disk Size .* is listed twice", NEW_ITEM),
    ),
    fault(
        "R57",
        "an unknown item is listed twice",
        more_items(MetadataItemSpec(UNKNOWN, b"x", 0), MetadataItemSpec(UNKNOWN, b"y", 0)),
        warning("R57", f"metadata item {UNKNOWN} .* is listed twice", NEW_ITEM + 32),
    ),
    fault(
        "R57",
        "two items share bytes",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, 0x10008, 8)),
        warning("R57", "two items share bytes", SIZE_ITEM),
    ),
    fault(
        "R58",
        "an unknown item is required",
        more_items(MetadataItemSpec(UNKNOWN, b"x", IS_REQUIRED)),
        error("R58", f"{UNKNOWN} .* the file requires this item", NEW_ITEM),
    ),
    fault(
        "R58",
        "a user item that is called like a known one is required",
        more_items(MetadataItemSpec(VIRTUAL_DISK_SIZE, b"x", IS_REQUIRED | IS_USER)),
        error("R58", "2fa54224-.* the file requires this item", NEW_ITEM),
    ),
    fault(
        "R58",
        "the file was never finished",
        more_items(MetadataItemSpec(INCOMPLETE, b"x", 0)),
        error("R58", "marks a file whose creation was never finished", NEW_ITEM),
    ),
    fault(
        "R60",
        "an item has reserved flags",
        item(VIRTUAL_DISK_ID, flags=IS_REQUIRED | IS_VIRTUAL_DISK | 8),
        warning("R60", "Virtual Disk ID .* reserved bits", METADATA + 32 + 2 * 32),
    ),
    fault(
        "R60",
        "the reserved field of an item is not zero",
        item(VIRTUAL_DISK_ID, reserved=1),
        warning("R60", "Virtual Disk ID .* reserved bits", METADATA + 32 + 2 * 32),
    ),
    fault(
        "R60",
        "a known item is not marked as required",
        item(PHYSICAL_SECTOR_SIZE, flags=IS_VIRTUAL_DISK),
        note(
            "R60",
            "Physical Sector Size .* has unusual flags: found 0x2, expected 0x6",
            METADATA + 32 + 4 * 32,
        ),
    ),
)

ITEM_FAULTS = (
    fault(
        "R61",
        "there are no File Parameters",
        without(FILE_PARAMETERS),
        error("R61", "File Parameters: is missing"),
        NO_SIZES,
    ),
    fault(
        "R61",
        "there is no Virtual Disk Size",
        without(VIRTUAL_DISK_SIZE),
        error("R61", "Virtual Disk Size: is missing"),
        NO_SIZES,
    ),
    fault(
        "R61",
        "there is no Logical Sector Size",
        without(LOGICAL_SECTOR_SIZE),
        error("R61", "Logical Sector Size: is missing"),
    ),
    fault(
        "R61",
        "there is no Virtual Disk ID",
        without(VIRTUAL_DISK_ID),
        warning("R61", "Virtual Disk ID: is missing"),
    ),
    fault(
        "R61",
        "there is no Physical Sector Size",
        without(PHYSICAL_SECTOR_SIZE),
        warning("R61", "Physical Sector Size: is missing"),
    ),
    fault(
        "R62",
        "the File Parameters are too short",
        item(FILE_PARAMETERS, length=4),
        error("R62", "File Parameters .* is 4 bytes long instead of 8", ITEMS),
        NO_SIZES,
    ),
    fault(
        "R62",
        "the Virtual Disk Size is too long",
        item(VIRTUAL_DISK_SIZE, data=(4 * MIB).to_bytes(16, "little")),
        warning("R62", "Virtual Disk Size .* is 16 bytes long instead of 8", SIZE_ITEM),
    ),
    fault(
        "R62",
        "the Virtual Disk ID is too short",
        item(VIRTUAL_DISK_ID, length=8),
        warning("R62", "Virtual Disk ID .* is 8 bytes long instead of 16", ID_ITEM),
    ),
    *(
        fault(
            "R63",
            f"the block size is {size}",
            item(FILE_PARAMETERS, data=size.to_bytes(8, "little")),
            error("R63", f"block size is not a power of two .* found {size} bytes", ITEMS),
            NO_SIZES,
        )
        for size in (0, MIB // 2, 3 * MIB, 512 * MIB)
    ),
    fault(
        "R64",
        "a child is marked as fixed",
        family(child(leave_block_allocated=True)),
        note("R64", "a differencing disk is marked as fixed, which means nothing"),
    ),
    fault(
        "R65",
        "reserved flags are set",
        disk(file_parameters_flags=4),
        warning("R65", "File Parameters .* reserved flags are set: found 0x4", ITEMS),
    ),
    *(
        fault(
            "R66",
            f"the disk has {size} bytes",
            item(VIRTUAL_DISK_SIZE, data=size.to_bytes(8, "little")),
            error("R66", f"{problem}: found {size} bytes", SIZE_ITEM),
            NO_SIZES,
        )
        for size, problem in (
            (0, "the disk has no sector at all"),
            (64 * TIB + 512, "the disk is larger than 64 TiB"),
        )
    ),
    fault(
        "R66",
        "the size of the disk is no multiple of its sectors",
        disk(virtual_disk_size=3 * MIB + 1),
        error("R66", "not a multiple of the logical sector size of 512 bytes", SIZE_ITEM),
    ),
    *(
        fault(
            "R67",
            f"logical sectors have {size} bytes",
            item(LOGICAL_SECTOR_SIZE, data=size.to_bytes(4, "little")),
            error("R67", f"neither 512 nor 4096 bytes: found {size} ", LOGICAL_ITEM),
        )
        for size in (0, 1024)
    ),
    fault(
        "R68",
        "physical sectors have 1000 bytes",
        disk(physical_sector_size=1000),
        warning("R68", "neither 512 nor 4096 bytes: found 1000 ", PHYSICAL_ITEM),
    ),
    fault(
        "R68",
        "physical sectors are smaller than logical ones",
        disk(logical_sector_size=4096, physical_sector_size=512),
        note("R68", "smaller than logical ones: found 512 and 4096 bytes"),
    ),
    fault(
        "R69",
        "the Virtual Disk ID is zero",
        disk(virtual_disk_id=ZERO_GUID),
        note("R69", "the Virtual Disk ID is zero"),
    ),
)

# -- the BAT (2.5) -------------------------------------------------------------------------------

BAT_FAULTS = (
    fault(
        "R74",
        "the BAT region is too short by one entry",
        disk(virtual_disk_size=131042 * MIB, bat_length=MIB),
        error("R74", "is too short for the disk: found 1048576 bytes, .* 1048584", BAT),
    ),
    fault(
        "R74",
        "the BAT region lacks an entry that is not needed",
        family(child(virtual_disk_size=127 * GIB, bat_length=MIB)),
        warning("R74", "lacks the last entry, of a sector bitmap", BAT),
    ),
    fault(
        "R75",
        "something stands behind the last entry",
        disk(bat_overrides={4: 7}),
        note("R75", "where the table has no entry in use", BAT + 4 * 8),
    ),
    fault(
        "R75",
        "something stands far behind the last entry",
        disk(bat_length=3 * MIB, patches={BAT + 3 * MIB - 1: b"x"}),
        note("R75", "where the table has no entry in use", BAT + 3 * MIB - 1),
    ),
    fault(
        "R75",
        "an entry of a child behind its last block is not zero",
        family(child(bat_overrides={4: 6})),
        note("R75", "where the table has no entry in use", BAT + 4 * 8),
    ),
    *(
        fault(
            "R77",
            f"a block in state {state} has reserved bits",
            disk(blocks={0: Block(), 2: Block(state, reserved_bits=1)}),
            error("R77", "payload block 2 .* reserved bits are set: found 0x0", entry_of(2)),
        )
        for state in (BlockState.FULLY_PRESENT, BlockState.ZERO, BlockState.NOT_PRESENT)
    ),
    fault(
        "R77",
        "a sector bitmap entry has reserved bits",
        family(child(bitmaps={0: BitmapSpec(reserved_bits=1)})),
        error("R77", "sector bitmap block of chunk 0 .* reserved bits are set", BITMAP_ENTRY),
    ),
    fault(
        "R78",
        "a block that is present has no place",
        disk(bat_overrides={0: 6}),
        error("R78", "payload block 0 .* is present but has no place", entry_of(0)),
    ),
    fault(
        "R78",
        "a sector bitmap that is present has no place",
        family(child(bitmaps={0: BitmapSpec(file_offset=0)})),
        error("R78", "bitmap block of chunk 0 .* is present but has no place", BITMAP_ENTRY),
    ),
    fault(
        "R78",
        "a block lies past 256 TiB",
        disk_with(entry(0, 1, last_file_offset=512 * TIB), bat_overrides={1: 257 * TIB | 6}),
        REPLAYED,
        error("R78", "payload block 1 .* the block lies past 256 TiB", entry_of(1)),
    ),
    fault(
        "R79",
        "a block of zeros has a place",
        disk(blocks={0: Block(), 2: Block(BlockState.ZERO, file_offset=MIB)}),
        note("R79", "blocks that have no place hold a file offset, .* found 1"),
    ),
    fault(
        "R80",
        "a block is in state 4",
        disk(blocks={0: Block(), 2: Block(BlockState.RESERVED_4)}),
        error("R80", "payload block 2 .* the state 4 is reserved", entry_of(2)),
    ),
    fault(
        "R80",
        "a block is in state 5",
        disk(blocks={0: Block(), 2: Block(BlockState.UNMAPPED_V095)}),
        warning("R80", "blocks in state 5, .* read as zeros: found 1"),
    ),
    fault(
        "R81",
        "a block without a parent is partially present",
        disk(blocks={0: Block(), 2: Block(PARTIAL)}),
        warning("R81", "partially present, without a parent, read as fully present: found 1"),
    ),
    fault(
        "R82",
        "a sector bitmap entry of a disk without a parent is not zero",
        disk(virtual_disk_size=5 * GIB, bat_overrides={4096: 6}),
        warning("R82", "entries of a disk without a parent are not zero; .* found 1"),
    ),
    fault(
        "R83",
        "a partially present block has no bitmap",
        family(child(bitmaps={0: None})),
        error("R83", "bitmap block of chunk 0 .* it is not present, but", BITMAP_ENTRY),
    ),
    fault(
        "R83",
        "the bitmap that is needed is in a reserved state",
        family(child(bitmaps={0: BitmapSpec(state=3)})),
        error("R83", "it is not present, but .* found 0x0000000000400003", BITMAP_ENTRY),
    ),
    fault(
        "R83",
        "a bitmap that is not needed is in a reserved state",
        family(child(blocks={1: Block()}, bitmaps={0: BitmapSpec(state=3)})),
        warning("R83", "a reserved state or reserved bits, but it is not needed", BITMAP_ENTRY),
    ),
    fault(
        "R84",
        "two blocks lie at the same place",
        disk(blocks={index: Block(file_offset=4 * MIB) for index in (0, 2)}),
        error("R84", "payload block 2 .* where payload block 0 lies, at 0x400000", entry_of(2)),
    ),
    fault(
        "R84",
        "two blocks overlap",
        disk(
            block_size=2 * MIB,
            blocks={0: Block(file_offset=4 * MIB), 1: Block(file_offset=5 * MIB)},
        ),
        error("R84", "payload block 1 .* where payload block 0 lies, at 0x500000", entry_of(1)),
    ),
    *(
        fault(
            "R84",
            f"a block lies where the {name} lies",
            disk(bat_overrides={1: place | 6}),
            error("R84", f"payload block 1 .* where the {name} lies, at {place:#x}", entry_of(1)),
        )
        for name, place in (("log", LOG), ("metadata region", METADATA), ("BAT region", BAT))
    ),
    fault(
        "R84",
        "a block lies where an optional region lies",
        regions(RegionEntrySpec(UNKNOWN, 5 * MIB, MIB, 0)),
        error("R84", f"payload block 2 .* where the region {UNKNOWN} lies", entry_of(2)),
    ),
    fault(
        "R84",
        "a sector bitmap lies where a block lies",
        family(
            child(
                blocks={0: Block(PARTIAL, sector_bits={1}, file_offset=5 * MIB)},
                bitmaps={0: BitmapSpec(file_offset=5 * MIB)},
            )
        ),
        error("R84", "chunk 0 .* where payload block 0 lies, at 0x500000", BITMAP_ENTRY),
    ),
    fault(
        "R111",
        "a block lies behind the end",
        disk(file_size=5 * MIB),
        error("R111", "payload block 2 .* beyond the end .* at least 6291456", entry_of(2)),
    ),
    fault(
        "R111",
        "the last sector of a block lies behind the end",
        disk(file_size=6 * MIB - 512),
        error("R111", "payload block 2 .* found a file of 6290944 bytes", entry_of(2)),
        ODD_SIZE,
    ),
    fault(
        "R113", "the file is longer than its structures", disk(file_size=6 * MIB + 512), ODD_SIZE
    ),
    fault(
        "R114",
        "a sector bitmap lies behind the end",
        family(child(bitmaps={0: BitmapSpec(file_offset=64 * MIB)}, file_size=8 * MIB)),
        error("R114", "of chunk 0 .* beyond the end of the file, at 0x4000000", BITMAP_ENTRY),
    ),
)

# -- the parent (2.6.2.6) ------------------------------------------------------------------------

WRONG_LOCATORS = (
    (
        "R95",
        "is cut off in its head",
        parent_locator(KEYS)[:19],
        "is shorter than the 20 bytes of its head",
    ),
    ("R95", "has no entry", parent_locator(KEYS, count=0), "not have 1 to 256 entries: found 0"),
    ("R95", "has 257 entries", parent_locator(KEYS, count=257), "not have 1 to 256 entries"),
    ("R95", "is cut off in its table", parent_locator(KEYS)[:40], "is too short for its entries"),
    (
        "R95",
        "has a value outside of it",
        locator(LocatorEntrySpec("x", "y", value_offset=4096)),
        "has an impossible place: found offset 4096, length 2",
    ),
    (
        "R95",
        "has a key of no length",
        locator(LocatorEntrySpec("x", "y", key_length=0)),
        "has an impossible place: found offset 208, length 0",
    ),
    (
        "R95",
        "has a value of an odd length",
        locator(LocatorEntrySpec("x", "yy", value_length=3)),
        "has an impossible place: found offset 210, length 3",
    ),
    (
        "R96",
        "is of another type",
        parent_locator(KEYS, locator_type=UNKNOWN),
        f"is of an unknown type: found {UNKNOWN}",
    ),
    (
        "R97",
        "has a key that is no text",
        locator(LocatorEntrySpec(b"\x00\xd8", "y")),
        "a key is no valid text: found 00d8",
    ),
    (
        "R97",
        "has two values of a key",
        locator(LocatorEntrySpec("relative_path", "x")),
        "the key relative_path has two different values",
    ),
    (
        "R98",
        "names no version",
        parent_locator({"relative_path": RELATIVE}),
        "the key parent_linkage is missing",
    ),
    ("R99", "has no GUID", locator(parent_linkage="{base}"), "is no GUID: found '{base}'"),
)

PARENT_FAULTS = (
    fault(
        "R94",
        "a child has no locator",
        disk(has_parent=True),
        error("R94", "Parent Locator: a differencing disk needs one: found none"),
    ),
    fault(
        "R94",
        "a disk without a parent has a locator",
        disk(has_parent=False, locator=locator()),
        warning("R94", "is not differencing; its parent locator is ignored", LOCATOR_ITEM),
    ),
    *(
        fault(rule, f"the locator {what}", family(child(locator=raw)), error(rule, text))
        for rule, what, raw, text in WRONG_LOCATORS
    ),
    fault(
        "R95",
        "the reserved field of the locator is not zero",
        family(child(locator=parent_locator(KEYS, reserved=1))),
        note("R95", "its reserved field is not zero: found 0x1"),
    ),
    fault(
        "R97",
        "a path ends with a NUL",
        family(child(locator=locator(relative_path=f"{RELATIVE}\0"))),
        warning("R97", "a value ends with NUL characters, which are ignored"),
    ),
    replace(
        fault(
            "R98",
            "the locator names no path",
            family(child(locator=parent_locator({"parent_linkage": LINKAGE}))),
            warning("R98", "names no path, so that the parent has to be named by the user"),
            note("R110", "was not found, .* tried nothing"),
        ),
        refused=True,
    ),
    fault(
        "R99",
        "a GUID has no braces",
        family(child(locator=locator(parent_linkage=LINKAGE[1:-1]))),
        warning("R99", "parent_linkage is a GUID without braces"),
    ),
    fault(
        "R100",
        "the parent is another version",
        family(child(), disk(data_write_guid=OTHER_GUID)),
        error(
            "R100", f"expected .* with the DataWriteGuid 2222.* has the DataWriteGuid {OTHER_GUID}"
        ),
    ),
    fault(
        "R101",
        "neither child nor parent names a version",
        family(
            child(locator=locator(parent_linkage=linkage_text(ZERO_GUID))),
            disk(data_write_guid=ZERO_GUID),
        ),
        warning("R101", "parent: has no identity, so that its version cannot be checked"),
    ),
    fault(
        "R101",
        "the child allows two versions",
        family(child(locator=locator(parent_linkage2=linkage_text(OTHER_GUID)))),
        note("R101", "allows two versions of the parent: a merge was under way"),
    ),
    fault(
        "R104",
        "the parent cannot be read",
        family(child(), without(FILE_PARAMETERS)),
        error("R104", r"cannot be read: .*base\.vhdx: metadata: nothing can stand in"),
    ),
    fault(
        "R104",
        "the parent was cut off",
        family(child(), disk(file_size=4 * MIB)),
        error("R104", r"is damaged: .*base\.vhdx: BAT entry of payload block 0 .* found errors: 2"),
    ),
    fault(
        "R104",
        "the parent holds updates in its log",
        family(child(), make_dirty(disk(blocks={}), disk())),
        note("R104", "parent: holds updates in its log, though a parent should not change"),
    ),
    fault(
        "R105",
        "the parent has other sectors",
        family(child(), disk(logical_sector_size=4096)),
        error("R105", r"base\.vhdx: has sectors of 4096 bytes, the child of 512"),
    ),
    fault(
        "R108",
        "the child is its own parent",
        {BASE_NAME: child(data_write_guid=disk().data_write_guid)},
        error("R108", r"base\.vhdx: is a file of the chain already"),
    ),
    replace(
        fault(
            "R109",
            "the parent is no VHDX",
            family(child(), b"conectix" + bytes(504)),
            note("R110", r"base\.vhdx: file: is a legacy VHD image, not a VHDX"),
        ),
        refused=True,
    ),
    replace(fault("R110", "there is no parent", {"child.vhdx": child()}, NO_PARENT), refused=True),
)

FAULTS = (
    *HEADER_FAULTS,
    *LOG_FAULTS,
    *REGION_FAULTS,
    *ITEM_TABLE_FAULTS,
    *ITEM_FAULTS,
    *BAT_FAULTS,
    *PARENT_FAULTS,
)

NOT_CHECKABLE = {
    "R2": "the Creator may be anything",
    "R4": "how a reader computes",
    "R5": "a reader never writes",
    "R6": "in which order a reader works",
    "R8": "which of two valid headers is current; any two numbers are allowed (R9)",
    "R14": "a reader has to replay",
    "R25": "empty entries are allowed",
    "R26": "how descriptors lie in an entry",
    "R30": "when a reader ends its scan",
    "R32": "where a reader begins to replay",
    "R33": "in which order a reader replays",
    "R34": "what a data descriptor does",
    "R35": "what a zero descriptor does",
    "R37": "a log may make the file longer",
    "R38": "how a reader keeps the updates",
    "R39": "what a reader need not read again",
    "R41": "stale entries are normal",
    "R45": "optional regions are allowed",
    "R59": "optional and user items are allowed",
    "R70": "items lie anywhere and in any order",
    "R71": "arithmetic of chunks",
    "R72": "arithmetic of the BAT; the region is held against it by R74",
    "R73": "arithmetic of the BAT",
    "R76": "the BAT of a fixed disk is no other",
    "R85": "what NOT_PRESENT reads as",
    "R86": "what UNDEFINED and UNMAPPED read as",
    "R87": "what ZERO reads as",
    "R88": "what FULLY_PRESENT reads as; the bitmap may say anything",
    "R89": "what PARTIALLY_PRESENT reads as",
    "R90": "arithmetic of the sector bitmap",
    "R91": "what of the last block belongs to the disk",
    "R92": "sectors of 4096 bytes are allowed",
    "R93": "how a reader splits a read",
    "R102": "in which order a reader tries the paths",
    "R103": "how a reader turns Windows paths into its own",
    "R106": "block sizes may differ",
    "R107": "virtual sizes may differ",
    "R112": "the last block may be short",
    "R115": "what a reader believes before it allocates memory",
    "R116": "the memory of a reader",
    "R117": "the size of the output",
    "R118": "the holes of the output",
    "R119": "a reader looks twice; a check looks once",
    "R121": "about the disk and not the file",
}
"""Why a rule has no fault: it binds the reader and not the file, or it allows something."""
