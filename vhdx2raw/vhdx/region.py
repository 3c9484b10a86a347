"""The region table: which copy is good, and where the regions lie (MS-VHDX 2.2.3).

Reads through the replayed log, which may rewrite both copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Finding, Findings
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.copies import Copy, choose_valid, read_copy
from vhdx2raw.vhdx.header import HeaderSection

if TYPE_CHECKING:
    from vhdx2raw.vhdx.region_search import RegionSearch

REQUIRED_FLAG = 1
KNOWN_REGIONS = {layout.BAT_REGION: "BAT region", layout.METADATA_REGION: "metadata region"}


class Region(NamedTuple):
    """A piece of the file that belongs to one purpose.

    Attributes:
        name: For messages.
        file_offset: Where it begins, in bytes.
        length: In bytes.
    """

    name: str
    file_offset: int
    length: int

    @property
    def end(self) -> int:
        return self.file_offset + self.length


class RegionTable(NamedTuple):
    """Where the regions lie.

    Attributes:
        bat: The block allocation table.
        metadata: The metadata region.
        reserved: Every piece of the file that no block may touch, by file offset: the header
            section, the log, the two known regions and any optional one. They are disjoint.
    """

    bat: Region
    metadata: Region
    reserved: tuple[Region, ...]


NO_BAT = Region(KNOWN_REGIONS[layout.BAT_REGION], 0, 0)
"""What a lenient reader goes on with if there is no table: every block is lost."""


NO_TABLE = Copy("region tables", 0, bytes(layout.REGION_TABLE_SIZE), "")
"""What stands for a table without entries."""


def read_region_table(
    source: Source,
    section: HeaderSection,
    findings: Findings,
    search: RegionSearch | None = None,
) -> RegionTable:
    """Choose the region table and find the known regions (R42 to R53).

    Where a file is to be salvaged, `search` looks for what no table shows.

    Raises:
        UnsupportedImageError: A required region is unknown.
        CorruptImageError: No table is valid, a known region is missing, lies where it may not,
            or overlaps another one.
    """
    known: dict[UUID, Region] = {}
    optional: list[Region] = []
    try:
        table = _choose_table(source, findings)
    except CorruptImageError as error:
        if search is None or not search.has_metadata():
            raise
        findings.forgive(error, error.finding)
        table = NO_TABLE
    _read_entries(table, known, optional, findings)
    if search is not None:
        search.fill(known, source)
        if assumed := search.finding():
            findings.refuse(assumed, CorruptImageError)
    for guid, region_name in KNOWN_REGIONS.items():
        if guid not in known:
            finding = Finding(Rule.NO_REGION, table.name, f"no {region_name} is listed")
            if guid == layout.METADATA_REGION:
                raise CorruptImageError(finding)  # nothing can stand in for it
            findings.refuse(finding, CorruptImageError)
    bat = known.setdefault(layout.BAT_REGION, NO_BAT)
    if bat.file_offset < layout.HEADER_SECTION_SIZE:
        bat = NO_BAT  # reported, and what lies in the header section is no table
    reserved = [Region("header section", 0, layout.HEADER_SECTION_SIZE)]
    reserved += [region for region in (bat, known[layout.METADATA_REGION]) if region is not NO_BAT]
    reserved += optional
    reserved += _log_region(source, section, findings)
    reserved.sort(key=lambda region: region.file_offset)
    _check_disjoint(reserved, findings)
    return RegionTable(bat, known[layout.METADATA_REGION], tuple(reserved))


def _read_entries(
    table: Copy, known: dict[UUID, Region], optional: list[Region], findings: Findings
) -> None:
    """Sort the regions of a table into the known and the optional ones."""
    seen: set[UUID] = set()
    for entry, file_offset in _iter_entries(table):
        if entry.guid in seen:
            problem = f"region {entry.guid} is listed twice"
            findings.error(
                CorruptImageError, Rule.REGION_TWICE, table.name, problem, file_offset=file_offset
            )
            continue
        seen.add(entry.guid)
        if entry.guid in KNOWN_REGIONS:
            known[entry.guid] = _check_known(entry, file_offset, findings)
        else:
            optional += _check_unknown(entry, file_offset, findings)


def _choose_table(source: Source, findings: Findings) -> Copy:
    """Return the table to use: the first valid one (R42 to R44)."""
    copies = [_read_table(source, number, findings) for number in (1, 2)]
    valid, invalid = choose_valid(copies, Rule.REGION_TABLE_VALID, findings)
    if not valid:
        problem = f"none is valid; {invalid[0]}; {invalid[1]}"
        finding = Finding(Rule.NO_REGION_TABLE, "region tables", problem)
        usable = [copy for copy in copies if copy.raw.startswith(layout.REGION_TABLE_SIGNATURE)]
        if not usable:
            raise CorruptImageError(finding)
        findings.refuse(finding, CorruptImageError)
        return usable[0]
    if len({copy.raw for copy in valid}) > 1:
        problem = "both are valid but they differ; the first one is used"
        findings.warn(Rule.REGION_TABLES_DIFFER, "region tables", problem)
    return valid[0]


def _read_table(source: Source, number: int, findings: Findings) -> Copy:
    copy = read_copy(
        source,
        findings,
        f"region table {number}",
        file_offset=layout.REGION_TABLE_OFFSETS[number - 1],
        length=layout.REGION_TABLE_SIZE,
        signature=layout.REGION_TABLE_SIGNATURE,
    )
    if copy.is_valid:
        count = layout.REGION_TABLE_HEADER_LAYOUT.unpack(copy.raw).entry_count
        if count > layout.MAX_TABLE_ENTRIES:
            problem = f"it claims {count} entries, at most {layout.MAX_TABLE_ENTRIES} fit"
            return copy._replace(problem=problem)
    return copy


def _iter_entries(table: Copy) -> Iterator[tuple[layout.RegionTableEntry, int]]:
    """Yield each entry of a table and where it lies in the file."""
    count = layout.REGION_TABLE_HEADER_LAYOUT.unpack(table.raw).entry_count
    for index in range(min(count, layout.MAX_TABLE_ENTRIES)):
        place = (
            layout.REGION_TABLE_HEADER_LAYOUT.size + index * layout.REGION_TABLE_ENTRY_LAYOUT.size
        )
        yield layout.REGION_TABLE_ENTRY_LAYOUT.unpack(table.raw, place), table.file_offset + place


def _placement_problem(entry: layout.RegionTableEntry) -> str:
    """Return what is wrong with the place of a region (R47); nothing if it is right."""
    if entry.file_offset % layout.STRUCTURE_ALIGNMENT or entry.length % layout.STRUCTURE_ALIGNMENT:
        return "its place is not a multiple of 1 MiB"
    if entry.file_offset < layout.HEADER_SECTION_SIZE:
        return "it lies inside the header section"
    if entry.length == 0:
        return "its length is zero"
    return ""


def _check_known(entry: layout.RegionTableEntry, file_offset: int, findings: Findings) -> Region:
    """Return the region of a known entry. Its Required field is not worth a check (R50)."""
    name = KNOWN_REGIONS[entry.guid]
    problem = _placement_problem(entry)
    if problem:
        found = f"file offset {entry.file_offset:#x}, length {entry.length:#x}"
        findings.error(
            CorruptImageError,
            Rule.REGION_PLACE,
            f"entry of the {name}",
            problem,
            file_offset=file_offset,
            found=found,
        )
    return Region(name, entry.file_offset, entry.length)


def _check_unknown(
    entry: layout.RegionTableEntry, file_offset: int, findings: Findings
) -> Iterator[Region]:
    """Yield the place of an optional region as occupied (R45), or refuse a required one (R48)."""
    name = f"region {entry.guid}"
    if entry.required & REQUIRED_FLAG:
        problem = "the file requires this region, which this program does not know"
        findings.error(
            UnsupportedImageError, Rule.REQUIRED_REGION, name, problem, file_offset=file_offset
        )
    elif entry.required:
        problem = "reserved bits of the Required field are set"
        found = f"{entry.required:#x}"
        findings.note(Rule.REGION_FLAGS, name, problem, file_offset=file_offset, found=found)
    problem = _placement_problem(entry)
    if problem:
        findings.note(Rule.REGION_PLACE, name, f"{problem}; ignored", file_offset=file_offset)
    else:
        yield Region(name, entry.file_offset, entry.length)


def _log_region(source: Source, section: HeaderSection, findings: Findings) -> Iterator[Region]:
    """Yield the place of the log as occupied.

    Only a replayed log is certain to have a possible place. The fields of any other one mean
    nothing to a reader (R13), so an impossible place is only a note, and occupies nothing.
    """
    log = Region("log", section.header.log_offset, section.header.log_length)
    if not log.length:
        return
    aligned = not (
        log.file_offset % layout.STRUCTURE_ALIGNMENT or log.length % layout.STRUCTURE_ALIGNMENT
    )
    if aligned and log.file_offset >= layout.HEADER_SECTION_SIZE and log.end <= source.size:
        yield log
    elif not (findings.lenient and section.is_dirty):  # then it is reported already (R15)
        found = f"file offset {log.file_offset:#x}, length {log.length:#x}"
        where = section.header_offset
        problem = "the unused log has an impossible place, which is ignored"
        findings.note(Rule.UNUSED_LOG_PLACE, "log", problem, file_offset=where, found=found)


def _check_disjoint(regions: list[Region], findings: Findings) -> None:
    """Refuse regions, sorted by file offset, that overlap (R51)."""
    for first, second in pairwise(regions):
        if first.end > second.file_offset:
            problem = f"overlaps the {second.name} at file offset {second.file_offset:#x}"
            found = f"it ends at {first.end:#x}"
            findings.error(
                CorruptImageError,
                Rule.REGION_OVERLAP,
                first.name,
                problem,
                file_offset=first.file_offset,
                found=found,
            )
