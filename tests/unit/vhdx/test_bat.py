"""The table as runs of its raw entries (R71 to R76)."""

from __future__ import annotations

import errno
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builder import GIB, MIB, TIB, Block, BlockState, ImageSpec, golden_g4
from tests.support.sources import BadSource, forget_holes
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx import bat
from vhdx2raw.vhdx.bat import MISSING_ENTRY, OCCUPYING_STATES, Bat, BlockRun
from vhdx2raw.vhdx.geometry import Geometry
from vhdx2raw.vhdx.layout import RESERVED_MASK, PayloadBlockState
from vhdx2raw.vhdx.region import Region

BLOCK = 256 * MIB
RATIO = 16
REGION_OFFSET = 4096

plain_entries = st.builds(
    lambda state, megabyte, reserved: megabyte << 20 | reserved << 3 | state,
    st.integers(0, 7),
    st.sampled_from([0, 1, 5, 2**44 - 1]),
    st.sampled_from([0, 0, 0, 0, 1, 0x1FFFF]),
)
stretches = st.tuples(plain_entries, st.integers(1, 40), st.sampled_from([0, MIB, BLOCK]))


@st.composite
def raw_tables(draw: st.DrawFn) -> list[int]:
    """Give entries in stretches that stay the same or rise, so that there are long runs."""
    entries: list[int] = []
    for first, count, stride in draw(st.lists(stretches, min_size=1, max_size=8)):
        entries += [(first + i * stride) % 2**64 for i in range(count)]
    return entries


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "table"


def open_table(path: Path, raw: list[int], geometry: Geometry) -> tuple[Bat, FileSource]:
    """Lay a table over a file that holds just these entries, after a page of something else."""
    path.write_bytes(b"\xee" * REGION_OFFSET + struct.pack(f"<{len(raw)}Q", *raw))
    source = FileSource(path)
    return Bat(source, Region("BAT region", REGION_OFFSET, 8 * len(raw)), geometry), source


def geometry_of(entry_count: int, *, has_parent: bool) -> Geometry:
    """Give a disk whose table has at most this many entries."""
    chunks, rest = divmod(entry_count, RATIO + 1)
    blocks = chunks * RATIO + min(rest, RATIO)
    if has_parent:
        blocks = max(1, chunks * RATIO - 3)
    return Geometry(max(1, blocks) * BLOCK - 512, BLOCK, 512, has_parent)


def expand(run: BlockRun) -> dict[int, int]:
    """Give the entries that a run stands for, by payload block index."""
    occupies = run.state in (PayloadBlockState.FULLY_PRESENT, PayloadBlockState.PARTIALLY_PRESENT)
    stride = BLOCK if occupies else 0
    return {run.first_block + i: run.entry + i * stride for i in range(run.block_count)}


# -- runs ------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=300)
@given(raw_tables(), st.booleans(), st.sampled_from([1, 17 * 8, 40 * 8, MIB]), st.data())
def test_runs_are_the_entries(
    table_path: Path,
    raw: list[int],
    has_parent: bool,  # noqa: FBT001
    piece_size: int,
    data: st.DataObject,
) -> None:
    raw = raw + [0] * (RATIO + 1)
    geometry = geometry_of(len(raw), has_parent=has_parent)
    blocks = geometry.payload_block_count
    first = data.draw(st.integers(0, blocks))
    end = data.draw(st.integers(first, blocks))
    with patch.object(bat, "PIECE_SIZE", piece_size):
        table, source = open_table(table_path, raw, geometry)
    runs = list(table.iter_runs(first, end))
    bitmap_entries = [table.sector_bitmap_entry(c) for c in range(geometry.chunk_count)]
    source.close()
    expanded = [pair for run in runs for pair in expand(run).items()]
    assert expanded == [(k, raw[geometry.payload_bat_index(k)]) for k in range(first, end)]
    indexes = [geometry.sector_bitmap_bat_index(c) for c in range(geometry.chunk_count)]
    count = geometry.bat_entry_count
    assert bitmap_entries == [raw[index] if index < count else 0 for index in indexes]
    for run, following in pairwise(runs):
        is_nowhere = run.state in OCCUPYING_STATES and not run.file_offset
        if following.first_block % RATIO and not is_nowhere:
            longer = run._replace(block_count=run.block_count + 1)
            assert following.entry != expand(longer)[run.end_block], "two runs could be one"


def test_run_has_state_and_place() -> None:
    run = BlockRun(5, 3, 0x400000 | 7)
    assert run.state is PayloadBlockState.PARTIALLY_PRESENT
    assert run.file_offset == 0x400000
    assert run.end_block == 8


