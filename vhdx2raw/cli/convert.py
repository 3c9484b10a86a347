"""`vhdx2raw convert`: one VHDX file becomes a raw image."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated

import typer

from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.cli.interruption import deferred, raise_if_interrupted
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import format_size, parse_size, say
from vhdx2raw.convert import MAX_SPARSE_SIZE, ConversionResult
from vhdx2raw.convert import convert as convert_chain
from vhdx2raw.log import LogPolicy
from vhdx2raw.sinks import NullSink, Sink, SparseFileSink, StreamSink

EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert, with holes for what is empty
  vhdx2raw --force disk.vhdx disk.img     replace disk.img if it exists
  vhdx2raw -S 0 disk.vhdx disk.img        write and allocate every byte
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw --parent base.vhdx snap.avhdx disk.img
                                          flatten a checkpoint onto its parent
  vhdx2raw --json disk.vhdx disk.img      tell a script what was done
"""
STANDARD_STREAM = "-"
NULL_OUTPUT = "null:"
MIN_SPARSE_SIZE = 512


def _parse_sparse_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if size and not (MIN_SPARSE_SIZE <= size <= MAX_SPARSE_SIZE and size.bit_count() == 1):
        raise typer.BadParameter("give 0, or a power of two from 512 to 1M")
    return size


Source = Annotated[
    str, typer.Argument(metavar="SRC", help="The VHDX file; it is never written to.")
]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DST",
        help=f"The raw image; '{STANDARD_STREAM}' is standard output,"
        f" '{NULL_OUTPUT}' writes nothing.",
    ),
]
Parents = Annotated[
    list[str],
    typer.Option(
        "--parent",
        metavar="FILE",
        help="The parent of a differencing disk; repeat it for the parent's parent.",
    ),
]
ParentDirs = Annotated[
    list[str],
    typer.Option("--parent-dir", metavar="DIR", help="Look for parents in DIR as well."),
]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-parent-mismatch",
        help="Use a parent that is not the version that the child was made from.",
    ),
]
NoReplay = Annotated[
    bool, typer.Option("--no-replay", help="Refuse a disk with updates in its log.")
]
IgnoreLog = Annotated[
    bool, typer.Option("--ignore-log", help="Read a disk as it is without the updates in its log.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace DST if it exists.")]
SparseSize = Annotated[
    int,
    typer.Option(
        "-S",
        "--sparse-size",
        metavar="SIZE",
        parser=_parse_sparse_size,
        help="Make holes of stored zeros that fill SIZE bytes; 0 writes and allocates everything.",
    ),
]
Progress = Annotated[
    ProgressMode, typer.Option("--progress", help="How to show progress on stderr.")
]
ShortProgress = Annotated[bool, typer.Option("-p", help="The same as --progress always.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what was found and done.")]
Json = Annotated[bool, typer.Option("--json", help="Write a summary to stdout as JSON.")]


