"""Faults of the header section (2.2)."""

from __future__ import annotations

from tests.support.builder import GIB, KIB, MIB, ZERO_GUID
from tests.support.logs import PAGE
from tests.support.seeded_faults.disks import (
    HEADER_1,
    HEADER_2,
    LOG,
    METADATA,
    TABLE_1,
    TABLE_2,
    UNKNOWN,
    current,
    dirty_disk,
    disk,
    headers,
    with_log_place,
)
from tests.support.seeded_faults.fault import NO_TABLES, UNEVEN_SIZE, error, fault, note, warning

UNUSED_LOG = note("R13", "the unused log has an impossible place", HEADER_2)

HEADER_FAULTS = (
    fault(
        "R1",
        "the first bytes were overwritten",
        disk(signature=b"garbage!"),
        error("R1", "file: is something else, not a VHDX"),
    ),
    fault(
        "R3",
        "the file ends after the identifier",
        disk(file_size=HEADER_1),
        error("R10", "none is valid; header 1 .* beyond the end .* header 2 .* beyond the end"),
        NO_TABLES,
        UNEVEN_SIZE,
    ),
    fault(
        "R3",
        "the file ends after header 1",
        disk(file_size=HEADER_2),
        warning("R7", "header 2 .* it lies beyond the end of the file", HEADER_2),
        NO_TABLES,
        UNEVEN_SIZE,
    ),
    fault(
        "R3",
        "the file ends inside region table 1",
        disk(file_size=TABLE_1 + 100),
        NO_TABLES,
        UNEVEN_SIZE,
    ),
    fault(
        "R3",
        "the file ends after region table 1",
        disk(file_size=TABLE_2),
        warning("R42", "region table 2 .* it lies beyond the end of the file", TABLE_2),
        UNUSED_LOG,
        error("R52", "metadata table .* lies beyond the end of the file", METADATA),
        UNEVEN_SIZE,
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
            note("R13", f"impossible place, which is ignored: {facts}", HEADER_2),
        )
        for what, fields, facts in (
            ("is not aligned", {"log_offset": LOG + 512}, "found file offset 0x100200"),
            ("has a length that is not", {"log_length": 4096}, ".* length 0x1000"),
            ("lies in the header section", {"log_offset": 0}, "found file offset 0x0,"),
            ("lies past the end", {"log_offset": 100 * MIB}, "found file offset 0x6400000"),
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
            ("lies past the end", {"log_offset": 64 * MIB}, "beyond the end of the file"),
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
            ("after the identifier", 600, disk(patches={600: b"x"})),
            ("in header 1", HEADER_1 + 80, disk(headers=headers({"reserved": b"x"}, {}))),
            ("after header 2", HEADER_2 + 5000, disk(patches={HEADER_2 + 5000: b"x"})),
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
