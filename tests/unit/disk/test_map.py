"""The map shows for every sector which file holds it, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builder import (
    GIB,
    MIB,
    TIB,
    Block,
    BlockState,
    DataDescriptorSpec,
    ImageSpec,
    ZeroDescriptorSpec,
    child_of,
)
from tests.support.files import write_files
from tests.support.memory import peak_memory
from tests.support.properties import cases
from tests.support.random_chains import PAGE, RandomChain, chains, write_chain
from vhdx2raw.disk.chain import Chain, OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.map import MapEntry, iter_map

DATA, ZERO = ExtentKind.DATA, ExtentKind.ZERO
PRESENT_STATES = (BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT)


class Fact(NamedTuple):
    """What is true of one sector, where it lies in its file unless that is in the log."""

    kind: ExtentKind
    depth: int
    present: bool
    file_offset: int | None = None


# -- the truth, from the description alone ---------------------------------------------------


def logged_pages(spec: ImageSpec) -> set[int]:
    """Give the file offset of every 4 KiB that some entry of the log writes."""
    pages: set[int] = set()
    for entry in spec.log.entries:
        for descriptor in entry.descriptors:
            if isinstance(descriptor, DataDescriptorSpec):
                pages.add(descriptor.file_offset)
            elif isinstance(descriptor, ZeroDescriptorSpec):
                start = descriptor.file_offset
                pages.update(range(start, start + descriptor.length, PAGE))
    return pages


class Truth:
    """A chain as described, sector by sector."""

    def __init__(self, specs: Sequence[ImageSpec], files: Sequence[ImageSpec]) -> None:
        self.specs = specs
        self.logged = [logged_pages(file) for file in files]
        self.placed = [spec.placement().blocks for spec in specs]

    def facts(self) -> list[Fact]:
        """Give the fact of each sector, in order."""
        top = self.specs[0]
        sector_size = top.logical_sector_size
        return [self.fact_at(at) for at in range(0, top.virtual_disk_size, sector_size)]

    def fact_at(self, position: int) -> Fact:
        for depth, spec in enumerate(self.specs):
            if position >= spec.virtual_disk_size:
                return Fact(ZERO, depth, present=False)
            index, start = divmod(position, spec.block_size)
            block = spec.blocks.get(index, Block(BlockState.NOT_PRESENT))
            if block.state in PRESENT_STATES:
                bits = None if block.state == BlockState.FULLY_PRESENT else block.sector_bits
                if not spec.is_differencing or bits is None or self._bit(spec, bits, start):
                    place = self.placed[depth][index] + start
                    is_logged = place - place % PAGE in self.logged[depth]
                    return Fact(DATA, depth, True, None if is_logged else place)  # noqa: FBT003
            elif block.state != BlockState.NOT_PRESENT:
                return Fact(ZERO, depth, present=True)
        return Fact(ZERO, len(self.specs) - 1, present=False)

    @staticmethod
    def _bit(spec: ImageSpec, bits: object, start: int) -> bool:
        assert hasattr(bits, "__contains__")
        return start // spec.logical_sector_size in bits


def facts_of(entries: Sequence[MapEntry], sector_size: int) -> Iterator[Fact]:
    """Cut a map into sectors."""
    for entry in entries:
        for shift in range(0, entry.length, sector_size):
            place = None if entry.file_offset is None else entry.file_offset + shift
            yield Fact(entry.kind, entry.depth, entry.present, place)


def assert_tiles(entries: Sequence[MapEntry], start: int, end: int) -> None:
    """Check that entries tile a range, and that no two neighbours could be one."""
    borders = [start, *(entry.start + entry.length for entry in entries)]
    assert [entry.start for entry in entries] == borders[:-1]
    assert borders[-1] == end
    for one, other in pairwise(entries):
        is_same = (one.kind, one.depth, one.present) == (other.kind, other.depth, other.present)
        both_placed = one.file_offset is not None and other.file_offset is not None
        if is_same and both_placed:
            assert one.file_offset is not None
            assert one.file_offset + one.length != other.file_offset
        elif is_same:
            assert one.file_offset != other.file_offset


# -- the map ---------------------------------------------------------------------------------


@pytest.mark.slow
@cases(40)
@given(chain=chains(), data=st.data())
def test_every_sector_is_where_it_was_put(chain: RandomChain, data: st.DataObject) -> None:
    size, sector_size = chain.specs[0].virtual_disk_size, chain.specs[0].logical_sector_size
    with TemporaryDirectory() as name:
        paths = write_chain(chain, Path(name))
        with open_chain(paths[0]) as opened:
            entries = list(iter_map(opened))
            assert_tiles(entries, 0, size)
            is_right = (
                list(facts_of(entries, sector_size)) == Truth(chain.specs, chain.files).facts()
            )
            assert is_right
            assert [entry.filename for entry in entries] == [str(paths[e.depth]) for e in entries]
            assert_reads_from_the_files(entries, chain.specs[0])
            start, end = sorted(data.draw(st.integers(0, size + 99)) for _ in range(2))
            assert list(iter_map(opened, start, end - start)) == cut(entries, start, end)


def assert_reads_from_the_files(entries: Sequence[MapEntry], spec: ImageSpec) -> None:
    """Read what is said to stand in a file there, with no other knowledge than the map."""
    for entry in entries:
        expected = spec.expected_disk(entry.start, entry.length)
        if entry.file_offset is not None:
            with Path(entry.filename).open("rb") as file:
                file.seek(entry.file_offset)
                is_right = file.read(entry.length) == expected
        else:
            is_right = entry.kind is DATA or not any(expected)
        assert is_right, entry


def cut(entries: Sequence[MapEntry], start: int, end: int) -> list[MapEntry]:
    """Cut a map to a range."""
    parts = []
    for entry in entries:
        low, high = max(start, entry.start), min(end, entry.end)
        if low < high:
            place = entry.file_offset
            moved = None if place is None else place + low - entry.start
            parts.append(entry._replace(start=low, length=high - low, file_offset=moved))
    return parts


def test_zeros_of_the_child_differ_from_missing_data(tmp_path: Path) -> None:
    """The parent's data below the first block is hidden, so it is a change of the child."""
    base = ImageSpec(4 * MIB, MIB, {0: Block(), 1: Block(BlockState.ZERO)})
    blocks = {0: Block(BlockState.UNMAPPED), 3: Block(BlockState.UNDEFINED)}
    child = child_of(base, ".\\base.vhdx", blocks=blocks)
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    with open_chain(path) as chain:
        entries = list(iter_map(chain))
    names = [str(tmp_path / name) for name in ("child.vhdx", "base.vhdx")]
    assert entries == [
        MapEntry(ZERO, 0, MIB, 0, names[0], present=True),
        MapEntry(ZERO, MIB, MIB, 1, names[1], present=True),
        MapEntry(ZERO, 2 * MIB, MIB, 1, names[1], present=False),
        MapEntry(ZERO, 3 * MIB, MIB, 0, names[0], present=True),
    ]


