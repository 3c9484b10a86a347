"""Right checksums for whatever is in the file, so that a spoiled field is looked at."""

from __future__ import annotations

from tests.fuzz.bases import Member
from tests.fuzz.fields import logged_pages, place_in_log
from tests.fuzz.sparse import PAGE, SparseFile
from tests.support.builder import ImageSpec, checksum_of
from tests.support.builder.layout import (
    HEADER_OFFSETS,
    HEADER_SIZE,
    REGION_TABLE_OFFSETS,
    REGION_TABLE_SIZE,
)

MOST_ENTRY_BYTES = 16 << 20
"""Longer entries, which only a spoiled field can make, keep their wrong checksum."""


def repair(member: Member, file: SparseFile) -> None:
    """Put the right checksum into headers, region tables and log entries."""
    for offset in HEADER_OFFSETS:
        _seal(file, offset, file.read(offset, HEADER_SIZE))
    for offset in REGION_TABLE_OFFSETS:
        _seal(file, offset, file.read(offset, REGION_TABLE_SIZE))
    repair_logged_tables(member.spec, file)
    repair_log(file)


def _seal(file: SparseFile, offset: int, structure: bytes) -> None:
    file.write(offset + 4, checksum_of(structure).to_bytes(4, "little"))


def repair_logged_tables(spec: ImageSpec, file: SparseFile) -> None:
    """Repair the first page of a region table where it is to come from the log."""
    for entry in spec.log.entries:
        for _, target, descriptor, data in logged_pages(spec, entry):
            if target in REGION_TABLE_OFFSETS:
                leading = file.read(descriptor + 8, 8)
                page = leading + file.read(data + 8, PAGE - 12) + file.read(descriptor + 4, 4)
                table = page + file.read(target + PAGE, REGION_TABLE_SIZE - PAGE)
                place = place_in_log(4, descriptor, data)
                file.write(place, checksum_of(table).to_bytes(4, "little"))


def repair_log(file: SparseFile) -> None:
    """Repair every entry of the ring that either header names."""
    rings = {file.read(offset + 68, 12) for offset in HEADER_OFFSETS}
    for place in rings:
        length = int.from_bytes(place[:4], "little")
        start = int.from_bytes(place[4:], "little")
        for number in file.numbers_between(start, start + length):
            if file.pages[number].startswith(b"loge"):
                _repair_entry(file, start, length, number * PAGE)


def _repair_entry(file: SparseFile, start: int, length: int, offset: int) -> None:
    entry_length = int.from_bytes(file.read(offset + 8, 4), "little")
    if 64 <= entry_length <= min(length, MOST_ENTRY_BYTES):
        before_wrap = min(entry_length, start + length - offset)
        entry = file.read(offset, before_wrap) + file.read(start, entry_length - before_wrap)
        _seal(file, offset, entry)
