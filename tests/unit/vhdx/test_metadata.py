"""The metadata table as a whole, and which items a reader needs (R54 to R62, R94)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    FILE_PARAMETERS,
    IS_REQUIRED,
    IS_USER,
    IS_VIRTUAL_DISK,
    KIB,
    LOGICAL_SECTOR_SIZE,
    MIB,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    Block,
    ImageSpec,
    MetadataItemSpec,
    golden_g1,
    golden_g3,
    parent_locator,
    same_bytes_guid,
)
from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Findings
from vhdx2raw.vhdx.locator import parse_parent_locator
from vhdx2raw.vhdx.metadata import Metadata

UNKNOWN = UUID("0b5e55ed-0000-4000-8000-000000000002")
INCOMPLETE = UUID("71CC85F0-1B69-4E28-9558-C3BF83AE75D3")
CHS = UUID("DA02D7BC-3D3A-423C-AC88-2A36AB21479B")
PMEM = UUID("10E1AE8A-4B7E-4169-A40F-CD70DE928393")
ITEM_AREA = 0x10000
NEEDED = [
    (FILE_PARAMETERS, "File Parameters", 8),
    (VIRTUAL_DISK_SIZE, "Virtual Disk Size", 8),
    (LOGICAL_SECTOR_SIZE, "Logical Sector Size", 4),
]
DISPLAYED = [
    (VIRTUAL_DISK_ID, "Virtual Disk ID", 16),
    (PHYSICAL_SECTOR_SIZE, "Physical Sector Size", 4),
]


def with_item(item: MetadataItemSpec) -> ImageSpec:
    """Give the base with one more item, the sixth."""
    spec = golden_g1()
    spec.metadata.items[-1] = item
    return spec


def with_field(guid: UUID, **fields: int) -> ImageSpec:
    """Give the base with some fields of an item changed."""
    spec = golden_g1()
    for name, value in fields.items():
        setattr(spec.metadata.item(guid), name, value)
    return spec


# -- the table -------------------------------------------------------------------------------


def test_a_table_without_its_signature_is_corrupt(bench: Bench) -> None:
    spec = golden_g1()
    spec.metadata.signature = b"Metadata"
    pattern = (
        r"metadata table at file offset 0x200000: the signature metadata is missing "
        r"\(MS-VHDX 2.6.1.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R54", pattern)


@pytest.mark.parametrize("count", [2048, 65535])
def test_a_table_with_too_many_entries_is_corrupt(bench: Bench, count: int) -> None:
    spec = golden_g1()
    spec.metadata.entry_count = count
    pattern = f"metadata table .*: it claims {count} entries, at most 2047 fit"
    bench.assert_refused(spec, CorruptImageError, "R54", pattern)


def test_a_full_table_is_read(bench: Bench) -> None:
    spec = golden_g1()
    spec.metadata.items += [
        MetadataItemSpec(UUID(int=i + 1), b"", IS_USER * (i % 2)) for i in range(2042)
    ]
    spec.write(bench.path)
    assert bench.path.read_bytes()[2 * MIB + 10 : 2 * MIB + 12] == (2047).to_bytes(2, "little")
    bench.assert_reads(spec)


@pytest.mark.parametrize(
    ("reserved", "reserved2"), [(1, bytes(20)), (0, bytes(19) + b"\x80"), (1, b"\x01" * 20)]
)
def test_reserved_fields_of_the_table_are_a_note(
    bench: Bench, reserved: int, reserved2: bytes
) -> None:
    spec = golden_g1()
    spec.metadata.reserved, spec.metadata.reserved2 = reserved, reserved2
    pattern = "metadata table at file offset 0x200000: reserved fields are not zero"
    bench.assert_reads(spec, ("R54", pattern))


# -- needed items ----------------------------------------------------------------------------


@pytest.mark.parametrize(("guid", "name", "length"), NEEDED)
def test_a_needed_item_that_is_missing_is_corrupt(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    spec = golden_g1()
    spec.metadata.remove(guid)
    pattern = rf"metadata item {name}: is missing \(MS-VHDX 2.6.2.\d\)"
    bench.assert_refused(spec, CorruptImageError, "R61", pattern)


@pytest.mark.parametrize(("guid", "name", "length"), NEEDED)
def test_a_needed_item_that_is_too_short_is_corrupt(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    for short in (0, 1, length - 1):
        spec = with_field(guid, length=short)
        pattern = (
            rf"metadata item {name} at file offset 0x2.*: "
            rf"is {short} bytes long instead of {length} \(MS-VHDX 2.6.2.\d\)"
        )
        bench.assert_refused(spec, CorruptImageError, "R62", pattern)


@pytest.mark.parametrize(("guid", "name", "length"), NEEDED + DISPLAYED)
def test_item_that_is_too_long_is_a_note(bench: Bench, guid: UUID, name: str, length: int) -> None:
    spec = golden_g1()
    item = spec.metadata.item(guid)
    item.data = spec.metadata_values()[guid] + b"\xee" * 8
    pattern = rf"metadata item {name} .*: is {length + 8} bytes long instead of {length} "
    bench.assert_reads(spec, ("R62", pattern))


BAD_RANGES = pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"offset": 0xFFF0}, "its offset 0xfff0 lies inside the metadata table"),
        ({"offset": 32}, "its offset 0x20 lies inside the metadata table"),
        ({"offset": MIB - 3}, "its end 0x1000.* lies past the metadata region"),
        ({"offset": 0xFFFFFFFF}, "its end 0x1000000.* lies past the metadata region"),
        ({"length": MIB + 1}, "its length of 1048577 bytes is above 1 MiB"),
        ({"length": 0xFFFFFFFF}, "its length of 4294967295 bytes is above 1 MiB"),
        ({"length": MIB}, "its end 0x1100.. lies past the metadata region"),
    ],
)


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed[1])
@BAD_RANGES
def test_a_needed_item_outside_its_area_is_corrupt(
    bench: Bench, needed: tuple[UUID, str, int], fields: dict[str, int], problem: str
) -> None:
    guid, name, _ = needed
    pattern = rf"metadata item {name} at file offset 0x.*: {problem} \(MS-VHDX 2.6.1.2\)"
    bench.assert_refused(with_field(guid, **fields), CorruptImageError, "R55", pattern)


def test_items_may_be_unaligned_and_in_any_order(bench: Bench) -> None:
    spec = golden_g1()
    spec.metadata.items.reverse()
    offsets = [ITEM_AREA + 777, MIB - 16, ITEM_AREA, ITEM_AREA + 4001, ITEM_AREA + 17]
    for item, offset in zip(spec.metadata.items[1:], offsets, strict=True):
        item.offset = offset
    bench.assert_reads(spec)


def test_an_item_may_fill_the_region_to_its_end(bench: Bench) -> None:
    bench.assert_reads(with_field(LOGICAL_SECTOR_SIZE, offset=MIB - 4))


# -- items for display -----------------------------------------------------------------------


@pytest.mark.parametrize(("guid", "name", "length"), DISPLAYED)
def test_missing_item_for_display_is_a_note(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    spec = golden_g1()
    spec.metadata.remove(guid)
    image = bench.assert_reads(spec, ("R61", f"metadata item {name}: is missing"))
    assert_default(image.metadata, guid)


@pytest.mark.parametrize(("guid", "name", "length"), DISPLAYED)
def test_short_item_for_display_is_a_note(bench: Bench, guid: UUID, name: str, length: int) -> None:
    for short in (0, length - 1):
        spec = with_field(guid, length=short)
        pattern = f"metadata item {name} .*: is {short} bytes long instead of {length}"
        image = bench.assert_reads(spec, ("R62", pattern))
        assert_default(image.metadata, guid)


@pytest.mark.parametrize(("guid", "name", "length"), DISPLAYED)
def test_misplaced_item_for_display_is_a_note(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    pattern = f"metadata item {name} .*: its offset 0x8000 lies inside the metadata table"
    image = bench.assert_reads(with_field(guid, offset=32 * KIB), ("R55", pattern))
    assert_default(image.metadata, guid)


@pytest.mark.parametrize(("guid", "name", "length"), DISPLAYED)
def test_item_for_display_past_the_end_is_a_note(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    spec = with_field(guid, offset=MIB - length)
    spec.metadata_offset, spec.blocks[0].file_offset = 5 * MIB, 4 * MIB
    spec.file_size = 6 * MIB - 1
    pattern = f"metadata item {name} at file offset 0x5ffff.: lies beyond the end of the file"
    image = bench.assert_reads(spec, ("R52", pattern))
    assert_default(image.metadata, guid)


def assert_default(metadata: Metadata, guid: UUID) -> None:
    """Check what is shown instead of an item that could not be read."""
    if guid == VIRTUAL_DISK_ID:
        assert metadata.virtual_disk_id is None
    else:
        assert metadata.physical_sector_size == metadata.logical_sector_size == 512


# -- unknown items, user items ---------------------------------------------------------------


@pytest.mark.parametrize("flags", [IS_REQUIRED, IS_REQUIRED | IS_VIRTUAL_DISK])
@pytest.mark.parametrize(
    ("guid", "user"),
    [
        (UNKNOWN, 0),
        (UNKNOWN, IS_USER),
        (INCOMPLETE, IS_USER),
        (FILE_PARAMETERS, IS_USER),
        (CHS, IS_USER),
        (PMEM, IS_USER),
    ],
)
def test_an_unknown_required_item_is_unsupported(
    bench: Bench, guid: UUID, user: int, flags: int
) -> None:
    """A known GUID among the user items is another item, and unknown."""
    pattern = (
        f"metadata item {guid} at file offset 0x2000c0: "
        "the file requires this item, which this program does not know"
    )
    spec = with_item(MetadataItemSpec(guid, b"12345678", flags | user))
    bench.assert_refused(spec, UnsupportedImageError, "R58", pattern)


@pytest.mark.parametrize("flags", [0, IS_REQUIRED])
def test_file_of_unfinished_creation_is_refused(bench: Bench, flags: int) -> None:
    pattern = (
        f"metadata item {INCOMPLETE} at file offset 0x2000c0: "
        "marks a file whose creation was never finished"
    )
    spec = with_item(MetadataItemSpec(INCOMPLETE, b"", flags))
    bench.assert_refused(spec, CorruptImageError, "R58", pattern)


@pytest.mark.parametrize("flags", [0, IS_VIRTUAL_DISK, IS_USER, IS_USER | IS_VIRTUAL_DISK])
@pytest.mark.parametrize("data", [b"", b"anything"])
def test_an_unknown_optional_item_is_accepted(bench: Bench, flags: int, data: bytes) -> None:
    bench.assert_reads(with_item(MetadataItemSpec(UNKNOWN, data, flags)))


@pytest.mark.parametrize("flags", [0, IS_VIRTUAL_DISK, IS_REQUIRED, IS_REQUIRED | IS_VIRTUAL_DISK])
@pytest.mark.parametrize("data", [b"", b"\x10\0\0\0\x3f\0\0\0", bytes(128 << 10)])
@pytest.mark.parametrize("guid", [CHS, PMEM])
def test_an_item_that_changes_no_byte_of_the_disk_is_accepted_though_it_is_required(
    bench: Bench, guid: UUID, data: bytes, flags: int
) -> None:
    """Microsoft's own reader knows the geometry for a BIOS and the labels of memory (R58)."""
    bench.assert_reads(with_item(MetadataItemSpec(guid, data, flags)))


