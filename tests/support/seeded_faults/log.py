"""Faults of the log (2.3)."""

from __future__ import annotations

from typing import Any

from tests.support.builder import (
    MIB,
    Block,
    DataDescriptorSpec,
    ImageSpec,
    LogEntrySpec,
    make_dirty,
)
from tests.support.logs import PAGE, blank_disk, disk_with, entry, mark
from tests.support.seeded_faults.disks import HEADER_1, LOG, UNKNOWN, disk
from tests.support.seeded_faults.fault import REPLAYED, Found, error, fault


def bad_entry(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of LogEntrySpec
    """Describe a dirty disk whose only log entry has other fields."""
    return disk_with(entry(0, 1, mark(0, 1), **fields))


def bad_descriptor(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of DataDescriptorSpec
    """Describe a dirty disk whose only update has other fields."""
    return disk_with(entry(0, 1, mark(0, 1, **fields)))


def bad_target(file_offset: int) -> ImageSpec:
    """Describe a dirty disk whose only update goes to this place."""
    return disk_with(entry(0, 1, DataDescriptorSpec(file_offset, bytes(PAGE))))


def no_sequence(valid_entries: int = 0) -> Found:
    text = f"no complete sequence of entries: found {valid_entries} valid"
    return error("R31", text, LOG)


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
