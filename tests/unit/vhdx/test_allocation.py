"""Every block lies inside the file and where nothing else lies (R74 to R84, R111 to R113)."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.support.bench import Bench
from tests.support.builder import MIB, TIB, Block, BlockState, ImageSpec, RegionEntrySpec, golden_g1
from tests.support.sources import BadSource
from vhdx2raw import check
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import CorruptImageError, TruncatedImageError
from vhdx2raw.findings import MAX_FINDINGS_PER_RULE, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.vhdx.allocation import _Walk, check_allocation
from vhdx2raw.vhdx.bat import Bat
from vhdx2raw.vhdx.image import read_image
from vhdx2raw.vhdx.layout import PayloadBlockState
from vhdx2raw.vhdx.log import LogPolicy
from vhdx2raw.vhdx.space import SpaceMap

EMPTY_STATES = [0, 1, 2, 3]
PRESENT_STATES = [6, 7]


def simple(*states: int, block_size: int = MIB) -> ImageSpec:
    """Give a dynamic disk with blocks in these states."""
    blocks = {index: Block(state) for index, state in enumerate(states)}
    return ImageSpec(len(states) * block_size, block_size, blocks)


# -- states ----------------------------------------------------------------------------------


def test_blocks_are_counted_by_their_state(bench: Bench) -> None:
    spec = simple(6, 0, 2, 2, 3, 1, 6, 0)
    spec.virtual_disk_size += 5 * MIB - 512
    counts = bench.assert_reads(spec).allocation.block_counts
    assert counts == {
        PayloadBlockState.NOT_PRESENT: 7,
        PayloadBlockState.UNDEFINED: 1,
        PayloadBlockState.ZERO: 2,
        PayloadBlockState.UNMAPPED: 1,
        PayloadBlockState.FULLY_PRESENT: 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize("state", EMPTY_STATES)
@pytest.mark.parametrize(
    "file_offset",
    [None, 0, MIB, 3 * MIB, 6 * MIB, 64 * MIB, 2**63, 2**64 - MIB],
    ids=["none", "header", "log", "bat", "another block", "past the end", "2^63", "last"],
)
def test_stale_place_of_a_block_without_data_is_ignored(
    bench: Bench, state: int, file_offset: int | None
) -> None:
    """States 1 and 3 may keep pointing at the old contents, which others may own by now."""
    spec = simple(6, 6, state, 6, state)
    if file_offset is not None:
        spec.bat_overrides = {2: file_offset | state, 4: file_offset | state}
    bench.assert_reads(spec)


def test_state_5_reads_as_zeros_with_one_warning(bench: Bench) -> None:
    spec = simple(6, 5, 5, 6, 5)
    spec.bat_overrides = {4: 0x400005}
    pattern = (
        "BAT: blocks in state 5, the UNMAPPED of draft 0.95, read as zeros: found 3 "
        r"\(MS-VHDX 2.5.1.1\)"
    )
    bench.assert_reads(spec, ("R80", pattern))


def test_state_4_is_corrupt(bench: Bench) -> None:
    spec = simple(6, 4)
    pattern = (
        "BAT entry of payload block 1 at file offset 0x300008: the state 4 is reserved: "
        r"found 0x0000000000000004 \(MS-VHDX 2.5.1.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R80", pattern)


def test_state_7_without_a_parent_is_one_warning(bench: Bench) -> None:
    spec = simple(7, 6, 7, 0, 7)
    pattern = (
        "BAT: blocks that are partially present, without a parent, read as fully present: found 3 "
        r"\(MS-VHDX 2.5.1.1\)"
    )
    bench.assert_reads(spec, ("R81", pattern))


@pytest.mark.slow
@pytest.mark.parametrize("state", [0, 1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("bits", [1, 0x10000, 0x1FFFF])
def test_reserved_bits_are_corrupt_in_any_state(bench: Bench, state: int, bits: int) -> None:
    spec = simple(6, state)
    spec.blocks[1].reserved_bits = bits
    pattern = (
        "BAT entry of payload block 1 at file offset 0x300008: reserved bits are set: "
        r"found 0x\w{16} \(MS-VHDX 2.5.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R77", pattern)


# -- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", PRESENT_STATES)
def test_a_present_block_without_a_place_is_corrupt(bench: Bench, state: int) -> None:
    """Other readers show the header of the file as contents of the disk."""
    spec = simple(6, 0, 0)
    spec.bat_overrides = {2: state}
    pattern = (
        "BAT entry of payload block 2 at file offset 0x300010: the block is present but has no "
        rf"place: found 0x000000000000000{state} \(MS-VHDX 2.5.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R78", pattern)


@pytest.mark.slow
@pytest.mark.parametrize("state", PRESENT_STATES)
@pytest.mark.parametrize("file_offset", [5 * MIB, 2**40, 2**62, 2**63, 2**64 - MIB])
def test_block_past_the_end_of_the_file_is_truncated(
    bench: Bench, state: int, file_offset: int
) -> None:
    spec = simple(6, 0, 0)
    spec.bat_overrides = {2: file_offset | state}
    pattern = (
        f"payload block 2 at file offset 0x300010: the block lies beyond the end of the file, at "
        f"{file_offset:#x}: found a file of {5 * MIB} bytes, expected at least "
        rf"{file_offset + MIB} \(MS-VHDX 2.5.1\)"
    )
    error = bench.assert_refused(spec, TruncatedImageError, "R111", pattern)
    assert "interrupted copy" in error.hint


@pytest.mark.parametrize("missing", [1, 512, 4096, MIB])
def test_a_last_block_that_is_cut_is_truncation(bench: Bench, missing: int) -> None:
    spec = simple(6, 6, 6)
    spec.file_size = 7 * MIB - missing
    pattern = f"payload block 2 at file offset 0x300010: .*: found a file of {7 * MIB - missing} "
    bench.assert_refused(spec, TruncatedImageError, "R111", pattern)


@pytest.mark.parametrize(
    ("size", "block", "place"),
    [(4 * MIB, 0, "0x400000"), (7 * MIB, 1, "0x600000"), (8 * MIB, 2, "0x800000")],
)
def test_the_first_block_that_does_not_fit_is_named(
    bench: Bench, size: int, block: int, place: str
) -> None:
    """The three of them follow each other and are one run."""
    spec = simple(6, 6, 6, block_size=2 * MIB)
    spec.file_size = size
    pattern = f"payload block {block} at file offset {0x300000 + 8 * block:#x}: .*, at {place}"
    bench.assert_refused(spec, TruncatedImageError, "R111", pattern)


@pytest.mark.parametrize("extra", [0, 512, 777, MIB])
def test_last_block_may_be_cut_after_the_disk_ends(bench: Bench, extra: int) -> None:
    """QEMU makes a file of 17 MiB for a fixed disk of 9 MiB with blocks of 8 MiB."""
    spec = ImageSpec(9 * MIB, 8 * MIB, {0: Block(), 1: Block()}, leave_block_allocated=True)
    spec.file_size = 4 * MIB + 9 * MIB + extra
    bench.assert_reads(spec)


def test_a_short_last_block_needs_its_last_used_byte(bench: Bench) -> None:
    spec = ImageSpec(9 * MIB + 512, 8 * MIB, {0: Block(), 1: Block()})
    needed = 13 * MIB + 512
    spec.file_size = needed - 1
    pattern = f"payload block 1 .*: found a file of {needed - 1} bytes, expected at least {needed} "
    bench.assert_refused(spec, TruncatedImageError, "R111", pattern)


def test_short_block_before_the_last_is_truncated(bench: Bench) -> None:
    spec = ImageSpec(9 * MIB, 8 * MIB, {1: Block(), 0: Block()})
    spec.file_size = 4 * MIB + 9 * MIB
    bench.assert_refused(spec, TruncatedImageError, "R111", "payload block 0 .*beyond the end")


@pytest.mark.parametrize("extra", [1, 512, MIB, 5 * MIB + 3])
def test_extra_bytes_at_the_end_are_ignored(bench: Bench, extra: int) -> None:
    spec = golden_g1()
    spec.file_size = 5 * MIB + extra
    bench.assert_reads(spec)


@pytest.mark.parametrize(
    ("file_offset", "fits"), [(256 * TIB - MIB, True), (256 * TIB, False), (2**62, False)]
)
def test_block_past_256_tib_is_refused(
    bench: Bench,
    file_offset: int,
    fits: bool,  # noqa: FBT001
) -> None:
    """A limit of ours, which bounds the map of the space in use."""
    spec = simple(6, 0)
    image = bench.open(spec)
    spec.bat_overrides = {1: file_offset | 6}
    spec.write(bench.path)  # the same file, which is still open
    bat = Bat(image.source, image.regions.bat, image.geometry)
    if fits:
        check_allocation(bat, image.regions, 2**63, Findings())
        return
    pattern = (
        "^BAT entry of payload block 1 at file offset 0x300008: the block lies past 256 TiB: "
        rf"found {file_offset | 6:#018x} \(MS-VHDX 2.5.1\)$"
    )
    with pytest.raises(CorruptImageError, match=pattern) as caught:
        check_allocation(bat, image.regions, 2**63, Findings())
    assert caught.value.finding.rule == "R78"


# -- shared space ----------------------------------------------------------------------------


OVERLAPS = [
    # block size, places of the blocks, block named, owner named, where they overlap
    (1, {0: 4, 2: 4}, 2, "payload block 0", "0x400000"),
    (1, {2: 4, 0: 4}, 2, "payload block 0", "0x400000"),
    (1, {0: 5, 1: 6, 2: 7, 4: 4, 5: 5, 6: 6}, 5, "payload block 0", "0x500000"),
    (2, {0: 4, 1: 5}, 1, "payload block 0", "0x500000"),
    (2, {0: 5, 1: 4}, 1, "payload block 0", "0x500000"),
    (1, {0: 4, 1: 3}, 1, "the BAT region", "0x300000"),
    (1, {0: 2}, 0, "the metadata region", "0x200000"),
    (1, {0: 4, 3: 1}, 3, "the log", "0x100000"),
    (4, {0: 4, 2: 1}, 2, "the log", "0x100000"),
    (1, {0: 4, 1: 8, 2: 9}, 2, "the region 0b5e55ed-0000-4000-8000-000000000003", "0x900000"),
]


@pytest.mark.slow
@pytest.mark.parametrize("states", [(6, 6), (6, 7), (7, 6)])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_blocks_that_share_space_are_corrupt(
    bench: Bench, overlap: tuple[int, dict[int, int], int, str, str], states: tuple[int, int]
) -> None:
    block_mib, places, block, owner, at = overlap
    first, *_ = places
    spec = ImageSpec(8 * block_mib * MIB, block_mib * MIB, file_size=32 * MIB)
    spec.bat_overrides = {
        index: place * MIB | states[index != first] for index, place in places.items()
    }
    optional = RegionEntrySpec(UUID("0b5e55ed-0000-4000-8000-000000000003"), 9 * MIB, MIB, 0)
    for table in spec.region_tables:
        table.entries.append(optional)
    pattern = (
        f"payload block {block} at file offset {0x300000 + 8 * block:#x}: "
        rf"the block lies where {owner} lies, at {at} \(MS-VHDX 2.5.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_the_owner_is_not_a_block_with_a_stale_place(bench: Bench) -> None:
    spec = ImageSpec(4 * MIB, MIB, file_size=8 * MIB)
    spec.bat_overrides = {0: 0x400003, 1: 0x400006, 2: 0x400001, 3: 0x400006}
    bench.assert_refused(spec, CorruptImageError, "R84", "block 3 .* where payload block 1 lies")


def test_blocks_of_two_chunks_sharing_space_are_refused(bench: Bench) -> None:
    size = 256 * MIB
    spec = ImageSpec(40 * size, size, {2: Block(content=0), 35: Block(content=0)})
    spec.blocks[20] = Block(content=0, file_offset=5 * MIB)
    spec.blocks[2].file_offset = 200 * MIB
    pattern = "payload block 20 at file offset 0x3000a8: the block lies where payload block 2 lies"
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_the_owner_may_lie_in_any_chunk(bench: Bench) -> None:
    size = 256 * MIB
    spec = ImageSpec(60 * size, size, {k: Block(content=0) for k in (3, 20, 35, 50)})
    spec.blocks[35].file_offset = spec.blocks[50].file_offset = 5 * MIB
    pattern = "payload block 50 .*: the block lies where payload block 35 lies"
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_unused_log_in_impossible_place_takes_no_space(bench: Bench) -> None:
    spec = simple(6, 6)
    spec.blocks[1].file_offset, spec.blocks[0].file_offset = MIB, 4 * MIB
    for header in spec.headers:
        header.log_length = 512
    spec.log_length = 4096
    bench.assert_reads(spec, ("R13", "the unused log has an impossible place"))


def test_a_short_last_block_occupies_its_whole_place(bench: Bench) -> None:
    spec = ImageSpec(2 * MIB + 512, 2 * MIB, {1: Block(), 0: Block()})
    spec.blocks[1].file_offset, spec.blocks[0].file_offset = 4 * MIB, 5 * MIB
    pattern = "payload block 1 .*: the block lies where payload block 0 lies, at 0x500000"
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


# -- sector bitmap entries of a disk without a parent ----------------------------------------


def chunked(*bitmap_entries: int) -> ImageSpec:
    """Give a disk of chunks of 16 blocks, with these sector bitmap entries."""
    size = 256 * MIB
    content = {0: b"begin", size - 3: b"end"}
    spec = ImageSpec(33 * size, size, {k: Block(content=content) for k in (32, 0, 16, 15)})
    spec.bat_overrides = {16 + 17 * chunk: entry for chunk, entry in enumerate(bitmap_entries)}
    return spec


@pytest.mark.parametrize(
    ("entries", "count"),
    [
        ((0x400006,), 1),
        ((2**63 | 6,), 1),
        ((7,), 1),
        ((1, 6), 2),
        ((0xFFFF8,), 1),
        ((0, 0x100000), 1),
        ((2**64 - 1, 2**64 - 1), 2),
    ],
)
def test_bitmap_entries_without_a_parent_are_one_warning(
    bench: Bench, entries: tuple[int, ...], count: int
) -> None:
    pattern = (
        "BAT: sector bitmap entries of a disk without a parent are not zero; typical of old "
        rf"versions of QEMU and mkimg: verify the result: found {count} \(MS-VHDX 2.5.1.2\)"
    )
    bench.assert_reads(chunked(*entries), ("R82", pattern))


def test_shifted_page_with_double_offset_is_refused(bench: Bench) -> None:
    """The first entry of the page was written again, the others moved up by one."""
    spec = simple(6, 6, 6, 0)
    place = spec.block_file_offset
    old = [place(0) | 6, place(1) | 6, place(2) | 6]
    spec.bat_overrides = dict(enumerate([old[0], *old]))
    bench.assert_refused(spec, CorruptImageError, "R84", "block 1 .* where payload block 0 lies")


def test_shifted_page_without_double_offset_is_a_warning(bench: Bench) -> None:
    """The last payload entry of the chunk has become its sector bitmap entry."""
    spec = chunked(0)
    spec.bat_overrides = {16: spec.block_file_offset(15) | 6, 15: 0}
    spec.blocks[15].state = BlockState.NOT_PRESENT
    spec.blocks[15].file_offset = 0
    bench.assert_reads(spec, ("R82", "sector bitmap entries .*: found 1"))


def test_overlap_between_two_regions_names_the_block(bench: Bench) -> None:
    """The metadata end where the two blocks begin, and the BAT begins where they end."""
    blocks = {index: Block(file_offset=5 * MIB) for index in range(2)}
    spec = ImageSpec(2 * MIB, MIB, blocks, metadata_offset=4 * MIB, bat_offset=6 * MIB)
    pattern = "payload block 1 .*: the block lies where payload block 0 lies, at 0x500000"
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_stray_bitmap_entry_takes_no_space(bench: Bench) -> None:
    """Two blocks of the second chunk overlap where the one of the first chunk points."""
    place, block = 16 * MIB, 256 * MIB
    blocks = {index: Block(content=0, file_offset=place) for index in (16, 17)}
    spec = ImageSpec(18 * block, block, blocks, bat_overrides={16: place | 6})
    pattern = "payload block 17 .*: the block lies where payload block 16 lies, at 0x1000000"
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_what_is_free_has_no_owner(bench: Bench) -> None:
    spec = simple(6, 0)
    image = bench.open(spec)
    bat = Bat(image.source, image.regions.bat, image.geometry)
    walk = _Walk(bat, image.regions, image.source.size, Findings(), SpaceMap())
    block = spec.block_file_offset(0)
    assert walk._find_owner(block, block + 1) == ("payload block 0", block)
    with pytest.raises(AssertionError, match="what was taken has an owner"):
        walk._find_owner(block + MIB, block + 2 * MIB)


@pytest.mark.parametrize("entry", [2**64 - 4, 2**64 - 1, 0xFFFF_FFFF_FFFF_FFFC & ~0x7 | 4])
def test_entry_of_all_ones_is_refused(bench: Bench, entry: int) -> None:
    """None of them stands for an entry that could not be read."""
    spec = simple(6, 6, 6)
    spec.bat_overrides = {1: entry}
    bench.assert_refused(spec, CorruptImageError, "R77", "reserved bits are set")


def test_entry_of_all_ones_is_an_error_of_check(bench: Bench) -> None:
    spec = simple(6, 6, 6)
    spec.bat_overrides = {1: 2**64 - 4}
    spec.write(bench.path)
    report = check(bench.path)
    rules = [finding.rule for severity, finding in report.results if severity is Severity.ERROR]
    assert rules == ["R77", "R80"]


def test_unreadable_piece_of_the_table_is_an_error(bench: Bench) -> None:
    simple(6, 6).write(bench.path)
    source = BadSource(bench.path, 0x300000)
    findings = Findings(lenient=True)
    read_image(source, LogPolicy.REPLAY, findings)
    source.close()
    (finding,) = findings.of(Severity.ERROR)
    assert finding.rule == "R52"
    assert str(finding) == (
        "BAT at file offset 0x300000: a piece of the table cannot be read: Input/output error"
        " (MS-VHDX 2.5)"
    )


def test_table_of_garbage_has_a_limited_number_of_errors(bench: Bench) -> None:
    spec = simple(*[0] * 200)
    spec.bat_overrides = {index: (index << 20) | 0x8C for index in range(200)}
    spec.write(bench.path)
    report = check(bench.path)
    for rule in (Rule.ENTRY_RESERVED, Rule.BLOCK_STATE):
        kept = [finding for _, finding in report.results if finding.rule == rule]
        assert len(kept) == MAX_FINDINGS_PER_RULE
        assert report.suppressed[Severity.ERROR, rule] == 200 - MAX_FINDINGS_PER_RULE


def test_blocks_after_one_without_a_place_are_checked(bench: Bench) -> None:
    """Offsets 0, 1, 2, ... MiB look like one run, but only the first has no place."""
    spec = simple(6, 6, 6, 6, 6)
    spec.bat_overrides = {index: index * MIB | 6 for index in range(5)}
    spec.write(bench.path)
    report = check(bench.path)
    errors = [finding for severity, finding in report.results if severity is Severity.ERROR]
    assert [finding.rule for finding in errors] == ["R78", "R84"]
    assert "lies where the log lies, at 0x100000" in errors[1].problem
    with open_disk(bench.path, OpenOptions(salvage=True)) as disk:
        kinds = [(extent.kind, extent.length) for extent in disk.extents()]
    assert kinds == [(ExtentKind.LOST, MIB), (ExtentKind.DATA, 4 * MIB)]
