"""The parent locator item of a differencing disk, right or wrong in any field."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from .layout import VHDX_LOCATOR_TYPE

_HEADER = struct.Struct("<16sHH")
_ENTRY = struct.Struct("<IIHH")


@dataclass
class LocatorEntrySpec:
    """One key and value; bytes are stored as they are, None means the right number."""

    key: str | bytes
    value: str | bytes
    key_offset: int | None = None
    value_offset: int | None = None
    key_length: int | None = None
    value_length: int | None = None


LocatorEntries = Mapping[str, str] | Iterable[tuple[str, str] | LocatorEntrySpec]


def linkage_text(guid: UUID) -> str:
    """Give a GUID as Windows writes it into a locator: lowercase, in braces."""
    return f"{{{guid}}}"


def parent_locator(
    entries: LocatorEntries,
    *,
    locator_type: UUID = VHDX_LOCATOR_TYPE,
    count: int | None = None,
    reserved: int = 0,
    gap: bytes = b"",
    trailing: bytes = b"",
) -> bytes:
    """Give the item: header, entry table, `gap`, then key, value, key, value, then `trailing`."""
    specs = _entry_specs(entries)
    strings = bytearray(gap)
    start = _HEADER.size + _ENTRY.size * len(specs)
    table = bytearray()
    for spec in specs:
        key, value = _utf16(spec.key), _utf16(spec.value)
        key_offset = start + len(strings)
        strings += key + value
        table += _ENTRY.pack(
            key_offset if spec.key_offset is None else spec.key_offset,
            key_offset + len(key) if spec.value_offset is None else spec.value_offset,
            len(key) if spec.key_length is None else spec.key_length,
            len(value) if spec.value_length is None else spec.value_length,
        )
    header = _HEADER.pack(locator_type.bytes_le, reserved, len(specs) if count is None else count)
    return header + bytes(table) + bytes(strings) + trailing


def _entry_specs(entries: LocatorEntries) -> list[LocatorEntrySpec]:
    pairs = entries.items() if isinstance(entries, Mapping) else entries
    return [e if isinstance(e, LocatorEntrySpec) else LocatorEntrySpec(*e) for e in pairs]


def _utf16(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-16-le", "surrogatepass")