def test_lost_range_is_present_in_no_file(tmp_path: Path) -> None:
    base = ImageSpec(2 * MIB, MIB, {0: Block(), 1: Block()})
    child = child_of(base, ".\\gone.vhdx", blocks={1: Block()})
    path = write_files(tmp_path, {"child.vhdx": child})
    with open_chain(path, OpenOptions(salvage=True)) as chain:
        lost, data = iter_map(chain)
    assert lost == MapEntry(ExtentKind.LOST, 0, MIB, 0, str(path), present=False)
    assert data.kind is DATA


def test_map_of_64_tib_takes_little_memory(bench: Bench) -> None:
    """64 TiB in blocks of 1 MiB, of which three are present."""
    last = 64 * TIB // MIB - 1
    spec = ImageSpec(64 * TIB, MIB, {index: Block(content=0) for index in (last, 4096, 0)})
    image = bench.open(spec)
    entries: list[MapEntry] = []
    assert peak_memory(lambda: entries.extend(iter_map(Chain((image,))))) < 16 * MIB
    assert_tiles(entries, 0, 64 * TIB)
    data = [(entry.start, entry.length) for entry in entries if entry.kind is DATA]
    assert data == [(0, MIB), (4 * GIB, MIB), (last * MIB, MIB)]
    assert {entry.present for entry in entries if entry.kind is ZERO} == {False}


def test_entries_come_one_at_a_time(bench: Bench) -> None:
    image = bench.open(ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()}))
    entries = iter_map(Chain((image,)))
    assert next(entries).length == MIB
    image.close()
