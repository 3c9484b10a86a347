"""`vhdx2raw hash`: the digest of the disk in a VHDX, which is that of its raw image."""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

import typer

from vhdx2raw.cli import options
from vhdx2raw.cli.digests import answer_digest
from vhdx2raw.cli.failures import tell_failure, words_of
from vhdx2raw.cli.options import STANDARD_STREAM
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import (
    answer,
    format_size,
    is_terminal,
    say,
    say_warnings,
    warning_facts,
)
from vhdx2raw.digest import digest
from vhdx2raw.disk import VirtualDisk, open_disk
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.hashes import DEFAULT_ALGORITHM
from vhdx2raw.log import LogPolicy

EXAMPLES = """\b
Examples:
  vhdx2raw hash disk.vhdx             the SHA-256 that the raw image has
  vhdx2raw hash -a md5 disk.vhdx      another digest
  vhdx2raw hash *.vhdx > SHA256SUMS   one line for each, as sha256sum writes them
  vhdx2raw hash --json disk.vhdx      tell a script
"""


def run(
    images: options.Images,
    *,
    algorithm: options.Algorithm = DEFAULT_ALGORITHM,
    parents: options.Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: options.ParentDirs = [],  # noqa: B006
    allow_parent_mismatch: options.AllowParentMismatch = False,
    no_replay: options.NoReplay = False,
    ignore_log: options.IgnoreLog = False,
    progress: options.Progress = ProgressMode.AUTO,
    short_progress: options.ShortProgress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.JsonAnswer = False,
    output: options.Output = options.OutputFormat.HUMAN,
) -> None:
    """Print the digest of the whole virtual disk in each IMAGE, holes as zeros.

    It is the digest of the raw image that `convert` makes. After a failure the other images are
    hashed nevertheless; the exit code is that of the first failure.
    """
    if STANDARD_STREAM in images:
        raise typer.BadParameter("a VHDX cannot be read from standard input; name a file")
    if quiet and verbose:
        raise typer.BadParameter("-q and -v contradict each other")
    if parents and len(images) > 1:
        raise typer.BadParameter("--parent fits one IMAGE; for several use --parent-dir")
    job = _Job(
        algorithm,
        parents,
        parent_dirs,
        allow_parent_mismatch,
        options.choose_log_policy(no_replay=no_replay, ignore_log=ignore_log),
        options.choose_progress(progress, short=short_progress, quiet=quiet),
        tells_warnings=verbose or (is_terminal(sys.stderr) and not quiet),
        tells_facts=verbose,
    )
    as_json = as_json or output is options.OutputFormat.JSON
    outcomes: list[_Outcome] = []
    for name in images:
        outcomes.append(job.run(name))
        if not as_json and "digest" in outcomes[-1].facts:
            answer_digest(str(outcomes[-1].facts["digest"]), name)
    if as_json:
        facts = {"algorithm": algorithm, "images": [outcome.facts for outcome in outcomes]}
        answer(json.dumps(facts, indent=2))
    exit_code = next((outcome.exit_code for outcome in outcomes if outcome.exit_code), 0)
    if exit_code:
        raise typer.Exit(exit_code)


class _Outcome(NamedTuple):
    """What became of one image: what `--json` says of it, and an exit code."""

    facts: dict[str, object]
    exit_code: int = 0


class _Job(NamedTuple):
    """How every image is hashed."""

    algorithm: str
    parents: list[str]
    parent_dirs: list[str]
    allow_parent_mismatch: bool
    log_policy: LogPolicy
    progress: ProgressMode
    tells_warnings: bool
    tells_facts: bool

    def run(self, path: str) -> _Outcome:
        """Hash one image, or say why that cannot be done."""
        started = time.monotonic()
        try:
            with self._open(path) as disk, show_progress(self.progress) as show:
                found = digest(disk, self.algorithm, progress=show)
        except (Vhdx2rawError, OSError) as error:
            return _Outcome({"filename": path, "error": words_of(error)}, tell_failure(error))
        self._tell(path, disk, time.monotonic() - started)
        return _Outcome(
            {
                "filename": path,
                "virtual-size": disk.size,
                "digest": found,
                "warnings": warning_facts(disk.warnings),
            }
        )

    def _open(self, path: str) -> VirtualDisk:
        return open_disk(
            path,
            parents=self.parents,
            parent_dirs=self.parent_dirs,
            allow_parent_mismatch=self.allow_parent_mismatch,
            log_policy=self.log_policy,
        )

    def _tell(self, path: str, disk: VirtualDisk, seconds: float) -> None:
        if self.tells_warnings:
            say_warnings(disk.warnings)
        if self.tells_facts:
            size, kind = format_size(disk.size), disk.metadata.disk_type
            say(f"vhdx2raw: {path}: {size} {kind} disk hashed in {seconds:.1f} s")
