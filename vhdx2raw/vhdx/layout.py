"""Every on-disk layout of MS-VHDX: signatures, GUIDs, fixed offsets, limits, and bytes → fields.

One page to lay beside the specification. It opens no file and makes no choice: a structure that
was unpacked here is parsed, not valid. All integers are unsigned and little-endian. `unpack`
needs at least the fixed size of its structure; those who read see to that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from vhdx2raw.units import KIB, MIB, TIB
from vhdx2raw.vhdx.crc import crc32c

Fields = TypeVar("Fields")

# --- The header section (2.2): everything with a fixed place ------------------------------------

HEADER_SIGNATURE: Final = b"head"
REGION_TABLE_SIGNATURE: Final = b"regi"
LOG_ENTRY_SIGNATURE: Final = b"loge"
METADATA_SIGNATURE: Final = b"metadata"

FILE_IDENTIFIER_SIZE: Final = 520
HEADER_OFFSETS: Final = (64 * KIB, 128 * KIB)
HEADER_SIZE: Final = 4 * KIB
REGION_TABLE_OFFSETS: Final = (192 * KIB, 256 * KIB)
REGION_TABLE_SIZE: Final = 64 * KIB
HEADER_SECTION_SIZE: Final = MIB
STRUCTURE_ALIGNMENT: Final = MIB
"""Regions, the log and all blocks lie at multiples of this (2.2)."""

# --- GUIDs --------------------------------------------------------------------------------------

GUID_SIZE: Final = 16
ZERO_GUID: Final = UUID(int=0)

BAT_REGION: Final = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION: Final = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")

FILE_PARAMETERS: Final = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE: Final = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
VIRTUAL_DISK_ID: Final = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE: Final = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE: Final = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR: Final = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_PARENT_LOCATOR: Final = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")
INCOMPLETE_FILE: Final = UUID("71CC85F0-1B69-4E28-9558-C3BF83AE75D3")
"""Not in MS-VHDX: Microsoft's open parser knows it as the mark of a file still being made."""
CHS_PARAMETERS: Final = UUID("DA02D7BC-3D3A-423C-AC88-2A36AB21479B")
PMEM_LABEL_AREA: Final = UUID("10E1AE8A-4B7E-4169-A40F-CD70DE928393")
"""Nor are these two, the geometry for a BIOS and the labels of persistent memory."""

# --- Limits -------------------------------------------------------------------------------------

MAX_TABLE_ENTRIES: Final = 2047
"""Of the region table (2.2.3.1) and of the metadata table (2.6.1.1)."""
MAX_METADATA_ITEM_LENGTH: Final = MIB
MAX_LOCATOR_ENTRIES: Final = 256
"""Ours: real locators have five."""
MIN_BLOCK_SIZE: Final = MIB
MAX_BLOCK_SIZE: Final = 256 * MIB
MAX_VIRTUAL_DISK_SIZE: Final = 64 * TIB
SECTOR_SIZES: Final = (512, 4096)
MAX_LOG_LENGTH: Final = 1 << 30
"""Ours: the specification gives no bound, and real logs have a few MiB."""
MAX_LOG_DESCRIPTORS: Final = 1 << 18
"""Ours: as many as there are sectors in the longest log."""
MAX_FILE_OFFSET: Final = 256 * TIB
"""Ours, not the specification's: where a block may end. Four times the largest disk leaves space
for every table and for any fragmentation, and it bounds the map of the space in use."""

METADATA_TABLE_SIZE: Final = 64 * KIB
SECTOR_BITMAP_BLOCK_SIZE: Final = MIB
SECTORS_PER_CHUNK: Final = 1 << 23
BAT_ENTRY_SIZE: Final = 8

STATE_MASK: Final = 0x7
RESERVED_MASK: Final = 0xFFFF8
FILE_OFFSET_MASK: Final = 0xFFFF_FFFF_FFF0_0000
"""FileOffsetMB starts at bit 20, so the masked entry *is* the offset in bytes (2.5.1)."""


class PayloadBlockState(IntEnum):
    """State of a payload block (2.5.1.1). `UNMAPPED_V095` is what draft 0.95 called UNMAPPED."""

    NOT_PRESENT = 0
    UNDEFINED = 1
    ZERO = 2
    UNMAPPED = 3
    RESERVED = 4
    UNMAPPED_V095 = 5
    FULLY_PRESENT = 6
    PARTIALLY_PRESENT = 7


class SectorBitmapBlockState(IntEnum):
    """State of a sector bitmap block (2.5.1.2); all other values are reserved."""

    NOT_PRESENT = 0
    PRESENT = 6


def checksum(structure: bytes) -> int:
    """Return the CRC-32C of `structure`, its Checksum field (bytes 4 to 7) counted as zero."""
    return crc32c(structure[8:], crc32c(bytes(4), crc32c(structure[:4])))


class Layout(Generic[Fields]):
    """Where the fields of a structure stand: in their order, 16 bytes being a GUID.

    Attributes:
        size: Its bytes.
    """

    def __init__(self, structure: Callable[..., Fields], layout: str) -> None:
        """Let `layout`, in the words of `struct`, give the fields of `structure`."""
        self._structure = structure
        self._layout = struct.Struct(layout)
        self.size = self._layout.size

    def unpack(self, data: bytes, offset: int = 0) -> Fields:
        fields = self._layout.unpack_from(data, offset)
        return self._structure(*map(_guid_or_plain, fields))


