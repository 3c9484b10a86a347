"""Which region table is used, and what it may hold (R42 to R53)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    BAT_REGION,
    KIB,
    METADATA_REGION,
    MIB,
    Block,
    ImageSpec,
    RegionEntrySpec,
    RegionTableSpec,
    golden_g1,
)
from vhdx2raw.errors import CorruptImageError, TruncatedImageError, UnsupportedImageError

UNKNOWN = UUID("0b5e55ed-0000-4000-8000-000000000001")
FREE = 64 * MIB


def with_tables(change: Callable[[RegionTableSpec], object]) -> ImageSpec:
    """Give the base with the same change in both tables."""
    spec = golden_g1()
    for table in spec.region_tables:
        change(table)
    return spec


def with_entries(*entries: RegionEntrySpec) -> ImageSpec:
    """Give the base with more regions."""
    return with_tables(lambda table: table.entries.extend(entries))


def with_known(guid: UUID, **fields: int) -> ImageSpec:
    """Give the base with some fields of a known entry changed."""

    def change(table: RegionTableSpec) -> None:
        for name, value in fields.items():
            setattr(table.entry(guid), name, value)

    return with_tables(change)


# -- which copy ------------------------------------------------------------------------------

DAMAGES = pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("signature", b"rigi", "the signature regi is missing"),
        ("checksum", 0xBAD, r"the checksum is wrong \(stored 0x00000bad, computed 0x\w{8}\)"),
        ("entry_count", 2048, "it claims 2048 entries, at most 2047 fit"),
        ("entry_count", 0xFFFFFFFF, "it claims 4294967295 entries, at most 2047 fit"),
    ],
    ids=["signature", "checksum", "2048", "max"],
)


@pytest.mark.parametrize("bad", [1, 2])
@DAMAGES
def test_one_bad_table_leaves_the_other_one(
    bench: Bench, bad: int, field: str, value: bytes | int, problem: str
) -> None:
    spec = golden_g1()
    setattr(spec.region_tables[bad - 1], field, value)
    place = ["0x30000", "0x40000"][bad - 1]
    pattern = rf"^region table {bad} at file offset {place}: {problem} \(MS-VHDX 2.2.3.1\)$"
    bench.assert_reads(spec, ("R42", pattern))


@DAMAGES
def test_without_a_valid_table_the_file_is_corrupt(
    bench: Bench, field: str, value: bytes | int, problem: str
) -> None:
    spec = with_tables(lambda table: setattr(table, field, value))
    pattern = f"none is valid; region table 1 .*{problem}.*; region table 2 .*{problem}"
    bench.assert_refused(spec, CorruptImageError, "R43", pattern)


def test_the_checksum_covers_the_whole_table(bench: Bench) -> None:
    spec = golden_g1()
    spec.patches[256 * KIB - 1] = b"\x01"
    bench.assert_reads(spec, ("R42", "region table 1 .* checksum is wrong"))


def test_the_first_of_two_different_tables_is_used(bench: Bench) -> None:
    spec = golden_g1()
    spec.region_tables[1].entry(METADATA_REGION).file_offset = FREE
    image = bench.assert_reads(spec, ("R44", "both are valid but they differ; the first one"))
    assert image.regions.metadata.file_offset == 2 * MIB


def test_second_table_is_used_if_the_first_is_bad(bench: Bench) -> None:
    spec = golden_g1()
    spec.region_tables[0].entry(METADATA_REGION).file_offset = FREE
    spec.region_tables[0].checksum = 0
    bench.assert_reads(spec, ("R42", "region table 1"))


def test_a_valid_table_with_a_fault_is_not_skipped(bench: Bench) -> None:
    """The second table would be right, but then the two contradict each other."""
    spec = golden_g1()
    spec.region_tables[0].entries.append(RegionEntrySpec(BAT_REGION))
    bench.assert_refused(spec, CorruptImageError, "R46", "region table 1 .*is listed twice")


@pytest.mark.parametrize("size", [192 * KIB, 256 * KIB - 1])
def test_a_file_that_ends_before_the_tables_has_none(bench: Bench, size: int) -> None:
    spec = golden_g1()
    spec.file_size = size
    pattern = "none is valid; region table 1 .* lies beyond .*; region table 2 .* lies beyond the"
    bench.assert_refused(spec, CorruptImageError, "R43", pattern)


def test_a_file_of_320_kib_less_a_byte_is_refused(bench: Bench) -> None:
    """The first table is there; by it the metadata lie past the end of the file."""
    spec = golden_g1()
    spec.file_size = 320 * KIB - 1
    pattern = "metadata table at file offset 0x200000: lies beyond the end of the file"
    bench.assert_refused(spec, TruncatedImageError, "R52", pattern)


# -- known regions ---------------------------------------------------------------------------


@pytest.mark.parametrize("guid", [BAT_REGION, METADATA_REGION])
def test_a_region_listed_twice_is_corrupt(bench: Bench, guid: UUID) -> None:
    pattern = (
        rf"region table 1 at file offset 0x30050: region {guid} is listed twice \(MS-VHDX 2.2.3.2\)"
    )
    spec = with_entries(RegionEntrySpec(guid, FREE, MIB))
    bench.assert_refused(spec, CorruptImageError, "R46", pattern)


def test_an_unknown_region_listed_twice_is_corrupt(bench: Bench) -> None:
    twice = [RegionEntrySpec(UNKNOWN, FREE + i * MIB, MIB, required=0) for i in range(2)]
    bench.assert_refused(with_entries(*twice), CorruptImageError, "R46", "is listed twice")


@pytest.mark.parametrize(
    ("guid", "name"), [(BAT_REGION, "BAT region"), (METADATA_REGION, "metadata region")]
)
def test_both_known_regions_must_be_there(bench: Bench, guid: UUID, name: str) -> None:
    spec = with_tables(lambda table: table.entries.remove(table.entry(guid)))
    pattern = rf"region table 1: no {name} is listed \(MS-VHDX 2.2.3\)"
    bench.assert_refused(spec, CorruptImageError, "R49", pattern)


def test_an_empty_table_is_corrupt(bench: Bench) -> None:
    spec = with_tables(lambda table: table.entries.clear())
    bench.assert_refused(spec, CorruptImageError, "R49", "no BAT region is listed")


@pytest.mark.parametrize(
    ("guid", "name"),
    [
        (BAT_REGION, "BAT region at file offset 0x30010"),
        (METADATA_REGION, "metadata region at file offset 0x30030"),
    ],
)
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"file_offset": 8 * MIB + 512}, "its place is not a multiple of 1 MiB"),
        ({"file_offset": 8 * MIB, "length": MIB + 4096}, "its place is not a multiple of 1 MiB"),
        ({"file_offset": 0}, "it lies inside the header section"),
        ({"length": 0}, "its length is zero"),
    ],
    ids=["unaligned", "unaligned length", "header section", "no length"],
)
def test_known_region_in_impossible_place_is_refused(
    bench: Bench, guid: UUID, name: str, fields: dict[str, int], problem: str
) -> None:
    pattern = f"{name}: {problem}: found file offset 0x.*, length 0x"
    bench.assert_refused(with_known(guid, **fields), CorruptImageError, "R47", pattern)


@pytest.mark.parametrize("required", [0, 1, 0xDEADBEEF])
def test_required_field_of_known_regions_is_ignored(bench: Bench, required: int) -> None:
    """QEMU writes 0, and mkimg what was there before."""

    def change(table: RegionTableSpec) -> None:
        for entry in table.entries:
            entry.required = required

    bench.assert_reads(with_tables(change))


def test_regions_may_be_listed_and_lie_in_any_order(bench: Bench) -> None:
    spec = with_tables(lambda table: table.entries.reverse())
    spec.bat_offset, spec.metadata_offset, spec.log_offset = MIB, 4 * MIB, 9 * MIB
    image = bench.assert_reads(spec)
    assert [region.name for region in image.regions.reserved] == [
        "header section",
        "BAT region",
        "metadata region",
        "log",
    ]


@pytest.mark.parametrize("guid", [BAT_REGION, METADATA_REGION])
@pytest.mark.parametrize("offset", [2**62, 2**63, 2**64 - MIB])
def test_region_far_past_the_end_is_truncated(bench: Bench, guid: UUID, offset: int) -> None:
    pattern = f"at file offset {offset:#x}: .*the end of the file"
    spec = with_known(guid, file_offset=offset)
    bench.assert_refused(spec, TruncatedImageError, "R52", pattern)


@pytest.mark.parametrize(
    ("size", "pattern"),
    [
        (2 * MIB, "metadata table at file offset 0x200000: lies beyond"),
        (2 * MIB + 32 * KIB, "metadata table at file offset 0x200000: lies beyond"),
        (2 * MIB + 64 * KIB, "item File Parameters at file offset 0x210000: lies beyond"),
        (2 * MIB + 64 * KIB + 12, "item Logical Sector Size at file offset 0x2100..: lies beyond"),
        (3 * MIB, "BAT region at file offset 0x300000: the table goes on past"),
        (3 * MIB + 31, "BAT region at file offset 0x300000: the table goes on past"),
    ],
)
def test_file_cut_inside_metadata_or_bat_is_truncated(
    bench: Bench, size: int, pattern: str
) -> None:
    spec = golden_g1()
    spec.file_size = size
    pattern += " the end of the file"
    error = bench.assert_refused(spec, TruncatedImageError, "R52", pattern)
    assert "fetch it again" in error.hint


def test_bat_region_that_ends_past_the_file_is_a_warning(bench: Bench) -> None:
    spec = golden_g1()
    spec.bat_offset, spec.blocks[0].file_offset = 5 * MIB, 4 * MIB
    spec.file_size = 5 * MIB + 4 * 8
    pattern = (
        r"BAT region at file offset 0x500000: ends past the end of the file \(MS-VHDX 2.2.3.2\)"
    )
    bench.assert_reads(spec, ("R52", pattern))


def test_metadata_region_that_ends_past_the_file_is_read(bench: Bench) -> None:
    spec = golden_g1()
    spec.metadata_offset, spec.blocks[0].file_offset = 5 * MIB, 4 * MIB
    spec.file_size = 5 * MIB + 64 * KIB + 40
    bench.assert_reads(spec)


# -- unknown regions -------------------------------------------------------------------------


@pytest.mark.parametrize("required", [1, 0x80000001])
def test_an_unknown_required_region_is_unsupported(bench: Bench, required: int) -> None:
    pattern = (
        f"region {UNKNOWN} at file offset 0x30050: "
        "the file requires this region, which this program does not know"
    )
    spec = with_entries(RegionEntrySpec(UNKNOWN, FREE, MIB, required))
    bench.assert_refused(spec, UnsupportedImageError, "R48", pattern)


def test_an_unknown_optional_region_is_occupied_space(bench: Bench) -> None:
    spec = with_entries(RegionEntrySpec(UNKNOWN, FREE, 2 * MIB, required=0))
    image = bench.assert_reads(spec)
    last = image.regions.reserved[-1]
    assert (last.name, last.file_offset, last.end) == (f"region {UNKNOWN}", FREE, FREE + 2 * MIB)


def test_reserved_bits_of_unknown_region_are_a_note(bench: Bench) -> None:
    spec = with_entries(RegionEntrySpec(UNKNOWN, FREE, MIB, required=6))
    pattern = (
        rf"region {UNKNOWN} at file offset 0x30050: reserved bits of the Required field are set: "
        "found 0x6 "
    )
    bench.assert_reads(spec, ("R50", pattern))


@pytest.mark.parametrize(
    ("file_offset", "length", "problem"),
    [
        (FREE + 1, MIB, "its place is not a multiple of 1 MiB"),
        (FREE, MIB - 1, "its place is not a multiple of 1 MiB"),
        (0, MIB, "it lies inside the header section"),
        (FREE, 0, "its length is zero"),
    ],
)
def test_optional_region_in_impossible_place_is_a_note(
    bench: Bench, file_offset: int, length: int, problem: str
) -> None:
    spec = with_entries(RegionEntrySpec(UNKNOWN, file_offset, length, required=0))
    pattern = f"region {UNKNOWN} at file offset 0x30050: {problem}; ignored"
    image = bench.assert_reads(spec, ("R47", pattern))
    assert UNKNOWN not in {region.name for region in image.regions.reserved}


def test_a_full_table_is_read(bench: Bench) -> None:
    entries = [
        RegionEntrySpec(UUID(int=i + 1), FREE + i * MIB, MIB, required=0) for i in range(2045)
    ]
    image = bench.assert_reads(with_entries(*entries))
    assert len(image.regions.reserved) == 2047 + 2


# -- overlaps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        (
            with_known(METADATA_REGION, file_offset=3 * MIB),
            "BAT region at file offset 0x300000: overlaps the metadata region at .* 0x300000",
        ),
        (
            with_known(METADATA_REGION, length=3 * MIB),
            "metadata region at file offset 0x200000: overlaps the BAT .*: found it ends at 0x5",
        ),
        (
            with_known(METADATA_REGION, file_offset=MIB),
            "metadata region at file offset 0x100000: overlaps the log at file offset 0x100000",
        ),
        (
            with_known(METADATA_REGION, length=0xFFF00000),
            "metadata region .*: overlaps the BAT region",
        ),
        (
            with_entries(RegionEntrySpec(UNKNOWN, MIB, 3 * MIB, required=0)),
            f"region {UNKNOWN} at file offset 0x100000: overlaps the log",
        ),
        (
            with_entries(RegionEntrySpec(UNKNOWN, 3 * MIB, MIB, required=0)),
            f"BAT region at file offset 0x300000: overlaps the region {UNKNOWN}",
        ),
    ],
    ids=["same", "partly", "log", "huge", "optional over log", "optional over bat"],
)
def test_regions_that_overlap_are_corrupt(bench: Bench, spec: ImageSpec, pattern: str) -> None:
    bench.assert_refused(spec, CorruptImageError, "R51", pattern)


def test_regions_may_touch(bench: Bench) -> None:
    entry = RegionEntrySpec(UNKNOWN, 5 * MIB, MIB, required=0)
    spec = with_entries(entry)
    spec.blocks[3] = Block(file_offset=6 * MIB)
    bench.assert_reads(spec)


def test_the_reserved_field_of_the_table_is_ignored(bench: Bench) -> None:
    bench.assert_reads(with_tables(lambda table: setattr(table, "reserved", 1)))
