"""The grid of a map: what every cell holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import GIB, KIB, TIB
from tests.support.memory import peak_memory
from vhdx2raw.cli.commands.map.grid import Grid, Holding, make_grid
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.map import MapEntry

DATA, ZERO = ExtentKind.DATA, ExtentKind.ZERO
KINDS = [
    (Holding.ZERO, ZERO, 0),
    (Holding.CHILD, DATA, 0),
    (Holding.PARENT, DATA, 1),
    (Holding.GRANDPARENT, DATA, 2),
    (Holding.ANCESTOR, DATA, 3),
    (Holding.ANCESTOR, DATA, 200),
    (Holding.LOST, ExtentKind.LOST, 0),
]


@given(
    start=st.integers(0, 1 << 46),
    parts=st.lists(st.tuples(st.integers(1, 9000), st.sampled_from(KINDS)), max_size=30),
    max_cells=st.integers(1, 60),
)
def test_a_cell_holds_what_overlaps_it(
    start: int, parts: list[tuple[int, tuple[Holding, ExtentKind, int]]], max_cells: int
) -> None:
    entries, position = [], start
    for length, (_, kind, depth) in parts:
        entries.append(MapEntry(kind, position, length, depth, "name", present=True))
        position += length
    grid = make_grid(entries, start, position - start, max_cells)
    cell_count = -(-(position - start) // grid.cell_size)
    assert cell_count == len(grid.cells) <= max_cells
    assert grid.cell_size.bit_count() == 1
    assert grid.cell_size == 512 or -(-(position - start) // (grid.cell_size // 2)) > max_cells
    for index, value in enumerate(grid.cells):
        low = start + index * grid.cell_size
        expected = Holding(0)
        for entry, (_, (holding, *_)) in zip(entries, parts, strict=True):
            if entry.start < low + grid.cell_size and entry.end > low:
                expected |= holding
        assert Holding(value) == expected
    for holding, *_ in KINDS:
        total = sum(length for length, (other, *_) in parts if other == holding)
        assert grid.totals.get(holding, 0) == total


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_runs_of_cells_tile_the_cells(cells: bytes, first: int, end: int) -> None:
    end = min(end, len(cells))
    first = min(first, end)
    runs = list(Grid(0, 512 * len(cells), 512, cells, {}).iter_runs(first, end))
    assert b"".join(bytes([run.holding]) * run.cell_count for run in runs) == cells[first:end]
    assert all(one.holding != other.holding for one, other in pairwise(runs))
    assert [run.first for run in runs][:1] == ([first] if first < end else [])


def test_the_last_cell_ends_with_the_range() -> None:
    grid = Grid(1000, 2000, 512, bytes([1, 1, 2, 2]), {})
    one, other = grid.iter_runs(0, 4)
    assert grid.bounds(one) == (1000, 2024)
    assert grid.bounds(other) == (2024, 3000)


@pytest.mark.parametrize("size", [64 * TIB, 64 * TIB - 512])
def test_grid_of_64_tib_takes_little_memory(size: int) -> None:
    entries = [MapEntry(ZERO, 0, size, 0, "name", present=False)]
    grids: list[Grid] = []
    assert peak_memory(lambda: grids.append(make_grid(entries, 0, size, 4096))) < 64 * KIB
    assert len(grids[0].cells) == 4096
    assert grids[0].cell_size == 16 * GIB
