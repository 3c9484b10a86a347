"""`vhdx2raw map`: what every range of the disk is, as a table, as JSON or as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated

import typer

from vhdx2raw.cli.commands.map.grid import make_grid
from vhdx2raw.cli.commands.map.picture import Layout, draw
from vhdx2raw.cli.commands.map.svg import MAX_CELLS, draw_svg
from vhdx2raw.cli.console import format_size, parse_size, print_damage, print_result
from vhdx2raw.cli.exit_codes import OUTPUT, SALVAGED
from vhdx2raw.cli.files import write_file
from vhdx2raw.cli.options.groups import parsed
from vhdx2raw.cli.options.opening import (
    STANDARD_STREAM,
    Image,
    OpeningFlags,
    PartitionFlags,
    SalvageFlags,
)
from vhdx2raw.cli.options.reporting import JsonFlags, VerbosityFlags
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.map import MapEntry
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.findings import printable

EXAMPLES = """\b
Examples:
  vhdx2raw map disk.vhdx                  a line for each range of the disk
  vhdx2raw map disk.vhdx | grep ' data '  only what is stored
  vhdx2raw map --json disk.vhdx           with the keys of qemu-img map
  vhdx2raw map --picture disk.vhdx        the disk drawn in the terminal
  vhdx2raw map --svg disk.svg disk.vhdx   the same as a file for a browser
  vhdx2raw map --partition 2 server.vhdx  offsets count from its start
  vhdx2raw map --start-offset 1G --max-length 64M disk.vhdx
"""

LINES_AT_ONCE = 1000


def run(
    image: Image,
    *,
    start_offset: Annotated[
        int,
        typer.Option(
            "--start-offset",
            metavar="SIZE",
            parser=parsed(parse_size),
            help="Begin at this offset.",
        ),
    ] = "0",  # type: ignore[assignment]  # parsed by Typer
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            metavar="SIZE",
            parser=parsed(parse_size),
            help="Show no more than this many bytes.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Draw the disk in the terminal.")
    ] = False,
    svg: Annotated[
        str | None,
        typer.Option(
            "--svg",
            metavar="FILE",
            help=f"Draw the disk as an SVG; '{STANDARD_STREAM}' is standard output.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the SVG file if it exists.")
    ] = False,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Show which ranges of the disk are stored, and where.

    "data" is stored in the file at that offset; with the word "log" there, it is in the log of
    the file. "zero" is what the file says to be zeros; "absent" is in no file, and reads as zeros.
    """
    if bool(as_json) + picture + (svg is not None) > 1:
        raise typer.BadParameter("give only one of --json, --picture and --svg")
    with part.open(image, opening.options(salvage)) as disk:
        verbosity.print_warnings(disk.warnings)
        print_damage(disk.damage)
        start = min(start_offset, disk.size)
        length = min(disk.size - start, disk.size if max_length is None else max_length)
        if svg is not None:
            _write_svg(disk, start, length, svg, force=force)
        else:
            _print_lines(_iter_lines(disk, start, length, as_json=bool(as_json), picture=picture))
        if disk.damage:
            raise typer.Exit(SALVAGED)


def _iter_lines(
    disk: VirtualDisk, start: int, length: int, *, as_json: bool, picture: bool
) -> Iterator[str]:
    """Return the lines of the form that was asked for."""
    if picture:
        return _iter_picture(disk, start, length)
    entries = disk.map_entries(start, length)
    return _iter_json(entries) if as_json else _iter_table(disk, entries)


def _print_lines(lines: Iterator[str]) -> None:
    """Write lines to stdout as they come; a reader who has seen enough is no news."""
    try:
        while batch := list(islice(lines, LINES_AT_ONCE)):
            print_result("\n".join(batch))
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise typer.Exit(OUTPUT) from error
        raise


def _iter_json(entries: Iterable[MapEntry]) -> Iterator[str]:
    """Yield the lines of a JSON array, one for each entry, as qemu-img does."""
    opening, line = "[", None
    for entry in entries:
        if line is not None:
            yield f"{line},"
            opening = " "
        line = opening + json.dumps(_facts(entry))
    yield f"{line or '['}]"


def _facts(entry: MapEntry) -> dict[str, object]:
    """Return what docs/schemas/map.json describes."""
    facts: dict[str, object] = {
        "start": entry.start,
        "length": entry.length,
        "depth": entry.depth,
        "present": entry.present,
        "zero": entry.kind is ExtentKind.ZERO,
        "data": entry.kind is ExtentKind.DATA,
    }
    if entry.file_offset is not None:
        facts["offset"] = entry.file_offset
    return facts | {"filename": entry.filename}


def _iter_table(disk: VirtualDisk, entries: Iterable[MapEntry]) -> Iterator[str]:
    """Yield a line for each entry, its columns as wide as the numbers can be."""
    width = len(f"{disk.size:#x}")
    offset_width = max(len(f"{image.source.size:#x}") for image in disk.chain.images)
    row = f"{{:<{width}}}  {{:<{width}}}  {{:>8}}  {{:<6}}  {{:>5}}  {{:<{offset_width}}}  {{}}"
    yield row.format("start", "length", "size", "what", "depth", "offset", "file")
    for entry in entries:
        what, offset = _words_of(entry)
        yield row.format(
            f"{entry.start:#0{width}x}",
            f"{entry.length:#0{width}x}",
            format_size(entry.length).replace(" ", ""),
            what,
            entry.depth if entry.present else "-",
            offset if entry.file_offset is None else f"{entry.file_offset:#0{offset_width}x}",
            printable(entry.filename) if entry.present else "-",
        )


def _words_of(entry: MapEntry) -> tuple[str, str]:
    """Return what an entry is called, and where its bytes are if they have no offset."""
    match entry.kind:
        case ExtentKind.DATA:
            return "data", "log"
        case ExtentKind.ZERO | ExtentKind.INHERITED:
            return "zero" if entry.present else "absent", "-"
        case ExtentKind.LOST:
            return "lost", "-"


def _iter_picture(disk: VirtualDisk, start: int, length: int) -> Iterator[str]:
    layout = Layout.of_terminal(start + length)
    grid = make_grid(disk.map_entries(start, length), start, length, layout.max_cells)
    yield from draw(grid, layout, disk.name, disk.size)


def _write_svg(disk: VirtualDisk, start: int, length: int, path: str, *, force: bool) -> None:
    grid = make_grid(disk.map_entries(start, length), start, length, MAX_CELLS)
    text = draw_svg(grid, disk.name, disk.size)
    if path == STANDARD_STREAM:
        _print_lines(iter(text.splitlines()))
    else:
        data = text.encode("ascii")
        write_file(path, data, disk.chain.identities, force=force, interruptible=True)
