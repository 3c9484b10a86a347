"""`vhdx2raw convert`: VHDX files become raw images."""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

import typer

from vhdx2raw.cli import convert_options, options
from vhdx2raw.cli.conversion import Wishes
from vhdx2raw.cli.options import NULL_OUTPUT, STANDARD_STREAM
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import answer, is_terminal
from vhdx2raw.convert import default_workers

EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img               convert, with holes for what is empty
  vhdx2raw --force disk.vhdx disk.img       replace disk.img if it exists
  vhdx2raw --force disk.vhdx /dev/sdx       overwrite a disk
  vhdx2raw -S 0 disk.vhdx disk.img          write and allocate every byte
  vhdx2raw disk.vhdx - | zstd > disk.zst    write to a pipe
  vhdx2raw snapshot.avhdx disk.img          flatten a checkpoint onto its parents
  vhdx2raw --parent base.vhdx snapshot.avhdx disk.img
  vhdx2raw --hash sha256 --verify disk.vhdx disk.img
  vhdx2raw --salvage --mapfile disk.map damaged.vhdx disk.img
  vhdx2raw --json disk.vhdx disk.img        tell a script what was done
  vhdx2raw --output-dir raw --jobs 2 --skip-existing *.vhdx
"""

STANDARD_INPUT = "a VHDX cannot be read from standard input; name a file"


def run(
    paths: convert_options.Paths,
    *,
    output_dir: convert_options.OutputDir = None,
    jobs: convert_options.Jobs = 1,
    skip_existing: convert_options.SkipExisting = False,
    force: options.Force = False,
    target_is_zero: convert_options.TargetIsZero = False,
    sparse_size: options.SparseSize = "4k",  # type: ignore[assignment]  # parsed by Typer
    parents: options.Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: options.ParentDirs = [],  # noqa: B006
    allow_parent_mismatch: options.AllowParentMismatch = False,
    no_replay: options.NoReplay = False,
    ignore_log: options.IgnoreLog = False,
    salvage: convert_options.Salvage = False,
    mapfile: convert_options.Mapfile = None,
    strict: convert_options.StrictConversion = False,
    max_virtual_size: convert_options.MaxVirtualSize = None,
    allow_changed: convert_options.AllowChanged = False,
    hash_algorithm: convert_options.HashAlgorithm = None,
    verify: convert_options.Verify = False,
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
    wishes = Wishes(
        parents=parents,
        parent_dirs=parent_dirs,
        allow_parent_mismatch=allow_parent_mismatch,
        log_policy=options.choose_log_policy(no_replay=no_replay, ignore_log=ignore_log),
        salvage=salvage,
        mapfile=mapfile,
        strict=strict,
        max_virtual_size=max_virtual_size,
        force=force,
        target_is_zero=target_is_zero,
        sparse_size=sparse_size,
        workers=workers,
        clone=not no_clone,
        sync=not no_sync,
        hash_algorithm=hash_algorithm,
        verify=verify,
        allow_changed=allow_changed,
    )
    _check_options(wishes, quiet=quiet, verbose=verbose)
    as_json = as_json or output is options.OutputFormat.JSON
    progress = options.choose_progress(progress, short=short_progress, quiet=quiet)
    job = _Job(wishes, progress, as_json, verbose or (is_terminal(sys.stderr) and not quiet))
    if output_dir is None:
        job.convert_one(paths, for_batch=jobs > 1 or skip_existing)
    else:
        job.convert_many(paths, output_dir, jobs, skip_existing=skip_existing)


class _Job(NamedTuple):
    """What is wished, and how it is told."""

    wishes: Wishes
    progress: ProgressMode
    as_json: bool
    tells: bool

    def convert_one(self, paths: list[str], *, for_batch: bool) -> None:
        """Convert SRC to DST."""
        if for_batch:
            raise typer.BadParameter("--jobs and --skip-existing need --output-dir")
        source, destination = _check_pair(paths, self.wishes, as_json=self.as_json)
        with show_progress(self.progress) as show:
            outcome = self.wishes.convert(source, destination, show)
        outcome.tell(self.tells)
        if self.as_json:
            answer(json.dumps(outcome.facts(), indent=2))
        else:
            outcome.answer_digest()
        _exit_with(outcome.exit_code)

    def convert_many(
        self, sources: list[str], folder: str, jobs: int, *, skip_existing: bool
    ) -> None:
        """Convert every SRC to a file in a folder."""
        # It brings what runs many at a time, which takes a while to load.
        from vhdx2raw.cli.batch import Batch, plan  # noqa: PLC0415

        _check_batch(sources, self.wishes)
        workers = self.wishes.workers or max(1, default_workers() // jobs)
        wishes = self.wishes._replace(workers=workers)
        batch = Batch(wishes, jobs, skip_existing, self.progress, self.as_json, self.tells)
        _exit_with(batch.run(plan(sources, folder)))


def _exit_with(exit_code: int) -> None:
    if exit_code:
        raise typer.Exit(exit_code)


def _check_options(wishes: Wishes, *, quiet: bool, verbose: bool) -> None:
    """Refuse what contradicts itself, before anything is opened."""
    if quiet and verbose:
        raise typer.BadParameter("-q and -v contradict each other")
    if wishes.salvage and wishes.verify:
        raise typer.BadParameter("--verify cannot tell the losses of --salvage from failures")
    if wishes.mapfile is not None and not wishes.salvage:
        raise typer.BadParameter("--mapfile lists what --salvage has lost; give both")
    if wishes.mapfile == STANDARD_STREAM:
        raise typer.BadParameter("--mapfile needs the name of a file")


def _check_batch(sources: list[str], wishes: Wishes) -> None:
    """Refuse what contradicts itself, before anything is opened."""
    if STANDARD_STREAM in sources:
        raise typer.BadParameter(STANDARD_INPUT)
    if wishes.mapfile is not None or (wishes.parents and len(sources) > 1):
        raise typer.BadParameter("--mapfile and --parent fit one SRC; see --parent-dir")


def _check_pair(paths: list[str], wishes: Wishes, *, as_json: bool) -> tuple[str, str]:
    """Return SRC and DST, or refuse what contradicts itself, before anything is opened."""
    if len(paths) != 2:  # noqa: PLR2004
        raise typer.BadParameter("give SRC and DST, or any number of SRC and --output-dir")
    source, destination = paths
    if source == STANDARD_STREAM:
        raise typer.BadParameter(STANDARD_INPUT)
    if wishes.verify and destination in (STANDARD_STREAM, NULL_OUTPUT):
        raise typer.BadParameter("--verify needs a DST that can be read back")
    if wishes.mapfile is not None and _is_same_name(wishes.mapfile, destination):
        raise typer.BadParameter("--mapfile and DST are the same file")
    if destination == STANDARD_STREAM:
        if as_json:
            raise typer.BadParameter("standard output cannot take both the disk and --json")
        if is_terminal(sys.stdout):
            words = "standard output is a terminal; redirect it to a file or a pipe"
            raise typer.BadParameter(words)
    return source, destination


def _is_same_name(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
