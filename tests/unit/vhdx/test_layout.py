"""Every layout is read as MS-VHDX draws it; hand-made bytes and vectors from real files."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhdx2raw.source.formats import FILE_SIGNATURE
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.layout import (
    DISK_HAS_PARENT,
    FILE_PARAMETERS_LAYOUT,
    HEADER_LAYOUT,
    LOG_ENTRY_HEADER_LAYOUT,
    METADATA_TABLE_ENTRY_LAYOUT,
    METADATA_TABLE_HEADER_LAYOUT,
    PARENT_LOCATOR_ENTRY_LAYOUT,
    PARENT_LOCATOR_HEADER_LAYOUT,
    REGION_TABLE_ENTRY_LAYOUT,
    REGION_TABLE_HEADER_LAYOUT,
    FileParameters,
    FileTypeIdentifier,
    Header,
    LogEntryHeader,
    MetadataTableEntry,
    MetadataTableHeader,
    ParentLocatorEntry,
    ParentLocatorHeader,
    PayloadBlockState,
    RegionTableEntry,
    RegionTableHeader,
    SectorBitmapBlockState,
    checksum,
)

GUID_BYTES = [
    (layout.BAT_REGION, "6677C22D23F600429D64115E9BFD4A08"),
    (layout.METADATA_REGION, "06A27C8B90479A4BB8FE575F050F886E"),
    (layout.FILE_PARAMETERS, "3767A1CA36FA434DB3B633F0AA44E76B"),
    (layout.VIRTUAL_DISK_SIZE, "2442A52F1BCD7648B2115DBED83BF4B8"),
    (layout.VIRTUAL_DISK_ID, "AB12CABEE6B2234593EFC309E000C746"),
    (layout.LOGICAL_SECTOR_SIZE, "1DBF41816FA90947BA47F233A8FAAB5F"),
    (layout.PHYSICAL_SECTOR_SIZE, "C748A3CD5D4471449CC9E9885251C556"),
    (layout.PARENT_LOCATOR, "2D5FD3A80BB34D45ABF7D3D84834AB0C"),
    (layout.VHDX_PARENT_LOCATOR, "B7EF4AB09ED1814AB78925B8E9445913"),
    (layout.INCOMPLETE_FILE, "F085CC71691B284E9558C3BF83AE75D3"),
    (layout.CHS_PARAMETERS, "BCD702DA3A3D3C42AC882A36AB21479B"),
    (layout.PMEM_LABEL_AREA, "8AAEE1107E4B6941A40FCD70DE928393"),
    (layout.ZERO_GUID, "00" * 16),
]
REGION_ENTRY_BAT = bytes.fromhex(
    "6677C22D23F600429D64115E9BFD4A08 0000300000000000 00001000 01000000"
)
REGION_ENTRY_METADATA = bytes.fromhex(
    "06A27C8B90479A4BB8FE575F050F886E 0000200000000000 00001000 01000000"
)
HYPER_V_HEADER = bytes.fromhex(
    "68656164 1688D6B8 0600000000000000"
    "492FD0C3C3C9864C93D5F0789E073081"
    "A189C1BF1C75FF44B60F98D07B2950C0"
    "00000000000000000000000000000000"
    "0000 0100 00001000 0000100000000000"
).ljust(4096, b"\0")
EMPTY_LOG_ENTRY = (
    bytes.fromhex("6C6F6765 9189 8DF0 00100000 00000000 53E53F0664A21C01 00000000 00000000")
    + UUID("e6fc743c-81ed-4fe8-bf54-698ed57ba0b8").bytes_le
    + bytes.fromhex("0000400000000000 0000400000000000")
).ljust(4096, b"\0")


def region_table(*entries: bytes) -> bytes:
    head = b"regi" + struct.pack("<III", 0, len(entries), 0)
    return (head + b"".join(entries)).ljust(65536, b"\0")


def crc_bit_by_bit(data: bytes) -> int:
    """Compute CRC-32C from its definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def identifier(creator: bytes) -> FileTypeIdentifier:
    return FileTypeIdentifier.unpack(b"vhdxfile" + creator.ljust(512, b"\0"))


