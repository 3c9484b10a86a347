"""`vhdx2raw convert`: VHDX files become raw images."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from vhdx2raw.cli.commands.convert.outcome import Converter
from vhdx2raw.cli.console import is_terminal, print_result
from vhdx2raw.cli.options.converting import NO_VERSION, NULL_OUTPUT, ConvertFlags
from vhdx2raw.cli.options.opening import (
    STANDARD_INPUT,
    STANDARD_STREAM,
    OpeningFlags,
    PartitionFlags,
    SalvageFlags,
)
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.usage import OUTPUT, SPEED, TRUST
from vhdx2raw.operations.convert import default_workers

EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert; what is empty becomes holes
  vhdx2raw --force disk.vhdx disk.img     replace disk.img if it exists
  vhdx2raw --force disk.vhdx /dev/sdx     overwrite a disk
  vhdx2raw -S 0 disk.vhdx disk.img        write and allocate every byte
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw snapshot.avhdx disk.img        merge a checkpoint with its parents
  vhdx2raw --json disk.vhdx disk.img      a summary for a script
  vhdx2raw --parent base.vhdx snapshot.avhdx disk.img
  vhdx2raw --hash sha256 --verify disk.vhdx disk.img
  vhdx2raw --save-state base.vhdx disk.img  for `apply` later
  vhdx2raw --update --force disk.vhdx disk.img
  vhdx2raw --partition 2 server.vhdx root.img
  vhdx2raw --resume disk.vhdx disk.img      after a failure, run it once more
  vhdx2raw --salvage --mapfile disk.map damaged.vhdx disk.img
  vhdx2raw --output-dir raw --jobs 2 --skip-existing *.vhdx
"""


@dataclass(frozen=True, slots=True)
class BatchFlags:
    """How many disks are converted in one run."""

    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            rich_help_panel=OUTPUT,
            help="Convert every SRC to DIR/NAME.img; DIR is made if it does not exist.",
            show_default=False,
        ),
    ] = None
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            max=64,
            rich_help_panel=SPEED,
            help="Convert this many files at a time.",
        ),
    ] = 1
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            rich_help_panel=OUTPUT,
            help="Leave out every SRC whose output exists already.",
        ),
    ] = False


def run(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... [DST]",
            help="The VHDX file, which is never written to, and the raw image: a file, a block"
            f" device, '{STANDARD_STREAM}' for standard output or '{NULL_OUTPUT}' for none."
            " With --output-dir any number of VHDX files.",
        ),
    ],
    *,
    many: BatchFlags,
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
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Convert the virtual disk in SRC to the raw image DST."""
    options = converting.options(salvage=salvage.salvage or opening.ignore_log)
    opened, mode = opening.options(salvage), progress.mode(quiet=verbosity.quiet)
    converter = Converter(opened, options, part, mapfile, converting.save_state)
    _check_options(converter)
    if many.output_dir is not None:
        exit_code = _convert_many(
            paths, converter, many, mode, as_json=bool(as_json), verbosity=verbosity
        )
    else:
        if many.jobs > 1 or many.skip_existing:
            raise typer.BadParameter("--jobs and --skip-existing need --output-dir")
        pair = _check_pair(paths, converter, as_json=bool(as_json))
        with show_progress(mode) as show:
            outcome = converter.convert(*pair, show)
        outcome.print(verbosity)
        with telling(pair[1]):
            if as_json:
                print_result(json.dumps(outcome.facts(), indent=2))
            else:
                outcome.print_digest()
        exit_code = outcome.exit_code
    if exit_code:
        raise typer.Exit(exit_code)


def _convert_many(
    sources: list[str],
    converter: Converter,
    many: BatchFlags,
    mode: ProgressMode,
    *,
    as_json: bool,
    verbosity: VerbosityFlags,
) -> int:
    assert many.output_dir is not None, "checked by the caller"
    _check_batch(sources, converter)
    # It brings what runs many at a time, which takes a while to load.
    from vhdx2raw.cli.commands.convert.batch import Batch, plan  # noqa: PLC0415

    workers = converter.options.workers or max(1, default_workers() // many.jobs)
    converter = replace(converter, options=replace(converter.options, workers=workers))
    batch = Batch(converter, many.jobs, many.skip_existing, mode, as_json, verbosity)
    return batch.run(plan(sources, many.output_dir))


def _check_batch(sources: list[str], converter: Converter) -> None:
    """Refuse what contradicts itself, before anything is opened."""
    if STANDARD_STREAM in sources:
        raise typer.BadParameter(STANDARD_INPUT)
    if converter.mapfile is not None or (converter.opening.parents and len(sources) > 1):
        raise typer.BadParameter("--mapfile and --parent fit one SRC; see --parent-dir")
    if converter.options.state is not None:
        raise typer.BadParameter("--state fits one SRC; see --save-state")


def _check_options(converter: Converter) -> None:
    """Refuse what contradicts itself, before anything is opened."""
    salvage, mapfile = converter.opening.salvage, converter.mapfile
    if salvage and converter.options.resume:
        raise typer.BadParameter("--resume would forget what --salvage has lost")
    if converter.part.partition is not None and converter.keeps_state:
        raise typer.BadParameter(f"--partition takes a part of a disk; {NO_VERSION}")
    if mapfile is not None and not salvage:
        raise typer.BadParameter("--mapfile lists what --salvage has lost; give both")
    if mapfile == STANDARD_STREAM:
        raise typer.BadParameter("--mapfile needs the name of a file")


def _check_pair(paths: list[str], converter: Converter, *, as_json: bool) -> tuple[str, str]:
    """Return SRC and DST, or refuse what contradicts itself, before anything is opened."""
    if len(paths) != 2:  # noqa: PLR2004
        raise typer.BadParameter("give SRC and DST, or any number of SRC and --output-dir")
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
