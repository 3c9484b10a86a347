"""The sector bitmap entries of a differencing disk (R75, R77, R78, R83, R84, R114).

A child is opened here without its parent, which nothing of this needs.
"""

from __future__ import annotations

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    GIB,
    MIB,
    BitmapSpec,
    Block,
    BlockState,
    ImageSpec,
    child_of,
    golden_g1,
    golden_g3,
)
from vhdx2raw.errors import CorruptImageError, TruncatedImageError
from vhdx2raw.findings import MAX_FINDINGS_PER_RULE
from vhdx2raw.rules import Rule
from vhdx2raw.vhdx.layout import PayloadBlockState

BLOCK = 256 * MIB
RATIO = 16
PARTIAL = BlockState.PARTIALLY_PRESENT
BITMAP_PLACES = {0: 0x300080, 1: 0x300108}
"""Where the sector bitmap entries of the first two chunks stand."""


def child(*states: int, **fields: object) -> ImageSpec:
    """Give a child of two chunks of 16 blocks, the first ones in these states; data is a hole."""
    spec = child_of(golden_g1(), ".\\g1.vhdx", virtual_disk_size=8 * GIB, block_size=BLOCK)
    for name, value in fields.items():
        setattr(spec, name, value)
    spec.blocks = {index: Block(state, content=0) for index, state in enumerate(states)}
    return spec


def with_bitmap_entry(spec: ImageSpec, entry: int, chunk: int = 0) -> ImageSpec:
    """Set the entry of a sector bitmap block, which is not written."""
    spec.bitmaps[chunk] = None
    spec.bat_overrides[spec.geometry.bitmap_bat_index(chunk)] = entry
    return spec


def assert_opens(bench: Bench, spec: ImageSpec, *warnings: tuple[str, str]) -> None:
    """Open a child with just these warnings (rule, text)."""
    image = bench.open(spec)
    assert [(finding.rule, str(finding)) for finding in image.warnings] == list(warnings)


# -- presence --------------------------------------------------------------------------------


def test_a_child_with_a_bitmap_is_opened(bench: Bench) -> None:
    spec = child(7, 0, 1, 2, 3, 6, 7)
    spec.blocks[20] = Block(PARTIAL, content=0)
    assert_opens(bench, spec)
    assert spec.placement().bitmaps.keys() == {0, 1}


def test_golden_g3_is_opened(bench: Bench) -> None:
    image = bench.open(golden_g3())
    assert image.warnings == ()
    assert image.metadata.disk_type == "differencing"
    assert image.allocation.block_counts == {
        PayloadBlockState.PARTIALLY_PRESENT: 1,
        PayloadBlockState.NOT_PRESENT: 1,
    }


def test_without_partial_blocks_no_bitmap_is_needed(bench: Bench) -> None:
    assert_opens(bench, child(0, 1, 2, 3, 6))


@pytest.mark.parametrize("entry", [0, 1, 2, 3, 4, 5, 7, 64 * MIB | 7, 64 * MIB, 0xFFFF8])
def test_a_partial_block_without_a_bitmap_is_corrupt(bench: Bench, entry: int) -> None:
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 0 at file offset {BITMAP_PLACES[0]:#x}: "
        "it is not present, but a block of the chunk is partially present: "
        rf"found {entry:#018x} \(MS-VHDX 2.5.1.2\)"
    )
    spec = with_bitmap_entry(child(6, 7), entry)
    bench.assert_refused(spec, CorruptImageError, "R83", pattern)


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("entry", [1, 2, 3, 4, 5, 7, 64 * MIB | 7, 8, 0xFFFF8])
def test_invalid_unneeded_bitmap_entry_is_a_warning(bench: Bench, entry: int, chunk: int) -> None:
    message = (
        f"BAT entry of the sector bitmap block of chunk {chunk} "
        f"at file offset {BITMAP_PLACES[chunk]:#x}: "
        "a reserved state or reserved bits, but it is not needed: "
        f"found {entry:#018x} (MS-VHDX 2.5.1.2)"
    )
    spec = with_bitmap_entry(child(6, 0), entry, chunk)
    assert_opens(bench, spec, ("R83", message))