def convert(
    source: Source,
    destination: Destination,
    *,
    force: Force = False,
    sparse_size: SparseSize = "4k",  # type: ignore[assignment]  # parsed like what a user types
    parents: Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: ParentDirs = [],  # noqa: B006
    allow_parent_mismatch: AllowMismatch = False,
    no_replay: NoReplay = False,
    ignore_log: IgnoreLog = False,
    progress: Progress = ProgressMode.AUTO,
    short_progress: ShortProgress = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Convert the virtual disk in SRC to the raw image DST."""
    _check_usage(source, destination, quiet=quiet, verbose=verbose, as_json=as_json)
    if short_progress:
        progress = ProgressMode.ALWAYS
    elif quiet and progress is ProgressMode.AUTO:
        progress = ProgressMode.NEVER
    started = time.monotonic()
    with open_chain(
        source,
        parents=parents,
        parent_dirs=parent_dirs,
        allow_parent_mismatch=allow_parent_mismatch,
        log_policy=_log_policy(no_replay=no_replay, ignore_log=ignore_log),
    ) as chain:
        result = _run(chain, destination, force=force, sparse_size=sparse_size, mode=progress)
    seconds = time.monotonic() - started
    if verbose or (sys.stderr.isatty() and not quiet):
        _tell(chain, destination, result, seconds)
    if as_json:
        print(json.dumps(_summary(chain, destination, result, seconds), indent=2))  # noqa: T201


def _check_usage(
    source: str, destination: str, *, quiet: bool, verbose: bool, as_json: bool
) -> None:
    if source == STANDARD_STREAM:
        raise typer.BadParameter("a VHDX cannot be read from standard input; name a file")
    if quiet and verbose:
        raise typer.BadParameter("-q and -v contradict each other")
    if destination != STANDARD_STREAM:
        return
    if as_json:
        raise typer.BadParameter("standard output cannot take both the disk and --json")
    if sys.stdout.isatty():
        raise typer.BadParameter("standard output is a terminal; redirect it to a file or a pipe")


def _log_policy(*, no_replay: bool, ignore_log: bool) -> LogPolicy:
    if no_replay and ignore_log:
        raise typer.BadParameter("--no-replay and --ignore-log contradict each other")
    if no_replay:
        return LogPolicy.REFUSE
    return LogPolicy.IGNORE if ignore_log else LogPolicy.REPLAY


def _run(
    chain: Chain, destination: str, *, force: bool, sparse_size: int, mode: ProgressMode
) -> ConversionResult:
    if destination == STANDARD_STREAM:
        # Nothing to clean up, and a pipe that nobody reads must not hold up a signal.
        with show_progress(mode) as show:
            sink = StreamSink(sys.stdout.buffer, inputs=chain.identities)
            return convert_chain(chain, sink, sparse_size=sparse_size, progress=show)
    with deferred(), show_progress(mode) as show:

        def show_unless_interrupted(done: int, total: int) -> None:
            raise_if_interrupted()
            show(done, total)

        return convert_chain(
            chain,
            _open_sink(chain, destination, force=force),
            sparse_size=sparse_size,
            progress=show_unless_interrupted,
        )


def _open_sink(chain: Chain, destination: str, *, force: bool) -> Sink:
    if destination == NULL_OUTPUT:
        return NullSink()
    return SparseFileSink(
        destination, chain.virtual_disk_size, replace=force, inputs=chain.identities
    )


def _tell(chain: Chain, destination: str, result: ConversionResult, seconds: float) -> None:
    for name, warning in chain.warnings:
        say(f"vhdx2raw: {name}: warning: {warning}")
    say(
        f"vhdx2raw: {chain.child.source.name}: {format_size(result.virtual_disk_size)}"
        f" {chain.child.metadata.disk_type} disk, {format_size(result.data_bytes)} of it stored;"
        f" {format_size(result.written_bytes)} written to {destination} in {seconds:.1f} s"
    )


def _summary(
    chain: Chain, destination: str, result: ConversionResult, seconds: float
) -> dict[str, object]:
    """Build what `--json` prints, with the keys of qemu-img where they mean the same."""
    summary: dict[str, object] = {
        "filename": chain.child.source.name,
        "destination": destination,
        "format": "raw",
        "virtual-size": result.virtual_disk_size,
        "data-size": result.data_bytes,
        "written-size": result.written_bytes,
        "chain": [
            {
                "filename": image.source.name,
                "log": {"state": image.log.state.value, "entries": image.log.entry_count},
            }
            for image in chain.images
        ],
        "logical-sector-size": chain.child.metadata.logical_sector_size,
        "duration-seconds": round(seconds, 3),
        "warnings": [
            {
                "filename": name,
                "rule": warning.rule,
                "spec": warning.spec,
                "message": str(warning),
            }
            for name, warning in chain.warnings
        ],
    }
    if destination != NULL_OUTPUT:
        summary["actual-size"] = os.stat(destination).st_blocks * 512  # noqa: PTH116
    return summary
