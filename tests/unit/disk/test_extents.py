"""Extents tile the disk exactly once, in order, as long as they can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builder import GIB, KIB, MIB, Block, BlockState, ImageSpec, child_of, golden_g1
from tests.support.chains import disk_bytes
from vhdx2raw.disk.chain import Chain, OpenOptions, open_chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.layers import _read_bitmap
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import CorruptImageError, TruncatedImageError
from vhdx2raw.vhdx.image import VhdxImage, open_image

Bounds = tuple[int, int]
STATES = [0, 1, 2, 3, 5, 6, 6, 6, 6, 7]


@pytest.fixture(scope="module")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extents") / "disk.vhdx"


@pytest.fixture(scope="module")
def plain_image(image_path: Path) -> Iterator[VhdxImage]:
    path = image_path.with_name("plain.vhdx")
    golden_g1().write(path)
    with open_image(path) as image:
        yield image


@contextmanager
def opened(spec: ImageSpec, path: Path) -> Iterator[Chain]:
    spec.write(path)
    with open_chain(path) as chain:
        yield chain


@st.composite
def contents(draw: st.DrawFn, block_size: int) -> dict[int, bytes]:
    """Give a few bytes at a few places of a block, and nothing else."""
    offset = st.one_of(st.sampled_from([0, block_size - 16]), st.integers(0, block_size - 16))
    return draw(st.dictionaries(offset, st.binary(min_size=1, max_size=16), max_size=2))


@st.composite
def small_disks(draw: st.DrawFn) -> ImageSpec:
    """Give a disk of a few blocks in any state, which lie in the file in any order."""
    block_size = draw(st.sampled_from([1, 1, 1, 2, 4])) * MIB
    sector_size = draw(st.sampled_from([512, 4096]))
    count = draw(st.integers(1, 6))
    cut = draw(st.integers(0, block_size // sector_size - 1)) * sector_size
    present = draw(st.permutations(range(count)))[: draw(st.integers(0, count))]
    if draw(st.booleans()):
        present.sort()
    blocks = {k: Block(draw(st.sampled_from(STATES)), draw(contents(block_size))) for k in present}
    return ImageSpec(
        count * block_size - cut,
        block_size,
        blocks,
        logical_sector_size=sector_size,
        leave_block_allocated=draw(st.booleans()),
    )


@st.composite
def disks_of_several_chunks(draw: st.DrawFn) -> ImageSpec:
    """Give a large disk with a few blocks around the borders of its chunks."""
    block_size = draw(st.sampled_from([1, 2, 4])) * MIB
    sector_size = draw(st.sampled_from([512, 4096]))
    ratio = 2**23 * sector_size // block_size
    chunks = draw(st.integers(2, 9))
    near = st.builds(
        lambda border, distance: max(0, border * ratio + distance),
        st.integers(0, chunks),
        st.integers(-3, 2),
    )
    indexes = draw(st.lists(near, unique=True, max_size=4))
    count = chunks * ratio + draw(st.integers(-2, 2))
    blocks = {
        k: Block(draw(st.sampled_from(STATES)), draw(contents(block_size)))
        for k in indexes
        if k < count
    }
    size = count * block_size - draw(st.integers(0, 7)) * sector_size
    return ImageSpec(size, block_size, blocks, logical_sector_size=sector_size)


disks = st.one_of(small_disks(), disks_of_several_chunks())


def cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """Cut extents that tile a disk to a range, by the definition of an extent."""
    parts = []
    for extent in extents:
        low, high = max(start, extent.virtual_offset), min(end, extent.virtual_end)
        if low < high and extent.kind is ExtentKind.DATA:
            file_offset = extent.file_offset + low - extent.virtual_offset
            parts.append(Extent(ExtentKind.DATA, low, high - low, extent.image, file_offset))
        elif low < high:
            parts.append(Extent(extent.kind, low, high - low))
    return parts


# -- properties ------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(disks)
def test_extents_tile_the_disk_in_order(image_path: Path, spec: ImageSpec) -> None:
    with opened(spec, image_path) as chain:
        extents = list(iter_extents(chain))
    borders = [0] + [extent.virtual_end for extent in extents]
    assert [extent.virtual_offset for extent in extents] == borders[:-1]
    assert borders[-1] == spec.virtual_disk_size
    assert all(extent.length > 0 for extent in extents)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(disks)
def test_no_two_neighbours_could_be_one(image_path: Path, spec: ImageSpec) -> None:
    with opened(spec, image_path) as chain:
        extents = list(iter_extents(chain))
    for one, other in pairwise(extents):
        both_zero = one.kind is other.kind is ExtentKind.ZERO
        both_data = one.kind is other.kind is ExtentKind.DATA
        assert not both_zero
        assert not (both_data and one.file_offset + one.length == other.file_offset)
        assert not other.continues(one)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(disks)
def test_extents_lie_where_the_blocks_lie(image_path: Path, spec: ImageSpec) -> None:
    """Block by block: data where it is stored, zeros in every other state."""
    with opened(spec, image_path) as chain:
        extents = list(iter_extents(chain))
    placed = spec.placement().blocks
    for k, block in spec.blocks.items():
        start = k * spec.block_size
        end = min(start + spec.block_size, spec.virtual_disk_size)
        (part,) = cut(extents, start, end)
        assert (part.kind is ExtentKind.DATA) is block.owns_space
        assert part.file_offset == (placed[k] if block.owns_space else 0)
        assert (part.image is chain.child) is block.owns_space
    stored = sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)
    present = [k for k, block in spec.blocks.items() if block.owns_space]
    used = [min(spec.block_size, spec.virtual_disk_size - k * spec.block_size) for k in present]
    assert stored == sum(used)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(disks, st.data())
def test_a_range_is_the_same_cut_of_the_whole(
    image_path: Path, spec: ImageSpec, data: st.DataObject
) -> None:
    size = spec.virtual_disk_size
    borders = [0, size] + [k * spec.block_size for k in spec.blocks]
    near = st.builds(lambda at, by: max(0, at + by), st.sampled_from(borders), st.integers(-9, 9))
    place = st.one_of(near, st.integers(0, size + 4096))
    start, end = sorted([data.draw(place), data.draw(place)])
    with opened(spec, image_path) as chain:
        whole = list(iter_extents(chain))
        assert list(iter_extents(chain, start, end - start)) == cut(whole, start, end)
        assert list(iter_extents(chain, start)) == cut(whole, start, size)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(small_disks())
def test_bytes_through_the_extents_are_the_disk(image_path: Path, spec: ImageSpec) -> None:
    with opened(spec, image_path) as chain:
        found = disk_bytes(chain.child, 0, spec.virtual_disk_size)
    is_right = found == spec.expected_disk(0, spec.virtual_disk_size)
    assert is_right


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(disks_of_several_chunks())
def test_bytes_around_chunk_borders_are_the_disk(image_path: Path, spec: ImageSpec) -> None:
    with opened(spec, image_path) as chain:
        for k in spec.blocks:
            start = max(0, k * spec.block_size - 4096)
            length = min(spec.block_size + 8192, spec.virtual_disk_size - start)
            is_right = disk_bytes(chain.child, start, length) == spec.expected_disk(start, length)
            assert is_right


# -- extents as values -----------------------------------------------------------------------

lengths = st.integers(1, 5000)


@given(lengths, st.integers(0, 5000), st.sampled_from(ExtentKind), st.data())
def test_a_cut_extent_is_the_same_bytes(
    length: int, start: int, kind: ExtentKind, data: st.DataObject
) -> None:
    file_offset = 70000 if kind is ExtentKind.DATA else 0
    extent = Extent(kind, start, length, None, file_offset)
    low = data.draw(st.integers(start, start + length - 1))
    high = data.draw(st.integers(low + 1, start + length))
    assert [extent.cut(low, high)] == cut([extent], low, high)
    assert extent.cut(start, start + length) == extent


@pytest.mark.slow
@given(
    start=st.integers(0, 2000),
    length=lengths,
    skew=st.one_of(st.integers(0, 9), st.just(1024)),
    alignment=st.sampled_from([1, 4, 512]),
)
def test_shareable_part_of_an_extent_is_all_that_is_aligned(
    plain_image: VhdxImage, start: int, length: int, skew: int, alignment: int
) -> None:
    file_offset = start + skew
    extent = Extent(ExtentKind.DATA, start, length, plain_image, file_offset)
    parts = list(extent.iter_in_file(alignment))
    aligned = range(-(-file_offset // alignment) * alignment, file_offset + length, alignment)
    whole = [place for place in aligned if place + alignment <= file_offset + length]
    if skew % alignment or not whole:
        assert parts == []
    else:
        assert parts == [(whole[0] - skew, whole[0], len(whole) * alignment)]


def test_zeros_cannot_be_shared() -> None:
    assert list(Extent(ExtentKind.ZERO, 0, 4096).iter_in_file(512)) == []


# -- plain cases -----------------------------------------------------------------------------


def test_blocks_that_lie_in_order_are_one_extent(bench: Bench) -> None:
    """Whatever their states, as long as they are stored."""
    spec = ImageSpec(4 * MIB - 512, MIB, {k: Block(6 + k % 2) for k in range(4)})
    image = bench.open(spec)
    (extent,) = iter_extents(Chain((image,)))
    assert extent == Extent(ExtentKind.DATA, 0, 4 * MIB - 512, image, 4 * MIB)


def test_blocks_in_reverse_order_are_an_extent_each(bench: Bench) -> None:
    image = bench.open(ImageSpec(3 * MIB, MIB, {k: Block() for k in (2, 1, 0)}))
    assert list(iter_extents(Chain((image,)))) == [
        Extent(ExtentKind.DATA, 0, MIB, image, 6 * MIB),
        Extent(ExtentKind.DATA, MIB, MIB, image, 5 * MIB),
        Extent(ExtentKind.DATA, 2 * MIB, MIB, image, 4 * MIB),
    ]


def test_zeros_of_all_states_are_one_extent(bench: Bench) -> None:
    """Over the borders of chunks too."""
    states = [0, 1, 2, 3, 5]
    spec = ImageSpec(20 * GIB, MIB, {4094 + k: Block(state) for k, state in enumerate(states)})
    image = bench.open(spec)
    assert list(iter_extents(Chain((image,)))) == [Extent(ExtentKind.ZERO, 0, 20 * GIB)]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 0), []),
        ((512, 0), []),
        ((0, 1), [(ExtentKind.DATA, 0, 1)]),
        ((MIB - 1, 2), [(ExtentKind.DATA, MIB - 1, 1), (ExtentKind.ZERO, MIB, 1)]),
        ((3 * MIB, 2048), [(ExtentKind.ZERO, 3 * MIB, 1024)]),
        ((3 * MIB + 1024, 1), []),
        ((2**70, 2**70), []),
    ],
)
def test_a_range_is_clipped_to_the_disk(
    bench: Bench, bounds: Bounds, expected: list[tuple[ExtentKind, int, int]]
) -> None:
    chain = Chain((bench.open(golden_g1()),))
    found = [(e.kind, e.virtual_offset, e.length) for e in iter_extents(chain, *bounds)]
    assert found == expected


def test_extents_come_one_at_a_time(bench: Bench) -> None:
    """Half of the disk may be worked on before the other half is looked at."""
    chain = Chain((bench.open(golden_g1()),))
    extents = iter_extents(chain)
    assert next(extents).length == MIB
    chain.child.close()


def test_data_is_read_into_the_buffer_of_the_caller(bench: Bench) -> None:
    image = bench.open(golden_g1())
    extent = next(iter_extents(Chain((image,)), 4 * KIB, 100))
    buffer = bytearray(102)
    extent.read_into(memoryview(buffer)[1:101])
    assert buffer == b"\0" + b"\xa5" * 100 + b"\0"


def test_shrinking_file_is_truncated(bench: Bench) -> None:
    image = bench.open(golden_g1())
    (extent, *_) = iter_extents(Chain((image,)))
    with bench.path.open("r+b") as file:
        file.truncate(5 * MIB - 1)
    with pytest.raises(TruncatedImageError, match="ends too early: 1048576 bytes") as caught:
        extent.read_into(memoryview(bytearray(MIB)))
    assert caught.value.path == str(bench.path)


def test_zeros_are_stored_nowhere(bench: Bench) -> None:
    image = bench.open(ImageSpec(MIB, MIB, {0: Block(BlockState.ZERO)}))
    (extent,) = iter_extents(Chain((image,)))
    assert (extent.image, extent.file_offset) == (None, 0)
    with pytest.raises(AssertionError, match="only data is stored anywhere"):
        extent.read_into(memoryview(bytearray(MIB)))


def test_range_past_the_end_of_a_shorter_parent_is_zeros(
    tmp_path: Path,
) -> None:
    """R107: zeros, also where the child has data between the end of its parent and them."""
    base = ImageSpec(MIB, MIB, {0: Block()})
    child = child_of(
        base, ".\\base.vhdx", virtual_disk_size=4 * MIB, block_size=MIB, blocks={1: Block()}
    )
    base.write(tmp_path / "base.vhdx")
    with opened(child, tmp_path / "child.vhdx") as chain:
        found = [(e.kind, e.virtual_offset, e.length) for e in iter_extents(chain)]
    assert found == [
        (ExtentKind.DATA, 0, MIB),
        (ExtentKind.DATA, MIB, MIB),
        (ExtentKind.ZERO, 2 * MIB, 2 * MIB),
    ]


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_partial_blocks_of_later_chunks_are_found(
    tmp_path: Path,
    sector_size: int,
    salvage: bool,  # noqa: FBT001
) -> None:
    """Each chunk has bits of its own, the last ones at the end of the file."""
    block_size = 256 * MIB
    ratio = 2**23 * sector_size // block_size
    base = ImageSpec(MIB, MIB, {0: Block(content=0)}, logical_sector_size=sector_size)
    sectors = {ratio: {0, 9}, ratio + 1: {3, 4, 5}, 2 * ratio + 2: {8, 15, 16}}
    child = child_of(
        base,
        ".\\base.vhdx",
        virtual_disk_size=3 * ratio * block_size,
        block_size=block_size,
        blocks={
            block: Block(
                BlockState.PARTIALLY_PRESENT,
                content={0: b"x"},
                file_offset=16 * MIB + index * block_size,
                sector_bits=bits,
            )
            for index, (block, bits) in enumerate(sectors.items())
        },
    )
    base.write(tmp_path / "base.vhdx")
    child.write(tmp_path / "child.vhdx")
    places = child.placement().blocks
    expected = {
        (block * block_size + sector * sector_size, places[block] + sector * sector_size)
        for block, bits in sectors.items()
        for sector in bits
    }
    with open_chain(tmp_path / "child.vhdx", OpenOptions(salvage=salvage)) as chain:
        data = [e for e in iter_extents(chain) if e.image is chain.child]
        start = ratio * block_size + 5 * sector_size
        later = [e for e in iter_extents(chain, start) if e.image is chain.child]
    found = {
        (extent.virtual_offset + at, extent.file_offset + at)
        for extent in data
        for at in range(0, extent.length, sector_size)
    }
    assert found == expected
    assert later == [extent for extent in data if extent.virtual_offset > start]


def test_block_right_after_the_header_section_is_read(bench: Bench) -> None:
    """Where most files have their log."""
    spec = ImageSpec(MIB, MIB, {0: Block(file_offset=MIB)}, log_offset=4 * MIB)
    image = bench.assert_reads(spec)
    assert list(iter_extents(Chain((image,)))) == [Extent(ExtentKind.DATA, 0, MIB, image, MIB)]


@pytest.mark.parametrize("place", [0, 64 * MIB], ids=["in the header section", "past the end"])
def test_block_in_an_impossible_place_is_lost(place: int, tmp_path: Path) -> None:
    """Without an empty range of data."""
    spec = ImageSpec(3 * MIB, MIB, {k: Block() for k in range(3)})
    spec.bat_overrides = {1: place | BlockState.FULLY_PRESENT}
    spec.write(tmp_path / "disk.vhdx")
    with open_chain(tmp_path / "disk.vhdx", OpenOptions(salvage=True)) as chain:
        found = [(e.kind, e.virtual_offset, e.length) for e in iter_extents(chain)]
    assert found == [
        (ExtentKind.DATA, 0, MIB),
        (ExtentKind.LOST, MIB, MIB),
        (ExtentKind.DATA, 2 * MIB, MIB),
    ]


def test_missing_bitmap_needs_salvage(plain_image: VhdxImage) -> None:
    """A sound disk has one wherever one is needed; this disk has none."""
    with pytest.raises(AssertionError, match="any other disk was found to be sound"):
        _read_bitmap(plain_image, 0, 0, 1)
    assert _read_bitmap(replace(plain_image, salvaging=True), 0, 0, 1) is None


def test_lost_range_is_an_error_without_salvage(bench: Bench) -> None:
    """As when a table changes after it was checked: never zeros instead of data."""
    image = bench.open(ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()}))
    with bench.path.open("r+b") as file:
        file.seek(image.bat.entry_file_offset(2))
        file.write((2**64 - 4).to_bytes(8, "little"))
    image.bat._read_piece.cache_clear()
    with pytest.raises(CorruptImageError, match="has its bytes from 0x200000 on") as caught:
        list(iter_extents(Chain((image,))))
    assert (caught.value.finding.rule, caught.value.path) == ("R80", str(bench.path))
