"""`vhdx2raw convert`: VHDX files become raw images."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vhdx2raw.cli.commands.convert.outcome import Converter, require_consistent
from vhdx2raw.cli.console import is_terminal, print_json
from vhdx2raw.cli.options.converting import NULL_OUTPUT, ConvertFlags
from vhdx2raw.cli.options.opening import (
    STANDARD_INPUT,
    STANDARD_STREAM,
    OpeningFlags,
    PartitionFlags,
    SalvageFlags,
)
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.options.shaping import ShapeFlags
from vhdx2raw.cli.progress import show_progress
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.usage import TRUST

EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert; what is empty becomes holes
  vhdx2raw --force disk.vhdx /dev/sdx     overwrite a disk
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw snapshot.avhdx disk.img        merge a checkpoint with its parents
  vhdx2raw --hash sha256 --verify disk.vhdx disk.img
  vhdx2raw --save-state base.vhdx disk.img  for `apply` later
  vhdx2raw --partition 2 server.vhdx root.img
  vhdx2raw --salvage --mapfile disk.map damaged.vhdx disk.img
"""


def run(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC DST",
            help="The VHDX file, only read, and the raw image: a file, a device,"
            f" '{STANDARD_STREAM}' for standard output or '{NULL_OUTPUT}' for none.",
        ),
    ],
    *,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    mapfile: Annotated[
        str | None,
        typer.Option(
            "--mapfile",
            metavar="FILE",
            rich_help_panel=TRUST,
            help="Write what was lost as a map file of GNU ddrescue.",
            show_default=False,
        ),
    ] = None,
    converting: ConvertFlags,
    shape: ShapeFlags,
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Convert the virtual disk in SRC to the raw image DST."""
    options = converting.options(salvage=salvage.salvage or opening.ignore_log)
    options = shape.added_to(options, needs_version=converting.needs_version)
    opened, mode = opening.options(salvage), progress.mode(quiet=verbosity.quiet)
    converter = Converter(opened, options, part, mapfile, converting.save_state)
    require_consistent(converter)
    pair = _check_pair(paths, converter, as_json=bool(as_json))
    shape.require_distinct([pair[1], *([mapfile] if mapfile else [])])
    with show_progress(mode) as show:
        outcome = converter.convert(*pair, show)
    outcome.print(verbosity)
    with telling(pair[1]):
        if as_json:
            print_json(outcome.facts())
        else:
            outcome.print_digest()
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _check_pair(paths: list[str], converter: Converter, *, as_json: bool) -> tuple[str, str]:
    """Return SRC and DST, or refuse what contradicts itself, before anything is opened."""
    if len(paths) != 2:  # noqa: PLR2004
        raise typer.BadParameter(
            "give SRC and DST; many disks are converted by: vhdx2raw batch SRC... --output-dir DIR"
        )
    source, destination = paths
    if destination == os.devnull:
        destination = NULL_OUTPUT
    if source == STANDARD_STREAM:
        raise typer.BadParameter(STANDARD_INPUT)
    if converter.options.verify and destination in (STANDARD_STREAM, NULL_OUTPUT):
        raise typer.BadParameter("--verify needs a DST that can be read back")
    if converter.mapfile is not None and _is_same_name(converter.mapfile, destination):
        raise typer.BadParameter("--mapfile and DST are the same file")
    _check_kept(converter, destination)
    if destination == STANDARD_STREAM:
        if as_json:
            raise typer.BadParameter("standard output cannot take both the disk and --json")
        if is_terminal(sys.stdout):
            words = "standard output is a terminal; redirect it to a file or a pipe"
            raise typer.BadParameter(words)
    return source, destination


def _check_kept(converter: Converter, destination: str) -> None:
    """Refuse to keep anything of what does not stay."""
    options = converter.options
    if options.resume and destination in (STANDARD_STREAM, NULL_OUTPUT):
        raise typer.BadParameter("--resume needs a DST that is a file")
    if converter.keeps_state and destination in (STANDARD_STREAM, NULL_OUTPUT):
        raise typer.BadParameter("--save-state, --state and --update need a DST that stays")


def _is_same_name(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
