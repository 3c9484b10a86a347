"""The grid of a disk as a standalone SVG, whose size is bounded whatever the disk."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import PurePath

from vhdx2raw.cli.commands.map.grid import CellRun, Grid
from vhdx2raw.cli.commands.map.picture import LOOKS, MIXED, Look, header, legend, look_of, words_for
from vhdx2raw.cli.console import format_size
from vhdx2raw.findings import printable

COLUMNS = 128
ROWS = 32
MAX_CELLS = COLUMNS * ROWS
CELL_WIDTH, CELL_HEIGHT = 7, 14
MARGIN = 16
ADDRESS_WIDTH = 120
LINE_HEIGHT = 20
MAX_NAME = 60
"""Characters of a name that fit beside the sizes."""

_CLASSES = {look: f"c{number}" for number, look in enumerate([*LOOKS.values(), MIXED])}


def draw_svg(grid: Grid, name: str, virtual_disk_size: int) -> str:
    """Return the text of the picture: a title, a legend, and a tooltip for each run of cells.

    Whatever the name, all of it is ASCII.
    """
    rows = -(-len(grid.cells) // COLUMNS)
    top = MARGIN + 2 * LINE_HEIGHT
    entries = list(legend(grid))
    width = ADDRESS_WIDTH + COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = top + rows * CELL_HEIGHT + (len(entries) + 1) * LINE_HEIGHT + MARGIN
    sizes = f'width="{width}" height="{height}"'
    box = f'viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {sizes} {box} role="img">',
        f"<title>{escape(header(grid, name, virtual_disk_size))}</title>",
        _style(),
        f'<rect class="page" {sizes}/>',
        _text(MARGIN, MARGIN + 12, header(grid, _short(name), virtual_disk_size), "name"),
    ]
    for row in range(rows):
        lines += _row(grid, row, top + row * CELL_HEIGHT)
    for number, (look, counts) in enumerate(entries, 1):
        y = top + rows * CELL_HEIGHT + number * LINE_HEIGHT
        lines.append(_rect(MARGIN, y, 12, look, height=12, close="/>"))
        lines.append(_text(MARGIN + 20, y + 11, f"{look.words}: {counts}"))
    text = "\n".join([*lines, "</svg>", ""])
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _style() -> str:
    """Give each kind of cell its colours, and letters that can be read on white and on black."""
    light = "".join(f".{name}{{fill:{look.light}}}" for look, name in _CLASSES.items())
    dark = "".join(f".{name}{{fill:{look.dark}}}" for look, name in _CLASSES.items())
    return (
        "<style>text{font:12px monospace;fill:#1f2328}.name{font-weight:bold}"
        f".page{{fill:#ffffff}}{light}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}"
        f".page{{fill:#0d1117}}{dark}}}</style>"
    )


def _row(grid: Grid, row: int, y: int) -> Iterator[str]:
    first = row * COLUMNS
    address = grid.start + first * grid.cell_size
    yield _text(MARGIN, y + 11, f"{address:#x}")
    for run in grid.iter_runs(first, min(first + COLUMNS, len(grid.cells))):
        x = MARGIN + ADDRESS_WIDTH + (run.first - first) * CELL_WIDTH
        opened = _rect(
            x, y, run.cell_count * CELL_WIDTH, look_of(run.holding), height=CELL_HEIGHT - 1
        )
        yield f"{opened}<title>{escape(_tooltip(grid, run))}</title></rect>"


def _tooltip(grid: Grid, run: CellRun) -> str:
    begin, end = grid.bounds(run)
    return f"{begin:#x} to {end:#x}, {format_size(end - begin)}: {words_for(run.holding)}"


def _rect(x: int, y: int, width: int, look: Look, *, height: int, close: str = ">") -> str:
    place = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    return f'<rect class="{_CLASSES[look]}" {place}{close}'


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{mark}>{escape(words)}</text>'


def _short(name: str) -> str:
    """Return the name of a file without its folder, and not too long to be read."""
    base = printable(PurePath(name).name)
    half = MAX_NAME // 2
    return base if len(base) <= MAX_NAME else f"{base[:half]}…{base[-half:]}"