@pytest.mark.parametrize(("guid", "name"), [(CHS, "CHS Parameters"), (PMEM, "PMEM Label Storage")])
def test_the_place_of_an_item_that_is_not_read_is_worth_a_warning(
    bench: Bench, guid: UUID, name: str
) -> None:
    spec = with_item(MetadataItemSpec(guid, b"", IS_REQUIRED, offset=0x20000, length=2 * MIB))
    bench.assert_reads(spec, ("R55", f"metadata item {name}.*above 1 MiB; ignored"))


@pytest.mark.parametrize("first", [True, False])
def test_a_user_item_with_a_known_guid_is_another_item(
    bench: Bench,
    first: bool,  # noqa: FBT001
) -> None:
    spec = golden_g1()
    place = 0 if first else len(spec.metadata.items)
    fake = MetadataItemSpec(VIRTUAL_DISK_SIZE, bytes(8), IS_USER)
    spec.metadata.items.insert(place, fake)
    bench.assert_reads(spec)


@BAD_RANGES
def test_an_unknown_item_outside_its_area_is_a_note(
    bench: Bench, fields: dict[str, int], problem: str
) -> None:
    spec = with_item(
        MetadataItemSpec(UNKNOWN, bytes(8), 0, **({"offset": ITEM_AREA + 64} | fields))
    )
    pattern = f"metadata item {UNKNOWN} at file offset 0x2000c0: {problem}; ignored"
    bench.assert_reads(spec, ("R55", pattern))


