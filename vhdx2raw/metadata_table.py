"""The metadata table, and its items by their GUID (MS-VHDX 2.6.1).

Nothing in the metadata region has a checksum, so every place is held against its limits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn
from uuid import UUID

from vhdx2raw.errors import (
    TRUNCATED_HINT,
    CorruptImageError,
    Finding,
    Findings,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.region import Region
from vhdx2raw.source import Source
from vhdx2raw.structures import (
    FILE_PARAMETERS,
    INCOMPLETE_FILE,
    LOGICAL_SECTOR_SIZE,
    MAX_METADATA_ITEM_LENGTH,
    MAX_TABLE_ENTRIES,
    METADATA_SIGNATURE,
    METADATA_TABLE_SIZE,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    MetadataTableEntry,
    MetadataTableHeader,
)

ITEM_NAMES = {
    FILE_PARAMETERS: "File Parameters",
    VIRTUAL_DISK_SIZE: "Virtual Disk Size",
    VIRTUAL_DISK_ID: "Virtual Disk ID",
    LOGICAL_SECTOR_SIZE: "Logical Sector Size",
    PHYSICAL_SECTOR_SIZE: "Physical Sector Size",
    PARENT_LOCATOR: "Parent Locator",
}

NO_ENTRY = MetadataTableEntry.unpack(bytes(MetadataTableEntry.LAYOUT.size))


class MetadataItems:
    """The system items of a metadata table, found by GUID and read on demand."""

    def __init__(self, source: Source, region: Region, findings: Findings) -> None:
        """Read and check the table in `region`."""
        self._source = source
        self._region = region
        self._findings = findings
        self._entries = self._read_table()

    def _finding(self, rule: str, item: UUID, problem: str, spec: str, found: str = "") -> Finding:
        name = f"metadata item {ITEM_NAMES.get(item, item)}"
        entry = self._entries.get(item)
        where = self._region.file_offset + entry.offset if entry else None
        return Finding(rule, name, problem, spec, where, found)

    def _read_table(self) -> dict[UUID, MetadataTableEntry]:
        """Read and check the table (R54, R57 to R60); return the system items by their GUID."""
        offset = self._region.file_offset
        if offset + METADATA_TABLE_SIZE > self._source.size:
            problem = "lies beyond the end of the file"
            finding = Finding("R52", "metadata table", problem, "2.6.1", offset)
            raise TruncatedImageError(finding, hint=TRUNCATED_HINT)
        raw = self._source.pread(offset, METADATA_TABLE_SIZE)
        header = MetadataTableHeader.unpack(raw)
        if header.signature != METADATA_SIGNATURE:
            problem = f"the signature {METADATA_SIGNATURE.decode()} is missing"
            finding = Finding("R54", "metadata table", problem, "2.6.1.1", offset)
            self._findings.error(CorruptImageError(finding))
        if header.entry_count > MAX_TABLE_ENTRIES:
            problem = f"it claims {header.entry_count} entries, at most {MAX_TABLE_ENTRIES} fit"
            finding = Finding("R54", "metadata table", problem, "2.6.1.1", offset)
            self._findings.error(CorruptImageError(finding))
        if header.reserved or any(header.reserved2):
            problem = "reserved fields are not zero"
            self._findings.warn(Finding("R54", "metadata table", problem, "2.6.1.1", offset))
        entries: dict[tuple[UUID, bool], MetadataTableEntry] = {}
        for index in range(min(header.entry_count, MAX_TABLE_ENTRIES)):
            place = MetadataTableHeader.LAYOUT.size + index * MetadataTableEntry.LAYOUT.size
            entry = MetadataTableEntry.unpack(raw, place)
            where = offset + place
            if header.entry_count > MAX_TABLE_ENTRIES and entry == NO_ENTRY:
                continue  # the count is wrong, and behind the last entry there is nothing
            self._check_entry(entry, where)
            key = (entry.item_id, entry.is_user)
            if key in entries:
                self._check_duplicate(entry, where)
            entries.setdefault(key, entry)
        self._check_disjoint(list(entries.values()))
        return {item: entry for (item, is_user), entry in entries.items() if not is_user}

    def _check_entry(self, entry: MetadataTableEntry, where: int) -> None:
        known = entry.item_id in ITEM_NAMES and not entry.is_user
        name = f"metadata item {ITEM_NAMES[entry.item_id] if known else entry.item_id}"
        if entry.item_id == INCOMPLETE_FILE and not entry.is_user:
            problem = "marks a file whose creation was never finished"
            self._findings.error(CorruptImageError(Finding("R58", name, problem, "", where)))
        elif entry.is_required and not known:
            problem = "the file requires this item, which this program does not know"
            finding = Finding("R58", name, problem, "2.6.1.2", where)
            self._findings.error(UnsupportedImageError(finding))
        if entry.flags & MetadataTableEntry.RESERVED_FLAGS or entry.reserved2:
            problem = "reserved bits or fields are not zero"
            self._findings.warn(Finding("R60", name, problem, "2.6.1.2", where))
        problem = self._range_problem(entry)
        if problem and not known:
            self._findings.warn(Finding("R55", name, f"{problem}; ignored", "2.6.1.2", where))

    def _check_duplicate(self, entry: MetadataTableEntry, where: int) -> None:
        problem = "is listed twice"
        if entry.item_id in ITEM_NAMES and not entry.is_user:
            name = f"metadata item {ITEM_NAMES[entry.item_id]}"
            finding = Finding("R57", name, problem, "2.6.1.2", where)
            self._findings.error(CorruptImageError(finding))
            return
        name = f"metadata item {entry.item_id}"
        self._findings.warn(Finding("R57", name, problem, "2.6.1.2", where))

    def _check_disjoint(self, entries: list[MetadataTableEntry]) -> None:
        """Warn of items that share bytes: each still has a certain value (R57)."""
        stored = sorted((entry.offset, entry.length) for entry in entries if entry.length)
        for (offset, length), (next_offset, _) in pairwise(stored):
            if offset + length > next_offset:
                where = self._region.file_offset + next_offset
                problem = "two items share bytes"
                self._findings.warn(Finding("R57", "metadata region", problem, "2.6.1.2", where))

    def _range_problem(self, entry: MetadataTableEntry) -> str:
        """Say what is wrong with the place of an item in the region (R55)."""
        if entry.length > MAX_METADATA_ITEM_LENGTH:
            return f"its length of {entry.length} bytes is above 1 MiB"
        if entry.length and entry.offset < METADATA_TABLE_SIZE:
            return f"its offset {entry.offset:#x} lies inside the metadata table"
        if entry.offset + entry.length > self._region.length:
            return f"its end {entry.offset + entry.length:#x} lies behind the metadata region"
        return ""

    def __contains__(self, item: UUID) -> bool:
        return item in self._entries

    def read(self, item: UUID, length: int, spec: str) -> bytes:
        """Read the leading `length` bytes of a needed item (R55, R61, R62)."""
        if item not in self._entries:
            raise CorruptImageError(self._finding("R61", item, "is missing", spec))
        entry = self._entries[item]
        problem = self._range_problem(entry)
        if problem:
            raise CorruptImageError(self._finding("R55", item, problem, "2.6.1.2"))
        sizes = f"is {entry.length} bytes long instead of {length}"
        if entry.length < length:
            raise CorruptImageError(self._finding("R62", item, sizes, spec))
        if entry.length > length:
            self._findings.warn(self._finding("R62", item, sizes, spec))
        file_offset = self._region.file_offset + entry.offset
        if file_offset + length > self._source.size:
            finding = self._finding("R52", item, "lies beyond the end of the file", spec)
            raise TruncatedImageError(finding, hint=TRUNCATED_HINT)
        return self._source.pread(file_offset, length)

    def read_whole(self, item: UUID, spec: str) -> bytes:
        """Read a needed item of any length."""
        entry = self._entries.get(item)
        return self.read(item, entry.length if entry else 0, spec)

    def read_optional(self, item: UUID, length: int, spec: str) -> bytes | None:
        """Read an item that is needed for display only; its absence is a warning (R61)."""
        try:
            return self.read(item, length, spec)
        except CorruptImageError as error:
            self._findings.warn(error.finding)
        return None

    def read_integer(self, item: UUID, length: int, spec: str) -> int:
        """Read a needed item that is one integer."""
        return int.from_bytes(self.read(item, length, spec), "little")

    def refuse(self, rule: str, item: UUID, problem: str, spec: str, found: str) -> NoReturn:
        """Raise for a value that breaks its limits."""
        raise CorruptImageError(self._finding(rule, item, problem, spec, found))

    def error(self, rule: str, item: UUID, problem: str, spec: str, found: str) -> None:
        """Raise for a value that breaks its limits, unless the reader is lenient."""
        self._findings.error(CorruptImageError(self._finding(rule, item, problem, spec, found)))

    def warn(self, rule: str, item: UUID, problem: str, spec: str, found: str = "") -> None:
        """Keep a warning about an item."""
        self._findings.warn(self._finding(rule, item, problem, spec, found))