# -- checksums -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (bytes(4096), 0x98F94189),
        (bytes(65536), 0x72C0C4A4),
        (region_table(REGION_ENTRY_BAT, REGION_ENTRY_METADATA), 0xC66B8CAE),
        (region_table(REGION_ENTRY_METADATA, REGION_ENTRY_BAT), 0x1C142859),
        (HYPER_V_HEADER, 0xB8D68816),
        (EMPTY_LOG_ENTRY, 0xF08D8991),
    ],
    ids=["32", "4096", "65536", "hyper-v table", "disk2vhd table", "header", "log entry"],
)
def test_checksums_of_real_structures(structure: bytes, expected: int) -> None:
    assert checksum(structure) == expected


@given(st.binary(min_size=8, max_size=100))
def test_checksum_is_crc_32c_with_its_field_as_zero(structure: bytes) -> None:
    bare = structure[:4] + bytes(4) + structure[8:]
    assert checksum(structure) == checksum(bare) == crc_bit_by_bit(bare)


@pytest.mark.parametrize(
    ("data", "expected"), [(b"123456789", 0xE3069283), (b"\xff" * 32, 0x62A8AB43), (b"", 0)]
)
def test_crc_bit_by_bit_gives_the_known_vectors(data: bytes, expected: int) -> None:
    assert crc_bit_by_bit(data) == expected


# -- constants -------------------------------------------------------------------------------


@pytest.mark.parametrize(("guid", "on_disk"), GUID_BYTES)
def test_guids_have_the_bytes_that_files_have(guid: UUID, on_disk: str) -> None:
    assert guid.bytes_le == bytes.fromhex(on_disk)


def test_fixed_places_and_limits() -> None:
    assert layout.HEADER_OFFSETS == (65536, 131072)
    assert layout.REGION_TABLE_OFFSETS == (196608, 262144)
    assert layout.HEADER_SIZE == 4096
    assert layout.REGION_TABLE_SIZE == layout.METADATA_TABLE_SIZE == 65536
    assert layout.HEADER_SECTION_SIZE == layout.SECTOR_BITMAP_BLOCK_SIZE == 1 << 20
    assert layout.MAX_TABLE_ENTRIES == 2047
    assert layout.MAX_BLOCK_SIZE == 0x10000000
    assert layout.MAX_VIRTUAL_DISK_SIZE == 0x400000000000
    assert layout.SECTORS_PER_CHUNK == 2**23


@pytest.mark.parametrize(
    ("signature", "on_disk"),
    [
        (FILE_SIGNATURE, "76 68 64 78 66 69 6C 65"),
        (layout.HEADER_SIGNATURE, "68 65 61 64"),
        (layout.REGION_TABLE_SIGNATURE, "72 65 67 69"),
        (layout.METADATA_SIGNATURE, "6D 65 74 61 64 61 74 61"),
        (layout.LOG_ENTRY_SIGNATURE, "6C 6F 67 65"),
        (layout.ZERO_DESCRIPTOR_SIGNATURE, "7A 65 72 6F"),
        (layout.DATA_DESCRIPTOR_SIGNATURE, "64 65 73 63"),
        (layout.DATA_SECTOR_SIGNATURE, "64 61 74 61"),
    ],
)
def test_signatures_are_compared_as_bytes(signature: bytes, on_disk: str) -> None:
    assert signature == bytes.fromhex(on_disk)


def test_block_states_have_the_numbers_of_the_format() -> None:
    assert [state.name for state in sorted(PayloadBlockState)] == [
        "NOT_PRESENT",
        "UNDEFINED",
        "ZERO",
        "UNMAPPED",
        "RESERVED",
        "UNMAPPED_V095",
        "FULLY_PRESENT",
        "PARTIALLY_PRESENT",
    ]
    assert sorted(PayloadBlockState) == list(range(8))
    assert sorted(SectorBitmapBlockState) == [0, 6]


@pytest.mark.parametrize(
    ("entry", "state", "file_offset"),
    [
        (0x0000000000A00006, PayloadBlockState.FULLY_PRESENT, 0xA00000),
        (0x0000000000000002, PayloadBlockState.ZERO, 0),
        (0x0000000000400007, PayloadBlockState.PARTIALLY_PRESENT, 4 << 20),
        (0xFFFFFFFFFFF00000, PayloadBlockState.NOT_PRESENT, (2**44 - 1) << 20),
    ],
)
def test_masks_take_a_bat_entry_apart(entry: int, state: int, file_offset: int) -> None:
    assert entry & layout.STATE_MASK == state
    assert entry & layout.FILE_OFFSET_MASK == file_offset
    assert entry & layout.RESERVED_MASK == 0