@pytest.mark.parametrize("file_offset", [MIB, 2**63])
def test_a_bitmap_that_is_not_present_may_keep_a_place(bench: Bench, file_offset: int) -> None:
    assert_opens(bench, with_bitmap_entry(child(6, 0), file_offset))


def test_unused_payload_entries_are_ignored(bench: Bench) -> None:
    spec = child(7, virtual_disk_size=2 * BLOCK - 512)
    spec.bat_overrides = dict.fromkeys([*range(2, RATIO), *range(RATIO + 1, 40)], 2**64 - 1)
    assert_opens(bench, spec)


# -- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [6, 7])
@pytest.mark.parametrize("bits", [1, 0x1FFFF])
def test_reserved_bits_of_a_present_bitmap_are_corrupt(bench: Bench, state: int, bits: int) -> None:
    spec = child(state)
    spec.bitmaps[0] = BitmapSpec(reserved_bits=bits)
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 0 at file offset {BITMAP_PLACES[0]:#x}: "
        r"reserved bits are set: found 0x\w{16} \(MS-VHDX 2.5.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R77", pattern)


@pytest.mark.parametrize("state", [6, 7])
def test_a_present_bitmap_without_a_place_is_corrupt(bench: Bench, state: int) -> None:
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 0 at file offset {BITMAP_PLACES[0]:#x}: "
        r"the block is present but has no place: found 0x0000000000000006 \(MS-VHDX 2.5.1\)"
    )
    spec = with_bitmap_entry(child(state), 6)
    bench.assert_refused(spec, CorruptImageError, "R78", pattern)


@pytest.mark.parametrize("file_offset", [2**40, 2**63, 2**64 - MIB])
def test_bitmap_past_the_end_of_the_file_is_truncated(bench: Bench, file_offset: int) -> None:
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 0 at file offset {BITMAP_PLACES[0]:#x}: "
        rf"the block lies beyond the end of the file, at {file_offset:#x}: "
        r"found a file of \d+ bytes "
        r"\(MS-VHDX 2.5.1\)"
    )
    spec = with_bitmap_entry(child(7), file_offset | 6)
    error = bench.assert_refused(spec, TruncatedImageError, "R114", pattern)
    assert "interrupted copy" in error.hint


@pytest.mark.parametrize("file_offset", [2**40, 2**63, 2**64 - MIB])
def test_unneeded_bitmap_may_lie_past_the_end(bench: Bench, file_offset: int) -> None:
    assert_opens(bench, with_bitmap_entry(child(6, 0), file_offset | 6))


def bitmap_at_the_end(spec: ImageSpec, missing: int) -> ImageSpec:
    """Put the bitmap of chunk 0 at the end of the file; cut so many bytes off its MiB."""
    end = 4 * MIB
    for block in spec.blocks.values():
        if block.owns_space:
            block.file_offset = end
            end += spec.block_size
    spec.bitmaps[0] = BitmapSpec(file_offset=end)
    spec.file_size = end + MIB - missing
    return spec


def test_bitmap_may_end_after_the_last_sector(bench: Bench) -> None:
    """A block of 256 MiB has 64 KiB of bits."""
    spec = child(7, virtual_disk_size=BLOCK)
    assert_opens(bench, bitmap_at_the_end(spec, MIB - 65536))
    bitmap_at_the_end(spec, MIB - 65535)
    pattern = "BAT entry of the sector bitmap block of chunk 0 .*: the block lies beyond the end"
    bench.assert_refused(spec, TruncatedImageError, "R114", pattern)


@pytest.mark.parametrize("needed", [0, 2])
def test_bitmap_may_end_after_its_last_partial_block(bench: Bench, needed: int) -> None:
    states = [6, 0, 6, 2]
    states[needed] = 7
    spec = bitmap_at_the_end(child(*states), MIB - (needed + 1) * 65536)
    assert_opens(bench, spec)


