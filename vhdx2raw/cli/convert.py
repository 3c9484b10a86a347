"""`vhdx2raw convert`: one VHDX file becomes a raw image."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass

import typer

from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.cli import options
from vhdx2raw.cli.interruption import defer, raise_if_interrupted
from vhdx2raw.cli.options import NULL_OUTPUT, STANDARD_STREAM
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import (
    answer,
    format_size,
    is_terminal,
    log_facts,
    say,
    say_warnings,
    standard_output,
    warning_facts,
)
from vhdx2raw.convert import ConversionResult, ProgressCallback, convert
from vhdx2raw.sinks import NullSink, Sink, SparseFileSink, StreamSink

EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert, with holes for what is empty
  vhdx2raw --force disk.vhdx disk.img     replace disk.img if it exists
  vhdx2raw -S 0 disk.vhdx disk.img        write and allocate every byte
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw snapshot.avhdx disk.img        flatten a checkpoint onto its parents
  vhdx2raw --parent base.vhdx snapshot.avhdx disk.img
  vhdx2raw --json disk.vhdx disk.img      tell a script what was done
"""


def run(
    source: options.Source,
    destination: options.Destination,
    *,
    force: options.Force = False,
    sparse_size: options.SparseSize = "4k",  # type: ignore[assignment]  # parsed by Typer
    parents: options.Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: options.ParentDirs = [],  # noqa: B006
    allow_parent_mismatch: options.AllowParentMismatch = False,
    no_replay: options.NoReplay = False,
    ignore_log: options.IgnoreLog = False,
    workers: options.Workers = None,
    no_clone: options.NoClone = False,
    no_sync: options.NoSync = False,
    progress: options.Progress = ProgressMode.AUTO,
    short_progress: options.ShortProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
    output: options.Output = options.OutputFormat.HUMAN,
) -> None:
    """Convert the virtual disk in SRC to the raw image DST."""
    as_json = as_json or output is options.OutputFormat.JSON
    _check_usage(source, destination, quiet=quiet, verbose=verbose, as_json=as_json)
    if short_progress:
        progress = ProgressMode.ALWAYS
    elif quiet and progress is ProgressMode.AUTO:
        progress = ProgressMode.NEVER
    job = _Job(destination, force, sparse_size, workers, not no_clone, not no_sync, progress)
    started = time.monotonic()
    with open_chain(
        source,
        parents=parents,
        parent_dirs=parent_dirs,
        allow_parent_mismatch=allow_parent_mismatch,
        log_policy=options.choose_log_policy(no_replay=no_replay, ignore_log=ignore_log),
    ) as chain:
        result = job.run(chain)
    seconds = time.monotonic() - started
    if verbose or (is_terminal(sys.stderr) and not quiet):
        _tell(chain, destination, result, seconds)
    if as_json:
        answer(json.dumps(_summary(chain, destination, result, seconds), indent=2))


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
    if is_terminal(sys.stdout):
        raise typer.BadParameter("standard output is a terminal; redirect it to a file or a pipe")


@dataclass(frozen=True, slots=True)
class _Job:
    """Where a disk goes, and how."""

    destination: str
    force: bool
    sparse_size: int
    workers: int | None
    clone: bool
    sync: bool
    progress: ProgressMode

    def run(self, chain: Chain) -> ConversionResult:
        """Convert a disk, such that a signal leaves nothing behind."""
        if self.destination == STANDARD_STREAM:
            # Nothing to clean up, and a pipe that nobody reads must not hold up a signal.
            with show_progress(self.progress) as show:
                stream = StreamSink(standard_output().buffer, inputs=chain.identities)
                return self._convert(chain, stream, show)
        defer()
        sink = self._open_sink(chain)
        try:
            with show_progress(self.progress) as show:

                def show_unless_interrupted(done: int, total: int) -> None:
                    raise_if_interrupted()
                    show(done, total)

                return self._convert(chain, sink, show_unless_interrupted)
        except BaseException:
            sink.abort()
            raise

    def _open_sink(self, chain: Chain) -> Sink:
        if self.destination == NULL_OUTPUT:
            return NullSink()
        return SparseFileSink(
            self.destination,
            chain.virtual_disk_size,
            replace=self.force,
            inputs=chain.identities,
        )

    def _convert(self, chain: Chain, sink: Sink, show: ProgressCallback) -> ConversionResult:
        return convert(
            chain,
            sink,
            sparse_size=self.sparse_size,
            workers=self.workers,
            clone=self.clone,
            sync=self.sync,
            progress=show,
        )


def _tell(chain: Chain, destination: str, result: ConversionResult, seconds: float) -> None:
    say_warnings(chain.warnings)
    cloned = f", {format_size(result.cloned_bytes)} shared" if result.cloned_bytes else ""
    say(
        f"vhdx2raw: {chain.child.source.name}: {format_size(result.virtual_disk_size)}"
        f" {chain.child.metadata.disk_type} disk, {format_size(result.data_bytes)} of it stored;"
        f" {format_size(result.written_bytes)} written{cloned} to {destination}"
        f" in {seconds:.1f} s"
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
        "cloned-size": result.cloned_bytes,
        "written-size": result.written_bytes,
        "logical-sector-size": chain.child.metadata.logical_sector_size,
        "chain": [
            {"filename": image.source.name, "log": log_facts(image.log)} for image in chain.images
        ],
        "warnings": warning_facts(chain.warnings),
        "duration-seconds": round(seconds, 3),
    }
    if destination != NULL_OUTPUT:
        summary["actual-size"] = os.stat(destination).st_blocks * 512  # noqa: PTH116
    return summary
