"""The arithmetic agrees with the worked examples of the format, and is a bijection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import GIB, KIB, MIB, TIB
from vhdx2raw.units import ceil_div
from vhdx2raw.vhdx.geometry import Geometry

CHUNK_RATIOS = [
    (1, 4096, 32768),
    (2, 2048, 16384),
    (4, 1024, 8192),
    (8, 512, 4096),
    (16, 256, 2048),
    (32, 128, 1024),
    (64, 64, 512),
    (128, 32, 256),
    (256, 16, 128),
]
ENTRY_COUNTS = [
    # VDS, LSS, BS in MiB, (CR, P, S, entries without a parent, entries with one)
    (10 * GIB, 512, 1, (4096, 10240, 3, 10242, 12291)),
    (10 * GIB, 512, 2, (2048, 5120, 3, 5122, 6147)),
    (10 * GIB, 512, 32, (128, 320, 3, 322, 387)),
    (10 * GIB, 512, 256, (16, 40, 3, 42, 51)),
    (10 * GIB, 4096, 1, (32768, 10240, 1, 10240, 32769)),
    (10 * GIB, 4096, 32, (1024, 320, 1, 320, 1025)),
    (64 * TIB, 512, 1, (4096, 67108864, 16384, 67125247, 67125248)),
    (64 * TIB, 512, 32, (128, 2097152, 16384, 2113535, 2113536)),
    (64 * TIB, 512, 256, (16, 262144, 16384, 278527, 278528)),
    (64 * TIB, 4096, 1, (32768, 67108864, 2048, 67110911, 67110912)),
    (64 * TIB, 4096, 32, (1024, 2097152, 2048, 2099199, 2099200)),
    (127 * GIB, 512, 32, (128, 4064, 32, 4095, 4128)),
    (4 * GIB, 512, 32, (128, 128, 1, 128, 129)),
    (4 * GIB + 512, 512, 32, (128, 129, 2, 130, 258)),
    (5 * GIB + 512, 512, 32, (128, 161, 2, 162, 258)),
    (10 * MIB, 512, 32, (128, 1, 1, 1, 129)),
    (4 * KIB, 4096, 256, (128, 1, 1, 1, 129)),
]
POINTS = [
    # virtual offset, LSS, BS in MiB, (block, offset in it, chunk, payload index, bitmap index)
    (5 * GIB, 512, 32, (160, 0, 1, 161, 257)),
    (5 * GIB, 512, 1, (5120, 0, 1, 5121, 8193)),
    (0, 512, 32, (0, 0, 0, 0, 128)),
    (4 * GIB - 512, 512, 32, (127, 0x1FFFE00, 0, 127, 128)),
    (4 * GIB, 512, 32, (128, 0, 1, 129, 257)),
    (0x140001200, 512, 32, (160, 0x1200, 1, 161, 257)),
    (0x140001200, 512, 1, (5120, 0x1200, 1, 5121, 8193)),
    (64 * TIB - 512, 512, 32, (2097151, 0x1FFFE00, 16383, 2113534, 2113535)),
    (64 * TIB - 512, 512, 1, (67108863, 0xFFE00, 16383, 67125246, 67125247)),
    (0x140001000, 4096, 32, (160, 0x1000, 0, 160, 1024)),
]

geometries = st.builds(
    Geometry,
    virtual_disk_size=st.integers(1, 10 * GIB // 4096).map(lambda sectors: sectors * 4096),
    block_size=st.integers(3, 8).map(lambda power: MIB << power),
    logical_sector_size=st.sampled_from([512, 4096]),
    has_parent=st.booleans(),
)


@pytest.mark.parametrize(("block_mib", "ratio_512", "ratio_4096"), CHUNK_RATIOS)
def test_chunk_ratios_of_every_block_size(block_mib: int, ratio_512: int, ratio_4096: int) -> None:
    small = Geometry(TIB, block_mib * MIB, 512, has_parent=False)
    large = Geometry(TIB, block_mib * MIB, 4096, has_parent=False)
    assert (small.chunk_ratio, large.chunk_ratio) == (ratio_512, ratio_4096)
    assert (small.chunk_size, large.chunk_size) == (4 * GIB, 32 * GIB)


@pytest.mark.parametrize(("size", "sector", "block_mib", "counts"), ENTRY_COUNTS)
def test_entry_counts_of_the_worked_examples(
    size: int, sector: int, block_mib: int, counts: tuple[int, ...]
) -> None:
    dynamic = Geometry(size, block_mib * MIB, sector, has_parent=False)
    differencing = Geometry(size, block_mib * MIB, sector, has_parent=True)
    assert counts == (
        dynamic.chunk_ratio,
        dynamic.payload_block_count,
        dynamic.chunk_count,
        dynamic.bat_entry_count,
        differencing.bat_entry_count,
    )


@pytest.mark.parametrize(("offset", "sector", "block_mib", "indexes"), POINTS)
def test_indexes_of_the_worked_examples(
    offset: int, sector: int, block_mib: int, indexes: tuple[int, ...]
) -> None:
    geometry = Geometry(64 * TIB, block_mib * MIB, sector, has_parent=False)
    block, in_block = divmod(offset, geometry.block_size)
    chunk = offset // geometry.chunk_size
    assert block in geometry.blocks_of_chunk(chunk)
    assert indexes == (
        block,
        in_block,
        chunk,
        geometry.payload_bat_index(block),
        geometry.sector_bitmap_bat_index(chunk),
    )


def test_table_of_ten_gib_spelled_out() -> None:
    geometry = Geometry(10 * GIB, 32 * MIB, 512, has_parent=False)
    indexes = [geometry.payload_bat_index(block) for block in range(320)]
    assert indexes == [*range(128), *range(129, 257), *range(258, 322)]
    assert [geometry.sector_bitmap_bat_index(chunk) for chunk in range(3)] == [128, 257, 386]


@pytest.mark.parametrize(("size", "blocks"), [(512, 1), (2 * MIB, 1), (2 * MIB + 512, 2)])
def test_smallest_disks(size: int, blocks: int) -> None:
    geometry = Geometry(size, 2 * MIB, 512, has_parent=False)
    assert geometry.payload_block_count == geometry.bat_entry_count == blocks
    assert geometry.blocks_of_chunk(0) == range(blocks)
    assert geometry.used_block_size(blocks - 1) == (size - 1) % (2 * MIB) + 1


@given(geometries)
def test_every_bat_entry_belongs_to_one_block(geometry: Geometry) -> None:
    """Payload and bitmap entries are a bijection onto the table, save unused payload entries."""
    blocks, ratio, chunks = (
        geometry.payload_block_count,
        geometry.chunk_ratio,
        geometry.chunk_count,
    )
    # In a differencing disk the table goes on to the end of the last chunk (R75).
    count = chunks * ratio if geometry.has_parent else blocks
    payload = [geometry.payload_bat_index(block) for block in range(count)]
    bitmaps = [geometry.sector_bitmap_bat_index(chunk) for chunk in range(chunks)]
    if not geometry.has_parent:
        assert bitmaps.pop() >= geometry.bat_entry_count
    assert sorted(payload + bitmaps) == list(range(geometry.bat_entry_count))
    assert payload == sorted(payload)


@pytest.mark.slow
@given(geometries)
def test_chunks_tile_blocks_and_blocks_tile_the_disk(geometry: Geometry) -> None:
    chunks = [geometry.blocks_of_chunk(chunk) for chunk in range(geometry.chunk_count)]
    blocks = [block for chunk in chunks for block in chunk]
    assert blocks == list(range(geometry.payload_block_count))
    assert all(0 < len(chunk) <= geometry.chunk_ratio for chunk in chunks)
    used = [geometry.used_block_size(block) for block in blocks]
    assert sum(used) == geometry.virtual_disk_size
    assert all(size == geometry.block_size for size in used[:-1])
    assert 0 < used[-1] <= geometry.block_size


@given(geometries)
def test_bitmap_entry_follows_its_chunk(geometry: Geometry) -> None:
    for chunk in range(geometry.chunk_count - 1):
        last = geometry.blocks_of_chunk(chunk)[-1]
        index = geometry.sector_bitmap_bat_index(chunk)
        assert geometry.payload_bat_index(last) + 1 == index
        assert geometry.payload_bat_index(last + 1) - 1 == index


@given(st.integers(0, 1 << 70), st.integers(1, 1 << 40))
def test_ceil_div_is_the_least_count_that_covers(dividend: int, divisor: int) -> None:
    quotient = ceil_div(dividend, divisor)
    assert (quotient - 1) * divisor < dividend <= quotient * divisor
