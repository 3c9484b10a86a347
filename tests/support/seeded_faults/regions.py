"""Faults of the region tables and of the places of regions (2.2.3)."""

from __future__ import annotations

from tests.support.builder import (
    BAT_REGION,
    KIB,
    METADATA_REGION,
    MIB,
    Block,
    RegionEntrySpec,
    RegionTableSpec,
)
from tests.support.logs import PAGE
from tests.support.seeded_faults.disks import (
    BAT,
    METADATA,
    TABLE_1,
    TABLE_2,
    UNKNOWN,
    current,
    disk,
    only,
    regions,
    tables,
)
from tests.support.seeded_faults.fault import NO_SIZES, UNEVEN_SIZE, error, fault, note, warning

FIRST_REGION, SECOND_REGION, THIRD_REGION, FOURTH_REGION = (16 + 32 * n for n in range(4))


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
        note("R47", "not a multiple of 1 MiB; ignored", TABLE_1 + THIRD_REGION),
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
        note(
            "R50",
            r"BAT region is not marked as required \(entries of both tables like this: 4\): found",
            TABLE_1 + FIRST_REGION,
        ),
    ),
    fault(
        "R50",
        "an unknown region has reserved bits",
        regions(RegionEntrySpec(UNKNOWN, 6 * MIB, MIB, 2), file_size=7 * MIB),
        note("R50", "reserved bits of the Required field", TABLE_1 + THIRD_REGION),
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
        "the metadata region lies past the end",
        regions(metadata={"file_offset": 64 * MIB}),
        error("R52", "metadata table .* lies beyond the end of the file", 64 * MIB),
    ),
    fault(
        "R52",
        "the BAT lies past the end",
        regions(bat={"file_offset": 64 * MIB}),
        error("R52", "BAT region .* the table goes on past the end of the file", 64 * MIB),
    ),
    fault(
        "R52",
        "a metadata item lies past the end",
        disk(metadata_offset=4 * MIB, blocks={}, file_size=4 * MIB + 64 * KIB + 8),
        error("R52", "Logical Sector Size .* lies beyond the end", 4 * MIB + 64 * KIB + 32),
        error("R52", "Virtual Disk Size .* lies beyond the end", 4 * MIB + 64 * KIB + 8),
        NO_SIZES,
        UNEVEN_SIZE,
    ),
    fault(
        "R52",
        "the BAT region ends past the end, but not its entries",
        disk(bat_offset=8 * MIB, blocks={0: Block(file_offset=4 * MIB)}, file_size=8 * MIB + PAGE),
        warning("R52", "BAT region .* ends past the end of the file", 8 * MIB),
        UNEVEN_SIZE,
    ),
    fault(
        "R53",
        "the reserved field of the tables is not zero",
        tables({"reserved": 1}, {"reserved": 1}),
        *(note("R53", "its reserved field is not zero", place) for place in (TABLE_1, TABLE_2)),
    ),
    fault(
        "R53",
        "something stands after the entries of both tables",
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
