"""The chains of a folder drawn for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from vhdx2raw.cli.commands.tree.nodes import Node, conversion_of
from vhdx2raw.cli.console import can_print, format_error, format_size, hint_of
from vhdx2raw.errors import ImageError, ParentError, ParentMismatchError, ParentNotFoundError
from vhdx2raw.findings import printable
from vhdx2raw.source.file_object import is_url

GUID_DIGITS = 8
NANOSECONDS = 10**9


class Strokes(NamedTuple):
    """What leads to a child: past siblings of those above it, to it, to the last one."""

    past: str
    to: str
    to_last: str


LINES = Strokes("│  ", "├─ ", "└─ ")
ASCII_LINES = Strokes("|  ", "|- ", "`- ")


def iter_lines(folder: str, nodes: Sequence[Node], failed: int) -> Iterator[str]:
    """Yield the drawing, why some images cannot be converted, and how the tips are."""
    tips = sum(node.is_tip for node in nodes)
    unreadable = f", {failed} unreadable" if failed else ""
    yield printable(f"{folder}: {_count(len(nodes), 'image')}, {_count(tips, 'tip')}{unreadable}")
    strokes = LINES if can_print("".join(LINES)) else ASCII_LINES
    rows = [_row(folder, node, strokes) for node in nodes]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *sizes, date, guid, words in rows:
        cells = [name.ljust(widths[0])]
        cells += (size.rjust(width) for size, width in zip(sizes, widths[1:], strict=False))
        yield "  ".join([*cells, date.ljust(widths[-3]), guid, words]).rstrip()
    for node in nodes:
        if node.error:
            yield ""
            yield printable(format_error(node.error))
            yield from filter(None, [hint_of(node.error)])
    commands = filter(None, map(conversion_of, nodes))
    lines = [printable(shlex.join(command)) for command in commands]
    yield from ["", *lines] if lines else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _row(folder: str, node: Node, strokes: Strokes) -> tuple[str, ...]:
    """Return the name with what leads to it, sizes, date, GUID, and what there is to know."""
    image = node.image
    lines = "".join("   " if is_last else strokes.past for is_last in node.ends[:-1])
    if node.ends:
        lines += strokes.to_last if node.ends[-1] else strokes.to
    path = Path(image.path)
    name = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    if is_url(image.path):
        name = image.path.removeprefix(f"{folder.rstrip('/')}/")
    date = datetime.fromtimestamp(image.modified_ns / NANOSECONDS).astimezone()
    return (
        f"{lines}{printable(name)}",
        format_size(image.metadata.virtual_disk_size),
        format_size(image.stored_size),
        f"{date:%Y-%m-%d %H:%M}" if image.modified_ns else "",
        str(image.data_write_guid)[:GUID_DIGITS],
        ", ".join(_remarks(node)),
    )


def _remarks(node: Node) -> Iterator[str]:
    if node.is_tip:
        yield "tip"
    if node.image.is_dirty:
        yield "dirty log"
    if node.error:
        needed = " or ".join(str(version)[:GUID_DIGITS] for version in node.image.linkages)
        yield _word_for(node.error) + (f" (needs {needed})" if needed else "")


def _word_for(error: ImageError | ParentError) -> str:
    if isinstance(error, ParentMismatchError):
        return "mismatch"
    return "orphan" if isinstance(error, ParentNotFoundError) else "broken chain"
