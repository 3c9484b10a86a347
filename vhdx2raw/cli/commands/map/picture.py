"""The grid of a disk drawn in a terminal, and how each kind of cell looks there and elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

from vhdx2raw.cli.commands.map.grid import Grid, Holding
from vhdx2raw.cli.console import format_size, is_terminal
from vhdx2raw.findings import printable

RESET = "\x1b[0m"
MIN_COLUMNS = 16
MAX_ROWS = 32
MIN_ROWS = 4
LINES_BESIDE = 10
"""Lines of a terminal that are left for the header, the legend and the next prompt."""


class Look(NamedTuple):
    """How a kind of cell looks.

    Attributes:
        mark: Its character.
        words: What the legend calls it.
        codes: Its colours in a terminal, as parameters of the sequence SGR.
        light: Its colour in a picture on white.
        dark: Its colour in a picture on black.
    """

    mark: str
    words: str
    codes: str
    light: str
    dark: str


# The colours are those that Okabe and Ito chose to be distinguished by everybody.
LOOKS = {
    Holding.CHILD: Look("#", "data in the file itself", "97;44", "#0072b2", "#3b9ad9"),
    Holding.PARENT: Look("1", "data in its parent", "30;43", "#e69f00", "#e69f00"),
    Holding.GRANDPARENT: Look("2", "data in the parent's parent", "30;42", "#009e73", "#00b583"),
    Holding.ANCESTOR: Look("3", "data in a file further down", "97;45", "#cc79a7", "#cc79a7"),
    Holding.ZERO: Look(".", "zeros that are stored nowhere", "90", "#dfe3e8", "#30363d"),
    Holding.LOST: Look("!", "lost", "97;41", "#d55e00", "#d55e00"),
}
MIXED = Look("+", "several of these", "30;46", "#7a5195", "#b48ead")


def look_of(holding: Holding) -> Look:
    """Return how a cell looks."""
    return LOOKS.get(holding, MIXED)


def words_for(holding: Holding) -> str:
    """Return what a cell holds, kind by kind."""
    return " and ".join(look.words for kind, look in LOOKS.items() if kind & holding)


class Layout(NamedTuple):
    """The space that a terminal has for a grid.

    Attributes:
        address_width: Characters of the offset before each row.
        columns: Cells in a row.
        rows: Rows at most.
        coloured: Whether to use colours.
    """

    address_width: int
    columns: int
    rows: int
    coloured: bool

    @classmethod
    def of_terminal(cls, end: int) -> Layout:
        """Return what fits before the end of a line, where offsets go up to `end`.

        Rows are multiples of 16 cells, so that their offsets are round numbers.
        """
        width, lines = shutil.get_terminal_size()
        address_width = len(f"{end:#x}")
        columns = max(MIN_COLUMNS, (width - address_width - 1) // 16 * 16)
        rows = min(MAX_ROWS, max(MIN_ROWS, lines - LINES_BESIDE))
        return cls(address_width, columns, rows, wants_colour())

    @property
    def max_cells(self) -> int:
        """Cells that fit."""
        return self.columns * self.rows


def wants_colour() -> bool:
    """Return whether a person looks at stdout and wants colours (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return is_terminal(sys.stdout)


def draw(grid: Grid, layout: Layout, name: str, virtual_disk_size: int) -> Iterator[str]:
    """Yield the lines of the picture: a header, the rows, and a legend with counts."""
    yield header(grid, name, virtual_disk_size)
    for first in range(0, len(grid.cells), layout.columns):
        offset = grid.start + first * grid.cell_size
        end = min(first + layout.columns, len(grid.cells))
        runs = grid.iter_runs(first, end)
        cells = "".join(_paint(look_of(run.holding), run.cell_count, layout) for run in runs)
        yield f"{offset:#0{layout.address_width}x} {cells}"
    for look, counts in legend(grid):
        yield f"{_paint(look, 1, layout)} {look.words:<30} {counts}"


def header(grid: Grid, name: str, virtual_disk_size: int) -> str:
    """Return which disk this is, which range of it, and what a cell stands for."""
    part = ""
    if grid.length < virtual_disk_size:
        part = f", {grid.length:#x} bytes of it from {grid.start:#x} on"
    size = format_size(virtual_disk_size)
    return f"{printable(name)}: {size}{part}; one cell is {format_size(grid.cell_size)}"


def legend(grid: Grid) -> Iterator[tuple[Look, str]]:
    """Yield each kind that the grid shows, with how many cells and how many bytes there are."""
    counts = {Holding(value): grid.cells.count(value) for value in set(grid.cells)}
    for kind, look in LOOKS.items():
        if kind in grid.totals:
            yield look, f"{_cells(counts.pop(kind, 0))}, {format_size(grid.totals[kind])} in all"
    if counts:
        yield MIXED, _cells(sum(counts.values()))


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"


def _paint(look: Look, count: int, layout: Layout) -> str:
    cells = look.mark * count
    return f"\x1b[{look.codes}m{cells}{RESET}" if layout.coloured else cells
