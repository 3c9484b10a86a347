"""Regions looked for where no table shows them, or named by hand: only to salvage a file.

Regions lie at multiples of 1 MiB (MS-VHDX 2.2.3.2). A metadata table has a signature. The BAT has
none, so it is recognized by what its entries say of the file.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from uuid import UUID

from vhdx2raw import host
from vhdx2raw.errors import ImageError
from vhdx2raw.findings import Finding, Findings
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.bat import OCCUPYING_STATES
from vhdx2raw.vhdx.geometry import Geometry
from vhdx2raw.vhdx.metadata import read_metadata
from vhdx2raw.vhdx.region import KNOWN_REGIONS, Region
from vhdx2raw.vhdx.space import SpaceMap
from vhdx2raw.zeros import is_zero

REGION_NAMES = {"bat": layout.BAT_REGION, "metadata": layout.METADATA_REGION}
"""What a user calls the regions."""
NOTHING_STATES = (0, 1, 2, 3)
START_SIZE = 512


class RegionSearch:
    """The search for the known regions of one file."""

    def __init__(self, source: Source, named: Mapping[str, int]) -> None:
        """Search `source`, whatever `named` (offsets by `REGION_NAMES`) does not say already."""
        self._source = source
        self._named = {REGION_NAMES[name]: offset for name, offset in named.items()}
        self._metadata_offset: int | None = self._named.get(layout.METADATA_REGION)
        self.assumed: list[str] = []

    def has_metadata(self) -> bool:
        """Whether there is a metadata table, so that the file was a VHDX once."""
        if self._metadata_offset is None:
            self._metadata_offset = next(filter(self._is_metadata, self._iter_places()), None)
        return self._metadata_offset is not None

    def fill(self, known: dict[UUID, Region], source: Source) -> None:
        """Add to the regions that are known what is named, and what is found of the others.

        Args:
            known: By GUID; changed here.
            source: The file with its log replayed.
        """
        self._source = source
        if layout.METADATA_REGION in self._named or layout.METADATA_REGION not in known:
            if not self.has_metadata():
                return
            assert self._metadata_offset is not None, "found"
            self._add(known, layout.METADATA_REGION, self._metadata_offset, MIB, "its signature")
        try:
            metadata = read_metadata(source, known[layout.METADATA_REGION], Findings(lenient=True))
        except ImageError:
            return  # reported when it is read once more
        geometry = Geometry(
            metadata.virtual_disk_size,
            metadata.block_size,
            metadata.logical_sector_size,
            metadata.has_parent,
        )
        length = ceil_div(geometry.bat_entry_count * layout.BAT_ENTRY_SIZE, MIB) * MIB
        place = self._named.get(layout.BAT_REGION)
        if place is None and layout.BAT_REGION not in known:
            place = self._find_bat(geometry, known[layout.METADATA_REGION])
        if place is not None:
            self._add(known, layout.BAT_REGION, place, length, "its entries")

    def finding(self) -> Finding | None:
        """Return what was assumed."""
        problem = f"it is assumed that {' and '.join(self.assumed)}"
        return Finding(Rule.NO_REGION, "regions", problem) if self.assumed else None

    def _add(
        self, known: dict[UUID, Region], guid: UUID, place: int, length: int, reason: str
    ) -> None:
        known[guid] = Region(KNOWN_REGIONS[guid], place, length)
        reason = "as was said" if guid in self._named else f"by {reason}"
        self.assumed.append(f"the {KNOWN_REGIONS[guid]} lies at {place:#x}, {reason}")

    def _iter_places(self) -> Iterator[int]:
        """Yield the multiples of 1 MiB after the header section at which something is stored."""
        place, size = layout.HEADER_SECTION_SIZE, self._source.size
        while place + START_SIZE <= size:
            start, end = self._next_data(place, size)
            place = max(place, start - start % MIB)
            for candidate in range(place, min(end, size - START_SIZE + 1), MIB):
                yield candidate
                place = candidate + MIB

    def _next_data(self, start: int, size: int) -> tuple[int, int]:
        try:
            found = host.find_data(self._source.descriptor, start, size)
        except OSError:
            return start, size
        return found or (size, size)

    def _read(self, place: int, length: int) -> bytes:
        """Read a piece; what the host cannot read is nothing."""
        try:
            return self._source.pread(place, min(length, self._source.size - place))
        except OSError:
            return b""

    def _is_metadata(self, place: int) -> bool:
        start = self._read(place, START_SIZE)
        return start.startswith(
            layout.METADATA_SIGNATURE
        ) and layout.FILE_PARAMETERS.bytes_le in self._read(place, layout.METADATA_TABLE_SIZE)

    def _find_bat(self, geometry: Geometry, metadata: Region) -> int | None:
        """Return the place of the table with the most blocks that can be where it says."""
        best, most = None, 0
        for place in self._iter_places():
            if metadata.file_offset <= place < metadata.end:
                continue
            count = self._judge(place, geometry, metadata)
            if count > most:
                best, most = place, count
        return best

    def _judge(self, place: int, geometry: Geometry, metadata: Region) -> int:
        """Return how many blocks a table at `place` has; 0 if it is none, or says nothing."""
        needed = geometry.bat_entry_count * layout.BAT_ENTRY_SIZE
        table = _Table(geometry, self._source.size)
        table.space.claim(0, layout.HEADER_SECTION_SIZE // MIB)
        table.space.claim(metadata.file_offset // MIB, metadata.length // MIB)
        table.space.claim(place // MIB, ceil_div(needed, MIB))
        if not table.is_possible(self._read(place, min(START_SIZE, needed))):
            return 0  # as nearly everywhere
        for start in range(START_SIZE, needed, MIB):
            if not table.is_possible(self._read(place + start, min(MIB, needed - start))):
                return 0
        return table.block_count


class _Table:
    """Entries that may be those of the BAT, judged one after the other."""

    def __init__(self, geometry: Geometry, size: int) -> None:
        self.block_count = 0
        self.space = SpaceMap()
        self._geometry = geometry
        self._size = size
        self._index = 0

    def is_possible(self, raw: bytes) -> bool:
        """Return whether the next entries can be some."""
        count = len(raw) // layout.BAT_ENTRY_SIZE
        if is_zero(memoryview(raw)):
            self._index += count
            return True
        entries = array("Q", raw[: count * layout.BAT_ENTRY_SIZE])
        if sys.byteorder == "big":
            entries.byteswap()
        return all(map(self._is_possible_entry, entries))

    def _is_possible_entry(self, entry: int) -> bool:
        """Return whether an entry can be one; claim the place of its block."""
        geometry = self._geometry
        period = geometry.chunk_ratio + 1
        is_bitmap = self._index % period == geometry.chunk_ratio
        self._index += 1
        state, place = entry & layout.STATE_MASK, entry & layout.FILE_OFFSET_MASK
        if entry & layout.RESERVED_MASK:
            return False
        if state in NOTHING_STATES:
            return True
        if state not in OCCUPYING_STATES or place >= self._size:
            return False
        self.block_count += not is_bitmap
        length = layout.SECTOR_BITMAP_BLOCK_SIZE if is_bitmap else geometry.block_size
        return self.space.claim(place // MIB, length // MIB)