def test_masks_cover_a_bat_entry_once() -> None:
    masks = layout.STATE_MASK, layout.RESERVED_MASK, layout.FILE_OFFSET_MASK
    assert sum(masks) == 2**64 - 1


# -- layouts ---------------------------------------------------------------------------------


def test_layouts_have_the_sizes_of_the_format() -> None:
    assert HEADER_LAYOUT.size == 80
    assert REGION_TABLE_HEADER_LAYOUT.size == 16
    assert REGION_TABLE_ENTRY_LAYOUT.size == 32
    assert METADATA_TABLE_HEADER_LAYOUT.size == 32
    assert METADATA_TABLE_ENTRY_LAYOUT.size == 32
    assert FILE_PARAMETERS_LAYOUT.size == 8
    assert LOG_ENTRY_HEADER_LAYOUT.size == 64
    assert layout.LOG_DESCRIPTOR.size == 32
    assert PARENT_LOCATOR_HEADER_LAYOUT.size == 20
    assert PARENT_LOCATOR_ENTRY_LAYOUT.size == 12


def test_header_of_a_hyper_v_file() -> None:
    assert HEADER_LAYOUT.unpack(HYPER_V_HEADER) == Header(
        signature=b"head",
        checksum=0xB8D68816,
        sequence_number=6,
        file_write_guid=UUID("c3d02f49-c9c3-4c86-93d5-f0789e073081"),
        data_write_guid=UUID("bfc189a1-751c-44ff-b60f-98d07b2950c0"),
        log_guid=layout.ZERO_GUID,
        log_version=0,
        version=1,
        log_length=0x100000,
        log_offset=0x100000,
    )


def test_header_fields_do_not_mix() -> None:
    """Every field has a value of its own, the version of the log comes before the version."""
    raw = bytes(range(80))
    header = HEADER_LAYOUT.unpack(raw)
    assert header.signature == raw[:4]
    assert header.checksum == int.from_bytes(raw[4:8], "little")
    assert header.sequence_number == int.from_bytes(raw[8:16], "little")
    assert header.file_write_guid.bytes_le == raw[16:32]
    assert header.data_write_guid.bytes_le == raw[32:48]
    assert header.log_guid.bytes_le == raw[48:64]
    assert header.log_version == 0x4140
    assert header.version == 0x4342
    assert header.log_length == 0x47464544
    assert header.log_offset == int.from_bytes(raw[72:80], "little")


def test_region_table_of_a_hyper_v_file() -> None:
    entries = region_table(REGION_ENTRY_BAT, REGION_ENTRY_METADATA)[16:]
    table = b"regi" + bytes.fromhex("AE8C6BC6 02000000 78563412") + entries
    assert REGION_TABLE_HEADER_LAYOUT.unpack(table) == RegionTableHeader(
        b"regi", 0xC66B8CAE, 2, 0x12345678
    )
    assert REGION_TABLE_ENTRY_LAYOUT.unpack(table, 16) == RegionTableEntry(
        layout.BAT_REGION, 0x300000, 0x100000, 1
    )
    assert REGION_TABLE_ENTRY_LAYOUT.unpack(table, 48) == RegionTableEntry(
        layout.METADATA_REGION, 0x200000, 0x100000, 1
    )


def test_last_region_entry_of_a_full_table() -> None:
    table = region_table(*[REGION_ENTRY_BAT] * 2046, REGION_ENTRY_METADATA)
    assert REGION_TABLE_ENTRY_LAYOUT.unpack(table, 16 + 32 * 2046).guid == layout.METADATA_REGION


def test_metadata_table_head() -> None:
    raw = b"metadata" + struct.pack("<HH", 0xABCD, 2047) + bytes(range(20))
    header = METADATA_TABLE_HEADER_LAYOUT.unpack(raw)
    assert header == MetadataTableHeader(b"metadata", 0xABCD, 2047, bytes(range(20)))