# -- flags, duplicates, overlaps -------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, IS_VIRTUAL_DISK, IS_REQUIRED])
def test_the_flags_of_known_items_do_not_count(bench: Bench, flags: int) -> None:
    spec = golden_g1()
    for item in spec.metadata.items:
        item.flags = flags
    bench.assert_reads(spec)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda spec: setattr(spec.metadata.items[1], "flags", 8 | IS_REQUIRED), "Virtual Disk"),
        (lambda spec: setattr(spec.metadata.items[1], "flags", 0x80000006), "Virtual Disk Size"),
        (lambda spec: setattr(spec.metadata.items[1], "reserved", 1), "Virtual Disk Size"),
    ],
    ids=["bit 3", "bit 31", "field"],
)
def test_reserved_bits_of_an_item_are_a_note(
    bench: Bench, change: Callable[[ImageSpec], None], name: str
) -> None:
    spec = golden_g1()
    change(spec)
    pattern = (
        f"metadata item {name}.* at file offset 0x200040: reserved bits or fields are not zero"
    )
    bench.assert_reads(spec, ("R60", pattern))


@pytest.mark.parametrize(("guid", "name", "length"), NEEDED + DISPLAYED)
def test_a_known_item_listed_twice_is_corrupt(
    bench: Bench, guid: UUID, name: str, length: int
) -> None:
    spec = with_item(MetadataItemSpec(guid, bytes(length)))
    pattern = rf"metadata item {name} at file offset 0x2000c0: is listed twice \(MS-VHDX 2.6.1.2\)"
    bench.assert_refused(spec, CorruptImageError, "R57", pattern)


