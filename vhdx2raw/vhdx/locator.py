"""The parent locator: which version of which file a differencing disk needs (MS-VHDX 2.6.2.6)."""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Finding, Findings, quote
from vhdx2raw.rules import Rule
from vhdx2raw.vhdx import layout

NAME = "metadata item Parent Locator"
PATH_KEYS = ("relative_path", "volume_path", "absolute_win32_path")
"""The keys that hold a path, in the order in which they count (2.6.2.6.3)."""
ENTRIES = "2.6.2.6.2"
"""Section of MS-VHDX about the entries."""

_GUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)


class ParentLocator(NamedTuple):
    """What a child records of its parent.

    Attributes:
        entries: Every key and its value, as they are in the file.
        linkages: The DataWriteGuids that the parent may have.
        reserved: The reserved field, which should be 0.
    """

    entries: dict[str, str]
    linkages: tuple[UUID, ...]
    reserved: int = 0

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the parent by their key, in the order in which they count."""
        return {key: self.entries[key] for key in PATH_KEYS if key in self.entries}


def parse_parent_locator(item: bytes, findings: Findings) -> ParentLocator:
    """Parse the keys and values of a Parent Locator item (R95 to R101).

    Raises:
        UnsupportedImageError: The locator is of another type than VHDX.
        CorruptImageError: It breaks its bounds, or does not say which parent it needs.
    """
    size = layout.PARENT_LOCATOR_HEADER_LAYOUT.size
    if len(item) < size:
        problem = f"is shorter than the {size} bytes of its head"
        raise _corrupt(Rule.LOCATOR_PLACE, problem, f"{len(item)} bytes")
    header = layout.PARENT_LOCATOR_HEADER_LAYOUT.unpack(item)
    entries = _parse_entries(item, header, findings)
    linkage = entries.get("parent_linkage")
    if linkage is None:
        raise _corrupt(Rule.LINKAGE_MISSING, "the key parent_linkage is missing")
    linkages = [_parse_guid("parent_linkage", linkage, findings)]
    if "parent_linkage2" in entries:
        second = _parse_guid("parent_linkage2", entries["parent_linkage2"], findings)
        # Windows writes zeros here, except while a merge is under way (R101).
        linkages += [second] if second != layout.ZERO_GUID else []
    return ParentLocator(entries, tuple(linkages), header.reserved)


def _corrupt(
    rule: Rule, problem: str, found: str = "", spec: str | None = None
) -> CorruptImageError:
    spec = rule.spec if spec is None else spec
    return CorruptImageError(Finding(rule, NAME, problem, found=found, spec=spec))


def _parse_entries(
    item: bytes, header: layout.ParentLocatorHeader, findings: Findings
) -> dict[str, str]:
    if header.locator_type != layout.VHDX_PARENT_LOCATOR:
        problem, found = "is of an unknown type", str(header.locator_type)
        raise UnsupportedImageError(Finding(Rule.LOCATOR_TYPE, NAME, problem, found=found))
    count = header.key_value_count
    if not 1 <= count <= layout.MAX_LOCATOR_ENTRIES:
        problem = f"does not have 1 to {layout.MAX_LOCATOR_ENTRIES} entries"
        raise _corrupt(Rule.LOCATOR_PLACE, problem, str(count))
    start = layout.PARENT_LOCATOR_HEADER_LAYOUT.size
    end = start + count * layout.PARENT_LOCATOR_ENTRY_LAYOUT.size
    if end > len(item):
        raise _corrupt(Rule.LOCATOR_PLACE, "is too short for its entries", f"{count} entries")
    entries: dict[str, str] = {}
    for place in range(start, end, layout.PARENT_LOCATOR_ENTRY_LAYOUT.size):
        entry = layout.PARENT_LOCATOR_ENTRY_LAYOUT.unpack(item, place)
        key = _parse_key(_slice(item, entry.key_offset, entry.key_length), findings)
        raw = _slice(item, entry.value_offset, entry.value_length)
        # Windows file names may hold unpaired surrogates.
        value = _without_nul("value", raw.decode("utf-16-le", errors="surrogatepass"), findings)
        if entries.setdefault(key, value) != value:
            raise _corrupt(Rule.LOCATOR_TEXT, f"the key {quote(key)} has two different values")
    return entries


def _slice(item: bytes, offset: int, length: int) -> bytes:
    if offset == 0 or length == 0 or length % 2 or offset + length > len(item):
        problem, found = (
            "a key or value has an impossible place",
            f"offset {offset}, length {length}",
        )
        raise _corrupt(Rule.LOCATOR_PLACE, problem, found, ENTRIES)
    return item[offset : offset + length]


def _parse_key(raw: bytes, findings: Findings) -> str:
    try:
        return _without_nul("key", raw.decode("utf-16-le"), findings)
    except UnicodeDecodeError:
        raise _corrupt(Rule.LOCATOR_TEXT, "a key is no valid text", raw.hex()) from None


def _without_nul(kind: str, text: str, findings: Findings) -> str:
    if text.endswith("\0"):
        problem = f"a {kind} ends with NUL characters, which are ignored"
        findings.note(Rule.LOCATOR_TEXT, NAME, problem)
    return text.rstrip("\0")


def _parse_guid(key: str, text: str, findings: Findings) -> UUID:
    match = _GUID.fullmatch(text)
    if not match or text.startswith("{") != text.endswith("}"):
        raise _corrupt(Rule.LINKAGE_TEXT, f"{key} is no GUID", ascii(text))
    if not text.startswith("{"):
        problem = f"{key} is a GUID without braces"
        findings.note(Rule.LINKAGE_TEXT, NAME, problem, found=text)
    return UUID(match.group(1))