@pytest.mark.parametrize("state", PayloadBlockState)
def test_a_split_run_is_a_run_for_each_block(state: PayloadBlockState) -> None:
    run = BlockRun(5, 3, 0x400000 | state)
    assert {k: v for part in run.split(BLOCK) for k, v in expand(part).items()} == expand(run)
    assert [(part.first_block, part.block_count) for part in run.split(BLOCK)] == [
        (5, 1),
        (6, 1),
        (7, 1),
    ]


def test_entries_follow_each_other(table_path: Path) -> None:
    table, source = open_table(table_path, [0] * 40, geometry_of(40, has_parent=False))
    source.close()
    assert [table.entry_file_offset(index) for index in (0, 1, 39)] == [4096, 4104, 4096 + 312]


def test_a_missing_last_bitmap_entry_counts_as_zero(table_path: Path) -> None:
    """DiscUtils makes the table of a child as short as that of a dynamic disk."""
    geometry = Geometry(18 * BLOCK, BLOCK, 512, has_parent=True)
    raw = [6 | 1 << 20] * 17 + [6 | 9 << 20] * 2
    table, source = open_table(table_path, raw, geometry)
    assert table.sector_bitmap_entry(0) == 6 | 1 << 20
    assert table.sector_bitmap_entry(1) == 0
    assert [run.first_block for run in table.iter_runs(16, 18)] == [16, 17]
    source.close()


class CountingSource(FileSource):
    """Remembers the length of every read."""

    reads: list[int]

    def pread(self, file_offset: int, length: int) -> bytes:
        self.reads.append(length)
        return super().pread(file_offset, length)


@pytest.mark.parametrize("knows_holes", [False, True])
def test_huge_empty_table_is_a_few_runs_read_in_pieces(
    table_path: Path, monkeypatch: pytest.MonkeyPatch, *, knows_holes: bool
) -> None:
    if not knows_holes:
        forget_holes(monkeypatch)
    geometry = Geometry(64 * TIB, 32 * MIB, 512, has_parent=False)
    size = geometry.bat_entry_count * 8
    with table_path.open("wb") as file:
        file.truncate(size)
    source = CountingSource(table_path)
    source.reads = []
    table = Bat(source, Region("BAT region", 0, size), geometry)
    runs = list(table.iter_runs(0, geometry.payload_block_count))
    source.close()
    assert sum(run.block_count for run in runs) == 2097152
    assert all(run.entry == 0 for run in runs)
    assert len(runs) == 17
    assert sum(source.reads) == (0 if knows_holes else size)
    assert max(source.reads, default=0) <= MIB


