"""The metadata table, and its items by their GUID (MS-VHDX 2.6.1).

Nothing in the metadata region has a checksum, so every place is held against its limits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from vhdx2raw.errors import CorruptImageError, TruncatedImageError, UnsupportedImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.region import Region

IS_REQUIRED, IS_VIRTUAL_DISK = (
    layout.ITEM_IS_REQUIRED,
    layout.ITEM_IS_VIRTUAL_DISK,
)


class KnownItem(NamedTuple):
    """What MS-VHDX says of a metadata item.

    Attributes:
        name: Its name.
        spec: Its section.
        length: Bytes that it has; None for any number.
        flags: The flags that its entry should have.
    """

    name: str
    spec: str
    length: int | None
    flags: int = IS_REQUIRED | IS_VIRTUAL_DISK


KNOWN_ITEMS = {
    layout.FILE_PARAMETERS: KnownItem("File Parameters", "2.6.2.1", 8, IS_REQUIRED),
    layout.VIRTUAL_DISK_SIZE: KnownItem("Virtual Disk Size", "2.6.2.2", 8),
    layout.VIRTUAL_DISK_ID: KnownItem("Virtual Disk ID", "2.6.2.3", 16),
    layout.LOGICAL_SECTOR_SIZE: KnownItem("Logical Sector Size", "2.6.2.4", 4),
    layout.PHYSICAL_SECTOR_SIZE: KnownItem("Physical Sector Size", "2.6.2.5", 4),
    layout.PARENT_LOCATOR: KnownItem("Parent Locator", "2.6.2.6", None, IS_REQUIRED),
}
HARMLESS_ITEMS = {
    layout.CHS_PARAMETERS: "CHS Parameters",
    layout.PMEM_LABEL_AREA: "PMEM Label Storage Area",
}
"""Items that Microsoft's own reader knows, and that change no byte of the disk: never read."""
NO_ENTRY = layout.METADATA_TABLE_ENTRY_LAYOUT.unpack(bytes(layout.METADATA_TABLE_ENTRY_LAYOUT.size))


def item_name(item: UUID, *, is_user: bool = False) -> str:
    """Return what an item is called in messages."""
    if is_user:
        return f"metadata item {item}"
    known = KNOWN_ITEMS.get(item)
    return f"metadata item {known.name if known else HARMLESS_ITEMS.get(item, item)}"