def _guid_or_plain(field: object) -> object:
    return UUID(bytes_le=field) if isinstance(field, bytes) and len(field) == GUID_SIZE else field


class FileTypeIdentifier(NamedTuple):
    """The first structure of the file (2.2.1).

    Attributes:
        signature: ``vhdxfile``.
        creator: Name of the writing program; diagnostics only. Control characters are removed.
    """

    signature: bytes
    creator: str

    @classmethod
    def unpack(cls, data: bytes) -> FileTypeIdentifier:
        signature, creator = struct.unpack_from("<8s512s", data)
        text = creator.decode("utf-16-le", errors="replace").partition("\0")[0]
        return cls(signature, "".join(filter(str.isprintable, text)))


class Header(NamedTuple):
    """One of the two headers (2.2.2)."""

    signature: bytes
    checksum: int
    sequence_number: int
    file_write_guid: UUID
    data_write_guid: UUID
    log_guid: UUID
    log_version: int
    version: int
    log_length: int
    log_offset: int


HEADER_LAYOUT: Final = Layout(Header, "<4sIQ16s16s16sHHIQ")


class RegionTableHeader(NamedTuple):
    """The head of a region table (2.2.3.1)."""

    signature: bytes
    checksum: int
    entry_count: int
    reserved: int


REGION_TABLE_HEADER_LAYOUT: Final = Layout(RegionTableHeader, "<4sIII")


class RegionTableEntry(NamedTuple):
    """One region (2.2.3.2). Bit 0 of `required` is the flag, its other bits are reserved."""

    guid: UUID
    file_offset: int
    length: int
    required: int


REGION_TABLE_ENTRY_LAYOUT: Final = Layout(RegionTableEntry, "<16sQII")


class MetadataTableHeader(NamedTuple):
    """The head of the metadata table (2.6.1.1)."""

    signature: bytes
    reserved: int
    entry_count: int
    reserved2: bytes


METADATA_TABLE_HEADER_LAYOUT: Final = Layout(MetadataTableHeader, "<8sHH20s")


class MetadataTableEntry(NamedTuple):
    """One metadata item: what it is and where in the metadata region it lies (2.6.1.2)."""

    item_id: UUID
    offset: int
    length: int
    flags: int
    reserved2: int

    @property
    def is_user(self) -> bool:
        """Whether the item belongs to the name space of users."""
        return bool(self.flags & ITEM_IS_USER)

    @property
    def is_required(self) -> bool:
        """Whether a reader that does not know the item must refuse the file."""
        return bool(self.flags & ITEM_IS_REQUIRED)


METADATA_TABLE_ENTRY_LAYOUT: Final = Layout(MetadataTableEntry, "<16sIIII")
ITEM_IS_USER: Final = 1
ITEM_IS_VIRTUAL_DISK: Final = 2
ITEM_IS_REQUIRED: Final = 4
ITEM_RESERVED_FLAGS: Final = 0xFFFF_FFF8


class FileParameters(NamedTuple):
    """The File Parameters item (2.6.2.1)."""

    block_size: int
    flags: int


FILE_PARAMETERS_LAYOUT: Final = Layout(FileParameters, "<II")
DISK_LEAVE_BLOCK_ALLOCATED: Final = 1
DISK_HAS_PARENT: Final = 2
DISK_RESERVED_FLAGS: Final = 0xFFFF_FFFC


class LogEntryHeader(NamedTuple):
    """The head of a log entry (2.3.1.1)."""

    signature: bytes
    checksum: int
    entry_length: int
    tail: int
    sequence_number: int
    descriptor_count: int
    reserved: int
    log_guid: UUID
    flushed_file_offset: int
    last_file_offset: int


LOG_ENTRY_HEADER_LAYOUT: Final = Layout(LogEntryHeader, "<4sIIIQII16sQQ")


LOG_DESCRIPTOR: Final = struct.Struct("<4s4s8sQQ")
"""A zero or data descriptor (2.3.1.2, 2.3.1.3), which differ in the second and third field:
signature; trailing bytes, or reserved; leading bytes, or the length of the zeros; file offset;
sequence number. No class: a log can hold a quarter of a million of them."""
ZERO_DESCRIPTOR_SIGNATURE: Final = b"zero"
DATA_DESCRIPTOR_SIGNATURE: Final = b"desc"
DATA_SECTOR_SIGNATURE: Final = b"data"
LOG_SECTOR_SIZE: Final = 4 * KIB
LEADING_SIZE: Final = 8
TRAILING_SIZE: Final = 4
"""What of a data sector the log needs for itself (2.3.1.4), and keeps in the descriptor."""


class ParentLocatorHeader(NamedTuple):
    """The head of the Parent Locator item (2.6.2.6.1)."""

    locator_type: UUID
    reserved: int
    key_value_count: int


PARENT_LOCATOR_HEADER_LAYOUT: Final = Layout(ParentLocatorHeader, "<16sHH")


class ParentLocatorEntry(NamedTuple):
    """One key and its value (2.6.2.6.2): offsets in the item, lengths in bytes."""

    key_offset: int
    value_offset: int
    key_length: int
    value_length: int


PARENT_LOCATOR_ENTRY_LAYOUT: Final = Layout(ParentLocatorEntry, "<IIHH")
