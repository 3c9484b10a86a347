"""A range of the virtual disk as a grid of cells, for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntFlag, auto
from itertools import groupby
from typing import NamedTuple

from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.map import MapEntry
from vhdx2raw.units import ceil_div

MIN_CELL_SIZE = 512


class Holding(IntFlag):
    """What a cell of a grid holds; a cell may hold several."""

    ZERO = auto()
    CHILD = auto()
    PARENT = auto()
    GRANDPARENT = auto()
    ANCESTOR = auto()
    LOST = auto()


_BY_DEPTH = (Holding.CHILD, Holding.PARENT, Holding.GRANDPARENT, Holding.ANCESTOR)


def _holding_of(entry: MapEntry) -> Holding:
    match entry.kind:
        case ExtentKind.DATA:
            return _BY_DEPTH[min(entry.depth, len(_BY_DEPTH) - 1)]
        case ExtentKind.ZERO | ExtentKind.INHERITED:
            return Holding.ZERO
        case ExtentKind.LOST:
            return Holding.LOST


class CellRun(NamedTuple):
    """Consecutive cells that hold the same.

    Attributes:
        first: Index of the first cell.
        cell_count: How many.
        holding: What each of them holds.
    """

    first: int
    cell_count: int
    holding: Holding


class Grid(NamedTuple):
    """A range of the virtual disk as cells of one size.

    Attributes:
        start: Where the first cell begins in the virtual disk, in bytes.
        length: Bytes of all cells; the last one may be shorter than the others.
        cell_size: Bytes that a cell stands for, a power of two.
        cells: What each cell holds, as the value of a `Holding`.
        totals: Bytes of each kind in the range.
    """

    start: int
    length: int
    cell_size: int
    cells: bytes
    totals: Mapping[Holding, int]

    def iter_runs(self, first: int, end: int) -> Iterator[CellRun]:
        """Yield the runs of like cells that tile those from `first` to `end`."""
        for value, group in groupby(self.cells[first:end]):
            count = sum(1 for _ in group)
            yield CellRun(first, count, Holding(value))
            first += count

    def bounds(self, run: CellRun) -> tuple[int, int]:
        """Return where a run of cells begins and ends in the virtual disk, in bytes."""
        begin = self.start + run.first * self.cell_size
        return begin, min(begin + run.cell_count * self.cell_size, self.start + self.length)


def make_grid(entries: Iterable[MapEntry], start: int, length: int, max_cells: int) -> Grid:
    """Lay a grid of at most `max_cells` cells over entries that tile a range.

    Takes time for each entry and each cell, and memory for each cell.
    """
    cell_size = MIN_CELL_SIZE
    while ceil_div(length, cell_size) > max_cells:
        cell_size *= 2
    cells = bytearray(ceil_div(length, cell_size))
    totals: dict[Holding, int] = {}
    for entry in entries:
        holding = _holding_of(entry)
        totals[holding] = totals.get(holding, 0) + entry.length
        first = (entry.start - start) // cell_size
        last = (entry.end - 1 - start) // cell_size
        cells[first] |= holding
        cells[last] |= holding
        if first + 1 < last:
            cells[first + 1 : last] = bytes([holding]) * (last - first - 1)
    return Grid(start, length, cell_size, bytes(cells), totals)