def test_bitmap_cut_in_its_last_partial_block_is_refused(bench: Bench) -> None:
    spec = bitmap_at_the_end(child(6, 0, 7, 2), MIB - 3 * 65536 + 1)
    pattern = "BAT entry of the sector bitmap block of chunk 0 .*: the block lies beyond the end"
    bench.assert_refused(spec, TruncatedImageError, "R114", pattern)


# -- shared space ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [6, 7])
@pytest.mark.parametrize(
    ("file_offset", "owner"),
    [
        (MIB, "the log"),
        (2 * MIB, "the metadata region"),
        (3 * MIB, "the BAT region"),
        (5 * MIB, "payload block 0"),
        (4 * MIB + BLOCK, "payload block 0"),
    ],
)
def test_a_bitmap_that_shares_space_is_corrupt(
    bench: Bench, state: int, file_offset: int, owner: str
) -> None:
    """Also one that is not needed: its entry takes the place."""
    spec = child(state)
    spec.blocks[0].file_offset = 5 * MIB
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 0 at file offset {BITMAP_PLACES[0]:#x}: "
        rf"the block lies where {owner} lies, at {file_offset:#x} \(MS-VHDX 2.5.1\)"
    )
    spec = with_bitmap_entry(spec, file_offset | 6)
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_two_bitmaps_in_one_place_are_corrupt(bench: Bench) -> None:
    spec = with_bitmap_entry(with_bitmap_entry(child(7), 4 * MIB | 6), 4 * MIB | 6, chunk=1)
    spec.blocks[0].file_offset = 5 * MIB
    pattern = (
        f"BAT entry of the sector bitmap block of chunk 1 at file offset {BITMAP_PLACES[1]:#x}: "
        "the block lies where the sector bitmap block of chunk 0 lies, at 0x400000"
    )
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_the_owner_may_be_the_bitmap_of_any_chunk(bench: Bench) -> None:
    """Chunk 0 has a bitmap elsewhere, chunk 1 has none, and a stale place."""
    spec = child(7, virtual_disk_size=16 * GIB)
    spec.blocks[0].file_offset = 10 * MIB
    for chunk, entry in enumerate([4 * MIB | 6, 5 * MIB, 5 * MIB | 6, 5 * MIB | 6]):
        with_bitmap_entry(spec, entry, chunk)
    pattern = (
        "chunk 3 .*: the block lies where the sector bitmap block of chunk 2 lies, at 0x500000"
    )
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_block_over_an_earlier_bitmap_is_refused(bench: Bench) -> None:
    spec = child(7)
    spec.blocks[0].file_offset = 600 * MIB
    spec.blocks[20] = Block(content=0, file_offset=10 * MIB)
    with_bitmap_entry(spec, 20 * MIB | 6)
    pattern = (
        "payload block 20 at file offset 0x3000a8: "
        "the block lies where the sector bitmap block of chunk 0 lies, at 0x1400000"
    )
    bench.assert_refused(spec, CorruptImageError, "R84", pattern)


def test_bitmaps_and_blocks_may_touch(bench: Bench) -> None:
    spec = child(7)
    spec.blocks[0].file_offset = 5 * MIB
    spec.bitmaps[0] = BitmapSpec(file_offset=4 * MIB)
    spec.bitmaps[1] = BitmapSpec(file_offset=5 * MIB + BLOCK)
    assert_opens(bench, spec)


def test_many_invalid_bitmap_entries_give_few_warnings(bench: Bench) -> None:
    spec = child_of(ImageSpec(64 * GIB, MIB), ".\\parent.vhdx")
    chunks = 16
    spec.bat_overrides = {(index + 1) * 4096 + index: 5 for index in range(chunks)}
    few = [finding.rule for finding in bench.open(spec).warnings]
    assert few.count(Rule.SECTOR_BITMAP) == chunks
    spec = child_of(ImageSpec(256 * GIB, MIB), ".\\parent.vhdx")
    spec.bat_overrides = {(index + 1) * 4096 + index: 5 for index in range(64)}
    many = [finding.rule for finding in bench.open(spec).warnings]
    assert many.count(Rule.SECTOR_BITMAP) == MAX_FINDINGS_PER_RULE