def test_walking_a_piece_by_the_block_reads_it_once(table_path: Path) -> None:
    table_path.write_bytes(struct.pack("<100Q", *range(0, 800, 8)))
    source = CountingSource(table_path)
    source.reads = []
    geometry = Geometry(64 * BLOCK, BLOCK, 512, has_parent=False)
    table = Bat(source, Region("BAT region", 0, 800), geometry)
    for block in range(64):
        assert list(table.iter_runs(block, block + 1)) == [
            BlockRun(block, 1, 8 * (block + block // 16))
        ]
    source.close()
    assert len(source.reads) == 1


def test_entries_are_little_endian_on_any_host(
    table_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host of the other byte order is played by a file of the other byte order."""
    raw = [6 | 5 << 20, 2, 3]
    is_little = sys.byteorder == "little"
    table_path.write_bytes(struct.pack(">3Q" if is_little else "<3Q", *raw))
    source = FileSource(table_path)
    geometry = Geometry(3 * BLOCK, BLOCK, 512, has_parent=False)
    table = Bat(source, Region("BAT region", 0, 24), geometry)
    monkeypatch.setattr(sys, "byteorder", "big")
    runs = list(table.iter_runs(0, 3))
    monkeypatch.undo()
    source.close()
    assert [run.entry for run in runs] == raw


@pytest.mark.slow
def test_several_threads_see_the_same_table(table_path: Path) -> None:
    raw = [(i % 5) | (6 if i % 3 else 0) for i in range(2000)]
    geometry = geometry_of(len(raw), has_parent=False)
    with patch.object(bat, "PIECE_SIZE", 17 * 8 * 3):
        table, source = open_table(table_path, raw, geometry)
    blocks = geometry.payload_block_count
    alone = list(table.iter_runs(0, blocks))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: list(table.iter_runs(0, blocks)), range(32)))
    source.close()
    assert all(result == alone for result in results)


# -- what cannot be read ---------------------------------------------------------------------


ENTRIES = 20 * (RATIO + 1)
PLACED = [6 | (1000 + 256 * index) * MIB for index in range(ENTRIES)]
"""A table no entry of which is like another; of the 20 chunks, none ends with a sector."""


def open_bad_table(path: Path, *bad: int, lenient: bool = True) -> tuple[Bat, FileSource]:
    """Lay a table over a file some of whose entries cannot be read."""
    path.write_bytes(b"\xee" * REGION_OFFSET + struct.pack(f"<{ENTRIES}Q", *PLACED))
    source = BadSource(path, *(REGION_OFFSET + 8 * index for index in bad))
    geometry = Geometry(20 * RATIO * BLOCK, BLOCK, 512, has_parent=True)
    region = Region("BAT region", REGION_OFFSET, 8 * ENTRIES)
    return Bat(source, region, geometry, lenient=lenient), source


def entries_of(table: Bat) -> list[int]:
    """Give every entry of a table, in order, by its runs and its bitmap entries."""
    geometry = table.geometry
    entries = [0] * geometry.bat_entry_count
    for run in table.iter_runs(0, geometry.payload_block_count):
        for block, entry in expand(run).items():
            entries[geometry.payload_bat_index(block)] = entry % 2**64
    for chunk in range(geometry.chunk_count):
        index = geometry.sector_bitmap_bat_index(chunk)
        entries[index] = table.sector_bitmap_entry(chunk)
    return entries


@pytest.mark.parametrize("piece_size", [17 * 8 * 7, MIB])
@pytest.mark.parametrize("bad", [0, 1, 63, 64, 100, 127, 128, ENTRIES - 1])
def test_unreadable_entry_loses_the_sector_around_it(
    table_path: Path, bad: int, piece_size: int
) -> None:
    """As far as one piece of the table goes."""
    with patch.object(bat, "PIECE_SIZE", piece_size):
        table, source = open_bad_table(table_path, bad)
    found = entries_of(table)
    source.close()
    lost = [index for index in range(ENTRIES) if found[index] != PLACED[index]]
    assert bad in lost
    assert {index // 64 for index in lost} == {bad // 64}
    assert {found[index] for index in lost} == {MISSING_ENTRY}
    if piece_size == MIB:
        assert lost == [index for index in range(ENTRIES) if index // 64 == bad // 64]
        assert table.unreadable == {REGION_OFFSET + bad // 64 * 512: "Input/output error"}


def test_two_bad_sectors_cost_two_sectors(table_path: Path) -> None:
    table, source = open_bad_table(table_path, 70, 310)
    found = entries_of(table)
    source.close()
    lost = [index for index in range(ENTRIES) if found[index] == MISSING_ENTRY]
    assert lost == [*range(64, 128), *range(256, 320)]
    assert sorted(table.unreadable) == [REGION_OFFSET + 8 * 64, REGION_OFFSET + 8 * 256]


def test_unreadable_table_fails_strict_reader(table_path: Path) -> None:
    table, source = open_bad_table(table_path, 70, lenient=False)
    with pytest.raises(OSError, match="Input/output error"):
        entries_of(table)
    with pytest.raises(OSError, match="Input/output error"):
        table.sector_bitmap_entry(0)
    source.close()
    assert table.unreadable == {}


@pytest.mark.parametrize("piece_size", [17 * 8 * 3, MIB])
@pytest.mark.parametrize("rest", [0, 8 * 5, 8 * 16, 8 * 17, 8 * 20 + 7, 8 * (ENTRIES - 1)])
def test_entries_past_the_end_of_the_file_are_missing(
    table_path: Path, rest: int, piece_size: int
) -> None:
    """Only a lenient reader asks for them; the bitmap entry of a chunk is no entry then."""
    open_bad_table(table_path)[1].close()
    with table_path.open("r+b") as file:
        file.truncate(REGION_OFFSET + rest)
    source = FileSource(table_path)
    geometry = Geometry(20 * RATIO * BLOCK, BLOCK, 512, has_parent=True)
    region = Region("BAT region", REGION_OFFSET, 8 * ENTRIES)
    with patch.object(bat, "PIECE_SIZE", piece_size):
        table = Bat(source, region, geometry, lenient=True)
    found = entries_of(table)
    source.close()
    bitmaps = {geometry.sector_bitmap_bat_index(chunk) for chunk in range(geometry.chunk_count)}
    for index, entry in enumerate(found):
        missing = 0 if index in bitmaps else MISSING_ENTRY
        assert entry == (PLACED[index] if index < rest // 8 else missing)


def test_bytes_past_the_region_are_no_entries(table_path: Path) -> None:
    """Though the file goes on, and the table of the disk would."""
    open_bad_table(table_path)[1].close()
    source = FileSource(table_path)
    geometry = Geometry(20 * RATIO * BLOCK, BLOCK, 512, has_parent=True)
    table = Bat(source, Region("BAT region", REGION_OFFSET, 8 * 20), geometry)
    runs = list(table.iter_runs(0, 24))
    bitmaps = [table.sector_bitmap_entry(chunk) for chunk in (0, 1, 2)]
    source.close()
    entries = {block: entry for run in runs for block, entry in expand(run).items()}
    assert [entry == MISSING_ENTRY for entry in entries.values()] == [False] * 19 + [True] * 5
    assert bitmaps == [PLACED[16], 0, 0]


def test_rest_of_a_cut_empty_table_is_missing(table_path: Path) -> None:
    table_path.write_bytes(bytes(8 * 20))
    source = FileSource(table_path)
    geometry = Geometry(20 * RATIO * BLOCK, BLOCK, 512, has_parent=True)
    region = Region("BAT region", 0, 8 * ENTRIES)
    runs = list(Bat(source, region, geometry, lenient=True).iter_runs(0, 24))
    source.close()
    entries = {block: entry for run in runs for block, entry in expand(run).items()}
    assert list(entries.values()) == [0] * 19 + [MISSING_ENTRY] * 5


def test_wholly_unreadable_table_is_missing(
    table_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_holes(monkeypatch)

    class NoSource(FileSource):
        def pread(self, file_offset: int, length: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    geometry = Geometry(32 * TIB, BLOCK, 512, has_parent=False)
    size = 8 * geometry.bat_entry_count
    with table_path.open("wb") as file:
        file.truncate(size)
    source = NoSource(table_path)
    table = Bat(source, Region("BAT region", 0, size), geometry, lenient=True)
    runs = list(table.iter_runs(0, geometry.payload_block_count))
    source.close()
    assert {run.entry for run in runs} == {MISSING_ENTRY}
    assert sum(run.block_count for run in runs) == geometry.payload_block_count
    assert set(range(0, size, 512)) <= set(table.unreadable)


def test_region_past_the_end_has_no_entries(table_path: Path) -> None:
    table_path.write_bytes(b"\xee" * 100)
    source = FileSource(table_path)
    geometry = Geometry(20 * RATIO * BLOCK, BLOCK, 512, has_parent=False)
    table = Bat(source, Region("BAT region", REGION_OFFSET, 8 * ENTRIES), geometry)
    runs = list(table.iter_runs(0, geometry.payload_block_count))
    source.close()
    assert {run.entry for run in runs} == {MISSING_ENTRY}
    assert sum(run.block_count for run in runs) == geometry.payload_block_count


def test_a_missing_entry_is_one_that_cannot_be_right() -> None:
    """Nothing can take the block for one that is stored somewhere."""
    run = BlockRun(0, 1, MISSING_ENTRY)
    assert run.state is PayloadBlockState.RESERVED
    assert MISSING_ENTRY & RESERVED_MASK == RESERVED_MASK


# -- whole images ----------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [False, True])
def test_dynamic_and_fixed_tables_have_bitmap_entries(
    bench: Bench,
    fixed: bool,  # noqa: FBT001
) -> None:
    spec = golden_g4()
    spec.leave_block_allocated = fixed
    image = bench.assert_reads(spec)
    assert image.geometry.chunk_ratio == 4096
    assert [image.bat.entry_file_offset(index) - 3 * MIB for index in (0, 4097)] == [0, 32776]


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_blocks_on_both_sides_of_every_chunk_border(bench: Bench, sector_size: int) -> None:
    ratio = 2**23 * sector_size // BLOCK
    blocks = [k for border in (1, 2) for k in (border * ratio - 1, border * ratio)]
    spec = ImageSpec(
        2 * ratio * BLOCK + 4096,
        BLOCK,
        {k: Block(content={0: b"block %d" % k, BLOCK - 9: b"its end"}) for k in reversed(blocks)},
        logical_sector_size=sector_size,
    )
    bench.assert_reads(spec)


@pytest.mark.parametrize("size", [512, 2 * MIB, 2 * MIB + 512])
def test_tables_of_one_and_two_entries(bench: Bench, size: int) -> None:
    count = -(-size // (2 * MIB))
    spec = ImageSpec(size, 2 * MIB, {k: Block() for k in range(count)})
    assert bench.assert_reads(spec).geometry.bat_entry_count == count


def test_what_follows_the_table_is_not_part_of_it(bench: Bench) -> None:
    spec = ImageSpec(3 * MIB, MIB, {0: Block(), 2: Block(BlockState.ZERO)})
    spec.bat_overrides = dict.fromkeys((3, 4, 4096, 131071), 2**64 - 1)
    bench.assert_reads(spec)


def test_blocks_in_reverse_and_shuffled_order(bench: Bench) -> None:
    spec = ImageSpec(8 * MIB, MIB, {k: Block() for k in (7, 6, 5, 0, 3, 1, 2)})
    bench.assert_reads(spec)


def test_a_table_of_several_regions_mib(bench: Bench) -> None:
    """The table of 1-MiB blocks needs more than a MiB from 128 GiB on."""
    last = 300 * GIB // MIB - 1
    spec = ImageSpec(300 * GIB, MIB, {k: Block(content=k % 200 + 1) for k in (last, 131000, 0)})
    image = bench.assert_reads(spec)
    assert image.regions.bat.length == 3 * MIB
