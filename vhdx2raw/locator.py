"""The parent locator: which version of which file a differencing disk needs (MS-VHDX 2.6.2.6)."""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from vhdx2raw.errors import (
    CorruptImageError,
    Finding,
    Findings,
    UnsupportedImageError,
    quote,
)
from vhdx2raw.structures import (
    MAX_LOCATOR_ENTRIES,
    VHDX_PARENT_LOCATOR,
    ZERO_GUID,
    ParentLocatorEntry,
    ParentLocatorHeader,
)

SECTION = "metadata item Parent Locator"
PATH_KEYS = ("relative_path", "volume_path", "absolute_win32_path")
"""The keys that hold a path, in the order in which they count (2.6.2.6.3)."""

_GUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)


class ParentLocator(NamedTuple):
    """What a child knows of its parent.

    Attributes:
        entries: Every key and its value, as they are in the file.
        linkages: The DataWriteGuids that the parent may have.
    """

    entries: dict[str, str]
    linkages: tuple[UUID, ...]

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the parent by their key, in the order in which they count."""
        return {key: self.entries[key] for key in PATH_KEYS if key in self.entries}


def read_parent_locator(item: bytes, findings: Findings) -> ParentLocator:
    """Read the keys and values of a Parent Locator item (R95 to R101).

    Raises:
        UnsupportedImageError: The locator is of another type than VHDX.
        CorruptImageError: It breaks its bounds, or does not say which parent it wants.
    """
    entries = _read_entries(item, findings)
    linkage = entries.get("parent_linkage")
    if linkage is None:
        raise _corrupt("R98", "the key parent_linkage is missing", "2.6.2.6.3")
    linkages = [_read_guid("parent_linkage", linkage, findings)]
    if "parent_linkage2" in entries:
        second = _read_guid("parent_linkage2", entries["parent_linkage2"], findings)
        # Windows writes zeros here, except while a merge is under way (R101).
        linkages += [second] if second != ZERO_GUID else []
    return ParentLocator(entries, tuple(linkages))


def _corrupt(rule: str, problem: str, spec: str, found: str = "") -> CorruptImageError:
    return CorruptImageError(Finding(rule, SECTION, problem, spec, found=found))


def _read_entries(item: bytes, findings: Findings) -> dict[str, str]:
    size = ParentLocatorHeader.LAYOUT.size
    if len(item) < size:
        problem = f"is shorter than the {size} bytes of its head"
        raise _corrupt("R95", problem, "2.6.2.6.1", f"{len(item)} bytes")
    header = ParentLocatorHeader.unpack(item)
    if header.locator_type != VHDX_PARENT_LOCATOR:
        problem = "is of an unknown type"
        finding = Finding("R96", SECTION, problem, "2.6.2.6.1", found=str(header.locator_type))
        raise UnsupportedImageError(finding)
    count = header.key_value_count
    if not 1 <= count <= MAX_LOCATOR_ENTRIES:
        problem = f"does not have 1 to {MAX_LOCATOR_ENTRIES} entries"
        raise _corrupt("R95", problem, "2.6.2.6.1", str(count))
    if size + count * ParentLocatorEntry.LAYOUT.size > len(item):
        raise _corrupt("R95", "is too short for its entries", "2.6.2.6.1", f"{count} entries")
    entries: dict[str, str] = {}
    for index in range(count):
        place = size + index * ParentLocatorEntry.LAYOUT.size
        entry = ParentLocatorEntry.unpack(item, place)
        key = _read_key(item, entry, findings)
        value = _read_value(item, entry, findings)
        if entries.setdefault(key, value) != value:
            raise _corrupt("R97", f"the key {quote(key)} has two different values", "2.6.2.6.2")
    return entries


def _slice(item: bytes, offset: int, length: int) -> bytes:
    if offset == 0 or length == 0 or length % 2 or offset + length > len(item):
        problem = "a key or value has an impossible place"
        raise _corrupt("R95", problem, "2.6.2.6.2", f"offset {offset}, length {length}")
    return item[offset : offset + length]


def _read_key(item: bytes, entry: ParentLocatorEntry, findings: Findings) -> str:
    raw = _slice(item, entry.key_offset, entry.key_length)
    try:
        return _without_nul("key", raw.decode("utf-16-le"), findings)
    except UnicodeDecodeError:
        raise _corrupt("R97", "a key is no valid text", "2.6.2.6.2", raw.hex()) from None


def _read_value(item: bytes, entry: ParentLocatorEntry, findings: Findings) -> str:
    raw = _slice(item, entry.value_offset, entry.value_length)
    # Windows file names may hold unpaired surrogates.
    return _without_nul("value", raw.decode("utf-16-le", errors="surrogatepass"), findings)


def _without_nul(kind: str, text: str, findings: Findings) -> str:
    if text.endswith("\0"):
        problem = f"a {kind} ends with NUL characters, which are ignored"
        findings.warn(Finding("R97", SECTION, problem, "2.6.2.6.2"))
    return text.rstrip("\0")


def _read_guid(key: str, text: str, findings: Findings) -> UUID:
    match = _GUID.fullmatch(text)
    if not match or text.startswith("{") != text.endswith("}"):
        raise _corrupt("R99", f"{key} is no GUID", "2.6.2.6.3", ascii(text))
    if not text.startswith("{"):
        problem = f"{key} is a GUID without braces"
        findings.warn(Finding("R99", SECTION, problem, "2.6.2.6.3", found=text))
    return UUID(match.group(1))