class MetadataItems:
    """The system items of a metadata table, found by GUID and read on demand."""

    def __init__(self, source: Source, region: Region, findings: Findings) -> None:
        self._source = source
        self._region = region
        self._findings = findings
        self._entries = self._read_table()

    def _read_table(self) -> dict[UUID, layout.MetadataTableEntry]:
        """Read and check the table (R54, R57 to R60); return the system items by their GUID."""
        offset = self._region.file_offset
        if offset + layout.METADATA_TABLE_SIZE > self._source.size:
            problem = "lies beyond the end of the file"
            raise TruncatedImageError(
                Finding(
                    Rule.REGION_END, "metadata table", problem, file_offset=offset, spec="2.6.1"
                )
            )
        raw = self._source.pread(offset, layout.METADATA_TABLE_SIZE)
        header = layout.METADATA_TABLE_HEADER_LAYOUT.unpack(raw)
        self._check_header(header)
        entries: dict[tuple[UUID, bool], layout.MetadataTableEntry] = {}
        for index in range(min(header.entry_count, layout.MAX_TABLE_ENTRIES)):
            place = (
                layout.METADATA_TABLE_HEADER_LAYOUT.size
                + index * layout.METADATA_TABLE_ENTRY_LAYOUT.size
            )
            entry = layout.METADATA_TABLE_ENTRY_LAYOUT.unpack(raw, place)
            where = offset + place
            if header.entry_count > layout.MAX_TABLE_ENTRIES and entry == NO_ENTRY:
                continue  # the count is wrong, and after the last entry there is nothing
            self._check_entry(entry, where)
            key = (entry.item_id, entry.is_user)
            if key in entries:
                finding = Finding(
                    Rule.ITEM_TWICE, _name(entry), "is listed twice", file_offset=where
                )
                if _is_known(entry):
                    self._findings.refuse(finding, CorruptImageError)
                else:
                    self._findings.keep(Severity.WARNING, finding)
            entries.setdefault(key, entry)
        self._check_disjoint(list(entries.values()))
        return {item: entry for (item, is_user), entry in entries.items() if not is_user}

    def _check_header(self, header: layout.MetadataTableHeader) -> None:
        problems = []
        if header.signature != layout.METADATA_SIGNATURE:
            problems.append(f"the signature {layout.METADATA_SIGNATURE.decode()} is missing")
        if header.entry_count > layout.MAX_TABLE_ENTRIES:
            count = header.entry_count
            problems.append(f"it claims {count} entries, at most {layout.MAX_TABLE_ENTRIES} fit")
        where = self._region.file_offset
        for problem in problems:
            self._findings.error(
                CorruptImageError, Rule.METADATA_TABLE, "metadata table", problem, file_offset=where
            )
        if header.reserved or any(header.reserved2):
            problem = "reserved fields are not zero"
            self._findings.note(Rule.METADATA_TABLE, "metadata table", problem, file_offset=where)

    def _check_entry(self, entry: layout.MetadataTableEntry, where: int) -> None:
        name = _name(entry)
        if entry.item_id == layout.INCOMPLETE_FILE and not entry.is_user:
            problem = "marks a file whose creation was never finished"
            self._findings.error(
                CorruptImageError, Rule.REQUIRED_ITEM, name, problem, file_offset=where, spec=""
            )
        elif entry.is_required and not (_is_known(entry) or _is_harmless(entry)):
            problem = "the file requires this item, which this program does not know"
            self._findings.error(
                UnsupportedImageError, Rule.REQUIRED_ITEM, name, problem, file_offset=where
            )
        if entry.flags & layout.ITEM_RESERVED_FLAGS or entry.reserved2:
            problem = "reserved bits or fields are not zero"
            self._findings.note(Rule.ITEM_FLAGS, name, problem, file_offset=where)
        problem = self._range_problem(entry)
        if problem and not _is_known(entry):
            problem = f"{problem}; ignored"
            self._findings.note(Rule.ITEM_PLACE, name, problem, file_offset=where)

    def _check_disjoint(self, entries: list[layout.MetadataTableEntry]) -> None:
        """Warn of items that share bytes: each still has a certain value (R57)."""
        stored = sorted((entry.offset, entry.length) for entry in entries if entry.length)
        for (offset, length), (next_offset, _) in pairwise(stored):
            if offset + length > next_offset:
                self._findings.warn(
                    Rule.ITEM_TWICE,
                    "metadata region",
                    "two items share bytes",
                    file_offset=self._region.file_offset + next_offset,
                )

    def _range_problem(self, entry: layout.MetadataTableEntry) -> str:
        """Return what is wrong with the place of an item in the region (R55)."""
        if entry.length > layout.MAX_METADATA_ITEM_LENGTH:
            return f"its length of {entry.length} bytes is above 1 MiB"
        if entry.length and entry.offset < layout.METADATA_TABLE_SIZE:
            return f"its offset {entry.offset:#x} lies inside the metadata table"
        if entry.offset + entry.length > self._region.length:
            return f"its end {entry.offset + entry.length:#x} lies past the metadata region"
        return ""

    def __contains__(self, item: UUID) -> bool:
        return item in self._entries

    def finding(
        self, rule: Rule, item: UUID, problem: str, found: str = "", spec: str | None = None
    ) -> Finding:
        """Return a finding about an item, with its name and place."""
        entry = self._entries.get(item)
        where = self._region.file_offset + entry.offset if entry else None
        spec = KNOWN_ITEMS[item].spec if spec is None else spec
        return Finding(rule, item_name(item), problem, file_offset=where, found=found, spec=spec)

    def read(self, item: UUID) -> bytes:
        """Read the bytes of a needed item (R55, R61, R62).

        Raises:
            CorruptImageError: It is missing, has an impossible place, or is too short.
        """
        if item not in self._entries:
            raise CorruptImageError(self.finding(Rule.NEEDED_ITEM, item, "is missing"))
        entry = self._entries[item]
        problem = self._range_problem(entry)
        if problem:
            spec = Rule.ITEM_PLACE.spec
            raise CorruptImageError(self.finding(Rule.ITEM_PLACE, item, problem, spec=spec))
        length = KNOWN_ITEMS[item].length
        length = entry.length if length is None else length
        sizes = f"is {entry.length} bytes long instead of {length}"
        if entry.length < length:
            raise CorruptImageError(self.finding(Rule.ITEM_LENGTH, item, sizes))
        if entry.length > length:
            self._findings.keep(Severity.NOTE, self.finding(Rule.ITEM_LENGTH, item, sizes))
        file_offset = self._region.file_offset + entry.offset
        if file_offset + length > self._source.size:
            problem = "lies beyond the end of the file"
            raise TruncatedImageError(self.finding(Rule.REGION_END, item, problem))
        return self._source.pread(file_offset, length)

    def read_optional(self, item: UUID) -> bytes | None:
        """Read an item that is needed for display only; its absence is a note (R61)."""
        try:
            return self.read(item)
        except CorruptImageError as error:
            self._findings.keep(Severity.NOTE, error.finding)
        return None

    def read_integer(self, item: UUID) -> int:
        return int.from_bytes(self.read(item), "little")


def _is_known(entry: layout.MetadataTableEntry) -> bool:
    return entry.item_id in KNOWN_ITEMS and not entry.is_user


def _is_harmless(entry: layout.MetadataTableEntry) -> bool:
    return entry.item_id in HARMLESS_ITEMS and not entry.is_user


def _name(entry: layout.MetadataTableEntry) -> str:
    return item_name(entry.item_id, is_user=entry.is_user)
