"""The BAT held against the file: every block inside it, none where another one or a region lies.

MS-VHDX 2.5.1. The table has no checksum, and these are the best signs of damage. All of it is
checked before the first byte is converted, in one walk.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from itertools import islice
from typing import NamedTuple

from vhdx2raw.errors import CorruptImageError, TruncatedImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.bat import (
    MIN_BULK_COUNT,
    MISSING_ENTRY,
    OCCUPYING_STATES,
    Bat,
    BlockRun,
    iter_runs_of_chunk,
)
from vhdx2raw.vhdx.region import Region, RegionTable
from vhdx2raw.vhdx.space import SpaceMap

_SOUND_STATES = bytes(set(layout.PayloadBlockState) - {layout.PayloadBlockState.RESERVED})
"""The lowest byte of sound entries."""
_NO_LOW_BITS = bytes(range(0x00, 0x100, 0x10))
"""The third byte of sound entries, of which only the upper half belongs to the offset."""


class Allocation(NamedTuple):
    """How the payload blocks of a disk are stored; that it exists proves that the BAT is sound.

    Attributes:
        block_counts: How many payload blocks are in each state.
    """

    block_counts: dict[layout.PayloadBlockState, int]


def check_allocation(
    bat: Bat,
    regions: RegionTable,
    size: int,
    findings: Findings,
    space: SpaceMap | None = None,
) -> Allocation:
    """Walk the whole BAT once and refuse what cannot be right (R72 to R84, R111 to R114).

    Args:
        bat: The table.
        regions: What else lies in the file.
        size: Bytes of the file, with the growth that a replayed log asks for.
        findings: Where warnings go.
        space: Where to note what belongs to regions and blocks.

    Raises:
        TruncatedImageError: A block lies beyond the end of the file.
        CorruptImageError: An entry has an impossible value, or two structures share space.
    """
    _check_table_size(bat, regions.bat, size, findings)
    walk = _Walk(bat, regions, size, findings, SpaceMap() if space is None else space)
    for chunks, entries, bitmap_entry in bat.iter_chunks():
        if entries is None:
            walk.count_empty(chunks)
        else:
            walk.check_chunk(chunks.start, entries, bitmap_entry)
    walk.summarize()
    for file_offset, reason in bat.unreadable.items():
        problem = f"a piece of the table cannot be read: {reason}"
        findings.error(
            CorruptImageError, Rule.REGION_END, "BAT", problem, file_offset=file_offset, spec="2.5"
        )
    return Allocation(dict(walk.block_counts))


def _check_table_size(bat: Bat, region: Region, size: int, findings: Findings) -> None:
    """Check that the region holds the table, save for an unneeded last entry (R52, R74)."""
    geometry = bat.geometry
    needed = geometry.bat_entry_count * layout.BAT_ENTRY_SIZE
    last_block = geometry.payload_bat_index(geometry.payload_block_count - 1)
    lacks_blocks = region.length < (last_block + 1) * layout.BAT_ENTRY_SIZE
    if region.length < needed:
        finding = Finding(
            Rule.BAT_SIZE,
            region.name,
            "is too short for the disk"
            if lacks_blocks
            else "lacks the last entry, of a sector bitmap",
            file_offset=region.file_offset,
            found=f"{region.length} bytes",
            expected=f"at least {needed}",
        )
        if lacks_blocks:
            findings.refuse(finding, CorruptImageError)
        else:
            findings.keep(Severity.NOTE, finding)
    if region.file_offset + min(needed, region.length) > size:
        problem = "the table goes on past the end of the file"
        findings.error(
            TruncatedImageError,
            Rule.REGION_END,
            region.name,
            problem,
            file_offset=region.file_offset,
        )
    elif region.end > size:
        problem = "ends past the end of the file"
        findings.warn(Rule.REGION_END, region.name, problem, file_offset=region.file_offset)


class _Walk:
    """The state of one walk: the space in use and what is counted for a summary."""

    def __init__(
        self,
        bat: Bat,
        regions: RegionTable,
        size: int,
        findings: Findings,
        space: SpaceMap | None = None,
    ) -> None:
        self.block_counts: Counter[layout.PayloadBlockState] = Counter()
        self._bat = bat
        self._geometry = bat.geometry
        self._regions = regions
        self._size = size
        self._findings = findings
        self._stray_bitmap_entries = 0
        self._claimable = min(size, layout.MAX_FILE_OFFSET)
        self._space = SpaceMap() if space is None else space
        for region in regions.reserved:
            self._space.claim(region.file_offset // MIB, region.length // MIB)

    def count_empty(self, chunks: range) -> None:
        """Count the blocks of chunks whose entries are all zero."""
        first = self._geometry.blocks_of_chunk(chunks.start).start
        end = self._geometry.blocks_of_chunk(chunks[-1]).stop
        self.block_counts[layout.PayloadBlockState.NOT_PRESENT] += end - first

    def check_chunk(self, chunk_index: int, entries: array[int], entry: int) -> None:
        """Check the entries of one chunk, the last of them for its sector bitmap block."""
        blocks = self._geometry.blocks_of_chunk(chunk_index)
        # After the last partially present block, which needs the sector bitmap.
        done, partial_end = self._check_in_bulk(blocks.start, entries)
        first = blocks.start + done
        for run in iter_runs_of_chunk(entries[done:], first, self._geometry.block_size):
            self._check_run(run)
            self.block_counts[run.state] += run.block_count
            if run.state is layout.PayloadBlockState.PARTIALLY_PRESENT:
                partial_end = run.end_block
        if missing := len(blocks) - len(entries):
            self.block_counts[layout.PayloadBlockState.RESERVED] += missing  # as MISSING_ENTRY has
        if self._geometry.has_parent:
            self._check_sector_bitmap(chunk_index, entry, partial_end)
        elif entry:
            self._stray_bitmap_entries += 1

    def _check_in_bulk(self, first_block: int, entries: array[int]) -> tuple[int, int]:
        """Check entries together, since disks whose blocks lie in random order have millions.

        Returns:
            How many of them are sound and have their space; the others are to be checked one by
            one, to find out what is wrong. And the end of the last partially present block of
            those, 0 if there is none.
        """
        block_size = self._geometry.block_size
        if sys.byteorder == "big" or len(entries) < MIN_BULK_COUNT:
            return 0, 0
        if entries[0] == entries[-1] or entries[0] + block_size == entries[1]:
            return 0, 0  # most likely a run or a few, which take no time
        raw = entries.tobytes()
        states = raw[::8]
        if states.strip(_SOUND_STATES) or raw[1::8].strip(b"\0") or raw[2::8].strip(_NO_LOW_BITS):
            return 0, 0
        units = [entry // MIB for entry in entries if entry & layout.STATE_MASK in OCCUPYING_STATES]
        block_units = block_size // MIB
        if units and not 0 < min(units) <= max(units) <= self._claimable // MIB - block_units:
            return 0, 0
        if block_units == 1:
            count = self._space.claim_each(units)
        else:
            free = (self._space.claim(unit, block_units) for unit in units)
            count = next((index for index, is_free in enumerate(free) if not is_free), len(units))
        done = len(entries)
        if count < len(units):
            placed = (i for i, state in enumerate(states) if state in OCCUPYING_STATES)
            done = next(islice(placed, count, None))
        for state in layout.PayloadBlockState:
            if number := states.count(state, 0, done):
                self.block_counts[state] += number
        partial = states.rfind(layout.PayloadBlockState.PARTIALLY_PRESENT, 0, done)
        return done, first_block + partial + 1 if partial >= 0 else 0

    def summarize(self) -> None:
        """Give one warning for each anomaly, however many entries have it."""
        counts = self.block_counts
        if count := counts[layout.PayloadBlockState.UNMAPPED_V095]:
            problem = "blocks in state 5, the UNMAPPED of draft 0.95, read as zeros"
            self._findings.warn(Rule.BLOCK_STATE, "BAT", problem, found=str(count))
        count = counts[layout.PayloadBlockState.PARTIALLY_PRESENT]
        if count and not self._geometry.has_parent:
            problem = "blocks that are partially present, without a parent, read as fully present"
            self._findings.warn(Rule.PARTIAL_WITHOUT_PARENT, "BAT", problem, found=str(count))
        if count := self._stray_bitmap_entries:
            problem = (
                "sector bitmap entries of a disk without a parent are not zero;"
                " typical of old versions of QEMU and mkimg: verify the result"
            )
            self._findings.warn(Rule.BITMAP_WITHOUT_PARENT, "BAT", problem, found=str(count))

    def _check_run(self, run: BlockRun) -> None:
        if run.entry == MISSING_ENTRY and self._bat.lacks_entries:
            return  # reported as a whole
        if run.entry & layout.RESERVED_MASK:
            self._refuse_block(run, Rule.ENTRY_RESERVED, "reserved bits are set")
        if run.state is layout.PayloadBlockState.RESERVED:
            self._refuse_block(run, Rule.BLOCK_STATE, "the state 4 is reserved")
        if run.state not in OCCUPYING_STATES:
            return
        if run.file_offset == 0:
            self._refuse_block(run, Rule.BLOCK_PLACE, "the block is present but has no place")
            return
        if not self._is_inside_file(run):
            return
        length = run.block_count * self._geometry.block_size
        free = self._space.claim(run.file_offset // MIB, length // MIB)
        # To find the owner takes a whole walk.
        if not free and not self._findings.is_only_counted(Severity.ERROR, Rule.BLOCK_OVERLAP):
            owner, overlap = self._find_owner(run.file_offset, run.file_offset + length)
            block = self._block_at(run, overlap)
            self._refuse_overlap(_payload_name(block), self._entry_place(block), owner, overlap)

    def _is_inside_file(self, run: BlockRun) -> bool:
        """Every used byte of the blocks must be in the file (R111, R112)."""
        block_size = self._geometry.block_size
        last = run.block_count - 1
        end = run.file_offset + last * block_size
        end += self._geometry.used_block_size(run.first_block + last)
        if end > self._size:
            if self._findings.is_only_counted(Severity.ERROR, Rule.BLOCK_END):
                return False
            # The first block of the run that does not fit.
            index = min(last, max(0, self._size - run.file_offset) // block_size)
            block = run.first_block + index
            place = run.file_offset + index * block_size
            self._findings.error(
                TruncatedImageError,
                Rule.BLOCK_END,
                _payload_name(block),
                f"the block lies beyond the end of the file, at {place:#x}",
                file_offset=self._entry_place(block),
                found=f"a file of {self._size} bytes",
                expected=f"at least {place + self._geometry.used_block_size(block)}",
            )
            return False
        if end > layout.MAX_FILE_OFFSET:
            self._refuse_block(run, Rule.BLOCK_PLACE, "the block lies past 256 TiB")
            return False
        return True

    def _check_sector_bitmap(self, chunk_index: int, entry: int, partial_end: int) -> None:
        """Check the sector bitmap entry of a differencing disk (R77, R78, R83, R84, R114)."""
        name = f"BAT entry of the sector bitmap block of chunk {chunk_index}"
        where = self._bat.entry_file_offset(self._geometry.sector_bitmap_bat_index(chunk_index))
        state, file_offset = entry & layout.STATE_MASK, entry & layout.FILE_OFFSET_MASK
        found = f"{entry:#018x}"
        if state != layout.SectorBitmapBlockState.PRESENT:
            if partial_end:
                problem = "it is not present, but a block of the chunk is partially present"
                self._refuse(
                    Finding(Rule.SECTOR_BITMAP, name, problem, file_offset=where, found=found)
                )
            elif state != layout.SectorBitmapBlockState.NOT_PRESENT or entry & layout.RESERVED_MASK:
                problem = "a reserved state or reserved bits, but it is not needed"
                self._findings.warn(
                    Rule.SECTOR_BITMAP, name, problem, file_offset=where, found=found
                )
            return
        if entry & layout.RESERVED_MASK:
            self._refuse(
                Finding(
                    Rule.ENTRY_RESERVED,
                    name,
                    "reserved bits are set",
                    file_offset=where,
                    found=found,
                )
            )
        if file_offset == 0:
            problem = "the block is present but has no place"
            self._refuse(Finding(Rule.BLOCK_PLACE, name, problem, file_offset=where, found=found))
            return
        needed_size = self._needed_bitmap_size(chunk_index, partial_end)
        if partial_end and file_offset + needed_size > self._size:
            problem = f"the block lies beyond the end of the file, at {file_offset:#x}"
            self._findings.error(
                TruncatedImageError,
                Rule.BITMAP_END,
                name,
                problem,
                file_offset=where,
                found=f"a file of {self._size} bytes",
            )
            return
        free = file_offset >= self._claimable or self._space.claim(file_offset // MIB, 1)
        if not free and not self._findings.is_only_counted(Severity.ERROR, Rule.BLOCK_OVERLAP):
            end = file_offset + layout.SECTOR_BITMAP_BLOCK_SIZE
            self._refuse_overlap(name, where, *self._find_owner(file_offset, end))

    def _needed_bitmap_size(self, chunk_index: int, partial_end: int) -> int:
        """Bytes of a sector bitmap block up to the last sector that it must cover."""
        geometry = self._geometry
        end = min(partial_end * geometry.block_size, geometry.virtual_disk_size)
        used = end - chunk_index * geometry.chunk_size
        return ceil_div(used, geometry.logical_sector_size * 8)

    def _entry_place(self, block: int) -> int:
        return self._bat.entry_file_offset(self._geometry.payload_bat_index(block))

    def _refuse_block(self, run: BlockRun, rule: Rule, problem: str) -> None:
        if self._findings.is_only_counted(Severity.ERROR, rule):
            return  # a table of garbage has millions
        name = _payload_name(run.first_block)
        where = self._entry_place(run.first_block)
        self._refuse(Finding(rule, name, problem, file_offset=where, found=f"{run.entry:#018x}"))

    def _refuse_overlap(self, name: str, where: int, owner: str, overlap: int) -> None:
        problem = f"the block lies where {owner} lies, at {overlap:#x}"
        self._refuse(Finding(Rule.BLOCK_OVERLAP, name, problem, file_offset=where))

    def _refuse(self, finding: Finding) -> None:
        self._findings.refuse(finding, CorruptImageError)

    def _block_at(self, run: BlockRun, file_offset: int) -> int:
        return run.first_block + (file_offset - run.file_offset) // self._geometry.block_size

    def _find_owner(self, start: int, end: int) -> tuple[str, int]:
        """Name what was first to claim a piece of the file, and where the two overlap.

        Walks everything again in the order of the claims, so what it meets first is the owner.
        """
        for region in self._regions.reserved:
            if region.file_offset < end and start < region.end:
                return f"the {region.name}", max(start, region.file_offset)
        for chunk_index in range(self._geometry.chunk_count):
            blocks = self._geometry.blocks_of_chunk(chunk_index)
            for run in self._bat.iter_runs(blocks.start, blocks.stop):
                run_end = run.file_offset + run.block_count * self._geometry.block_size
                overlap = max(start, run.file_offset)
                if run.state in OCCUPYING_STATES and overlap < min(end, run_end):
                    return f"payload block {self._block_at(run, overlap)}", overlap
            entry = self._bat.sector_bitmap_entry(chunk_index) if self._geometry.has_parent else 0
            bitmap = entry & layout.FILE_OFFSET_MASK
            overlap = max(start, bitmap)
            taken = entry & layout.STATE_MASK == layout.SectorBitmapBlockState.PRESENT
            if taken and overlap < min(end, bitmap + layout.SECTOR_BITMAP_BLOCK_SIZE):
                return f"the sector bitmap block of chunk {chunk_index}", overlap
        raise AssertionError("what was taken has an owner")


def _payload_name(block: int) -> str:
    return f"BAT entry of payload block {block}"
