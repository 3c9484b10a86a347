"""Space of the file that belongs to nothing though it holds data: a wiped BAT looks like this.

The table has no checksum, and one that is all zeros is that of an empty disk. What a writer has
given up still has an offset in the table, or was cut off the file; so a file that nobody has
damaged has no such space, unless its writer crashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from vhdx2raw import host
from vhdx2raw.findings import Findings
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.bat import OCCUPYING_STATES, Bat
from vhdx2raw.vhdx.space import SpaceMap
from vhdx2raw.zeros import is_zero

MAX_RANGES = 4096
"""Ranges that are looked at; a file that is made to have more of them has a lot of space anyway."""
MAX_SAMPLES = 64
"""Units of 1 MiB that are read, evenly spread, until one is not all zeros."""
SAMPLE_PIECE = MIB // 16
FEW_SAMPLES = 2
"""Units of which the first piece is read, where every read is a request to a server."""

Range = tuple[int, int]
"""First unit and count, in units of 1 MiB."""


def check_unclaimed(
    source: Source, stored_size: int, bat: Bat, space: SpaceMap, findings: Findings
) -> None:
    """Warn of whole MiB that belong to nothing and are not all zeros.

    Args:
        source: The file with its log replayed.
        stored_size: Bytes of the file itself, without what a log promises.
        bat: The table.
        space: What regions and blocks have claimed; what the table mentions otherwise is added.
        findings: Where the warning goes.
    """
    unit_count = min(stored_size, source.size) // MIB
    if findings.first_error is not None:
        return  # what lies there may belong to what is broken
    # What most files have none of, or have as holes, is looked for first: the rest takes time.
    if not _stored(source, space.iter_free(unit_count)):
        return
    _claim_kept(bat, space, unit_count)
    stored = _stored(source, space.iter_free(unit_count))
    where = _find_data(source, stored)
    if where is not None:
        size = sum(count for _, count in stored)
        findings.warn(
            Rule.UNCLAIMED_SPACE,
            "file",
            "holds data that belongs to no block and no structure, as after damage to its block"
            " allocation table",
            file_offset=where,
            found=f"{size} MiB" if len(stored) < MAX_RANGES else f"{size} MiB and more",
        )


def _stored(source: Source, ranges: Iterable[Range]) -> list[Range]:
    """Return the units of `ranges`, as far as they are looked at, that are not holes as a whole."""
    stored: list[Range] = []
    for first, count in islice(ranges, MAX_RANGES):
        for start, end in _iter_data(source, first * MIB, (first + count) * MIB):
            unit, end_unit = start // MIB, ceil_div(end, MIB)
            if stored and unit < sum(stored[-1]):
                unit = sum(stored[-1])
            if unit < end_unit:
                stored.append((unit, end_unit - unit))
            if len(stored) == MAX_RANGES:
                return stored
    return stored


def _iter_data(source: Source, start: int, end: int) -> Iterator[Range]:
    """Yield (start, end) of what the host stores of a range: all of it, if it does not know."""
    try:
        descriptor = source.descriptor
        while start < end and (found := host.find_data(descriptor, start, end)):
            if found[0] >= end:
                return
            yield found
            start = found[1]
    except OSError:
        yield start, end


def _claim_kept(bat: Bat, space: SpaceMap, unit_count: int) -> None:
    """Claim the space of every entry that has an offset, whatever its state (R79, R82)."""
    geometry = bat.geometry

    def claim(entry: int, length: int) -> None:
        first = (entry & layout.FILE_OFFSET_MASK) // MIB
        space.claim(first, max(0, min(length // MIB, unit_count - first)))

    for run in bat.iter_runs(0, geometry.payload_block_count):
        if run.file_offset:
            is_stored = run.state in OCCUPYING_STATES
            claim(run.entry, geometry.block_size * (run.block_count if is_stored else 1))
    for chunk_index in range(geometry.chunk_count):
        if entry := bat.sector_bitmap_entry(chunk_index):
            claim(entry, layout.SECTOR_BITMAP_BLOCK_SIZE)


def _find_data(source: Source, ranges: list[Range]) -> int | None:
    """Return the offset of a unit that is not all zeros, among a sample; None if there is none."""
    is_far = source.read_ahead > 0
    total = sum(count for _, count in ranges)
    step = max(1, total // MAX_SAMPLES)
    if is_far:
        step = ceil_div(total, FEW_SAMPLES) or 1
    skipped = 0  # units since the last sample
    for first, count in ranges:
        for index in range((-skipped) % step, count, step):
            place = (first + index) * MIB
            if not _is_zero(source, place, SAMPLE_PIECE if is_far else MIB):
                return place
        skipped = (skipped + count) % step
    return None


def _is_zero(source: Source, file_offset: int, length: int) -> bool:
    """Return whether a range is all zeros; one that the host cannot read tells nothing."""
    try:
        return all(
            is_zero(memoryview(source.pread(file_offset + start, SAMPLE_PIECE)))
            for start in range(0, length, SAMPLE_PIECE)
        )
    except OSError:
        return True