@pytest.mark.parametrize("index", [0, 1, 2046])
def test_metadata_table_entry(index: int) -> None:
    table = bytearray(65536)
    offset = 32 + 32 * index
    packed = struct.pack("<IIII", 0x10028, 0x3F6, 4, 0x77)
    table[offset : offset + 32] = layout.PARENT_LOCATOR.bytes_le + packed
    entry = METADATA_TABLE_ENTRY_LAYOUT.unpack(bytes(table), offset)
    assert entry == MetadataTableEntry(layout.PARENT_LOCATOR, 0x10028, 0x3F6, 4, 0x77)


@pytest.mark.parametrize("flags", range(8))
def test_metadata_flags(flags: int) -> None:
    entry = MetadataTableEntry(layout.ZERO_GUID, 0, 0, flags, 0)
    assert (entry.is_user, entry.is_required) == (bool(flags & 1), bool(flags & 4))


def test_file_parameters() -> None:
    raw = bytes.fromhex("00002000 02000000")
    assert FILE_PARAMETERS_LAYOUT.unpack(raw) == FileParameters(2 << 20, DISK_HAS_PARENT)


def test_log_entry_of_a_hyper_v_file() -> None:
    assert LOG_ENTRY_HEADER_LAYOUT.unpack(EMPTY_LOG_ENTRY) == LogEntryHeader(
        signature=b"loge",
        checksum=0xF08D8991,
        entry_length=4096,
        tail=0,
        sequence_number=0x011CA264063FE553,
        descriptor_count=0,
        reserved=0,
        log_guid=UUID("e6fc743c-81ed-4fe8-bf54-698ed57ba0b8"),
        flushed_file_offset=0x400000,
        last_file_offset=0x400000,
    )


def test_log_descriptor() -> None:
    raw = b"desc" + b"tail" + b"leading!" + struct.pack("<QQ", 0x300000, 7)
    assert layout.LOG_DESCRIPTOR.unpack(raw) == (b"desc", b"tail", b"leading!", 0x300000, 7)


def test_parent_locator() -> None:
    """The first 44 bytes of the locator of golden image G3."""
    raw = bytes.fromhex(
        "B7EF4AB09ED1814AB78925B8E9445913 0000 0200"
        "2C000000 48000000 1C00 4C00 94000000 AE000000 1A00 1200"
    )
    vhdx = layout.VHDX_PARENT_LOCATOR
    assert PARENT_LOCATOR_HEADER_LAYOUT.unpack(raw) == ParentLocatorHeader(vhdx, 0, 2)
    assert PARENT_LOCATOR_ENTRY_LAYOUT.unpack(raw, 20) == ParentLocatorEntry(44, 72, 28, 76)
    assert PARENT_LOCATOR_ENTRY_LAYOUT.unpack(raw, 32) == ParentLocatorEntry(148, 174, 26, 18)


# -- the creator -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("creator", "text"),
    [
        (b"", ""),
        ("Microsoft Windows 10.0.18363.0".encode("utf-16-le"), "Microsoft Windows 10.0.18363.0"),
        ("d2v\0left over".encode("utf-16-le"), "d2v"),
        ("x".encode("utf-16-le") * 256, "x" * 256),
        ("\x1b[31mred\x1b[0m\r\n\a".encode("utf-16-le"), "[31mred[0m"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}txt.exe\u009b2J".encode("utf-16-le"), "txt.exe2J"),
        ("a\ud800b".encode("utf-16-le", "surrogatepass"), "a\N{REPLACEMENT CHARACTER}b"),
        ("\udc00".encode("utf-16-le", "surrogatepass") * 256, None),
        ("Größe \N{GRINNING FACE}".encode("utf-16-le"), "Größe \N{GRINNING FACE}"),
    ],
    ids=["empty", "windows", "nul", "full", "escapes", "bidi", "lone", "all lone", "unicode"],
)
def test_creator_is_decoded_leniently_and_printable(creator: bytes, text: str | None) -> None:
    found = identifier(creator).creator
    assert text is None or found == text
    assert found.isprintable()
    found.encode()


@given(st.binary(max_size=512))
def test_any_creator_can_be_printed(creator: bytes) -> None:
    found = identifier(creator)
    assert found.signature == b"vhdxfile"
    assert found.creator.isprintable()
    found.creator.encode()