@pytest.mark.parametrize("flags", [0, IS_USER])
def test_another_item_listed_twice_is_a_warning(bench: Bench, flags: int) -> None:
    spec = golden_g1()
    spec.metadata.items += [MetadataItemSpec(UNKNOWN, b"once", flags) for _ in range(2)]
    pattern = f"metadata item {UNKNOWN} at file offset 0x2000e0: is listed twice"
    bench.assert_reads(spec, ("R57", pattern))


def test_items_that_share_bytes_are_a_warning(bench: Bench) -> None:
    """Both have a certain value."""
    item = MetadataItemSpec(UNKNOWN, None, 0, offset=ITEM_AREA + 4)
    item.data = golden_g1().metadata_values()[FILE_PARAMETERS][4:]
    pattern = r"metadata region at file offset 0x210004: two items share bytes \(MS-VHDX 2.6.1.2\)"
    bench.assert_reads(with_item(item), ("R57", pattern))


def test_two_items_may_share_nothing_at_the_same_place(bench: Bench) -> None:
    spec = golden_g1()
    spec.metadata.items += [MetadataItemSpec(UUID(int=i + 1), b"", 0) for i in range(3)]
    bench.assert_reads(spec)


# -- the parent locator ----------------------------------------------------------------------


def test_differencing_disk_without_a_locator_is_refused(bench: Bench) -> None:
    spec = golden_g3()
    spec.locator, spec.has_parent = None, True
    pattern = "metadata item Parent Locator: a differencing disk needs one: found none "
    bench.assert_refused(spec, CorruptImageError, "R94", pattern)


@BAD_RANGES
def test_a_locator_outside_its_area_is_corrupt(
    bench: Bench, fields: dict[str, int], problem: str
) -> None:
    spec = golden_g3()
    item = spec.metadata.item(PARENT_LOCATOR)
    for name, value in fields.items():
        setattr(item, name, value)
    # As short as the ranges above need it.
    spec.locator, item.length = b"12345678", fields.get("length", 8)
    pattern = rf"metadata item Parent Locator at file offset 0x.*: {problem} \(MS-VHDX 2.6.1.2\)"
    bench.assert_refused(spec, CorruptImageError, "R55", pattern)


def test_locator_of_a_child_is_parsed(bench: Bench) -> None:
    spec = golden_g3()
    metadata = bench.open(spec).metadata
    assert spec.locator is not None
    assert metadata.parent_locator == parse_parent_locator(spec.locator, Findings())
    assert metadata.parent_locator_error is None


def test_a_locator_of_a_disk_without_parent_is_ignored(bench: Bench) -> None:
    spec = golden_g1()
    spec.has_parent = False
    spec.locator = parent_locator({}, count=65535, locator_type=same_bytes_guid(0xEE))
    spec.blocks[1] = Block()
    pattern = (
        "metadata item Parent Locator at file offset 0x210028: "
        "the disk is not differencing; its parent locator is ignored"
    )
    image = bench.assert_reads(spec, ("R94", pattern))
    assert image.metadata.disk_type == "dynamic"
    assert image.metadata.parent_locator is None
    assert PARENT_LOCATOR in {item.item_id for item in spec.metadata.items}
