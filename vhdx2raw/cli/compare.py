"""`vhdx2raw compare`: whether a VHDX holds the same disk as a raw image or another VHDX."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from typing import NamedTuple

import typer

from vhdx2raw.cli import options
from vhdx2raw.cli.options import STANDARD_STREAM
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import answer, format_size, is_terminal, say, say_warnings, warning_facts
from vhdx2raw.compare import Comparison, compare
from vhdx2raw.disk import VirtualDisk, open_disk
from vhdx2raw.errors import Finding, printable
from vhdx2raw.log import LogPolicy
from vhdx2raw.raw_file import RawFile

DIFFERENT = 1
"""Exit code: the answer is no."""
EXAMPLES = """\b
Examples:
  vhdx2raw compare disk.vhdx disk.img         has the conversion gone well?
  vhdx2raw compare -q disk.vhdx disk.img      tell by the exit code alone: 0 same, 1 different
  vhdx2raw compare disk.vhdx copy.vhdx        the same disk in two VHDX files
  vhdx2raw compare --strict disk.vhdx /dev/sdb
  vhdx2raw compare --json disk.vhdx disk.img  tell a script
"""


def run(
    image: options.Image,
    other: options.Other,
    *,
    raw: options.Raw = False,
    strict: options.Strict = False,
    first: options.First = False,
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
    """Tell whether IMAGE and OTHER hold the same disk.

    The exit code is 0 if they do, and 1 if they do not. Where one is longer, the rest of it must
    be zeros. --parent names the parents of IMAGE; those of OTHER are looked for.
    """
    if STANDARD_STREAM in (image, other):
        raise typer.BadParameter("disks cannot be read from standard input; name a file")
    if quiet and verbose:
        raise typer.BadParameter("-q and -v contradict each other")
    log_policy = options.choose_log_policy(no_replay=no_replay, ignore_log=ignore_log)
    mode = options.choose_progress(progress, short=short_progress, quiet=quiet)
    started = time.monotonic()
    with (
        open_disk(
            image,
            parents=parents,
            parent_dirs=parent_dirs,
            allow_parent_mismatch=allow_parent_mismatch,
            log_policy=log_policy,
        ) as disk,
        closing(
            RawFile(other) if raw else _open_as_it_begins(other, parent_dirs, log_policy)
        ) as other_disk,
        show_progress(mode) as show,
    ):
        result = compare(disk, other_disk, stop_at_first=first, progress=show)
    seconds = time.monotonic() - started
    report = _Report(image, disk, other, other_disk, result, strict)
    if verbose or (is_terminal(sys.stderr) and not quiet):
        say_warnings(report.warnings)
    if verbose:
        say(f"vhdx2raw: {format_size(result.compared_bytes)} compared in {seconds:.1f} s")
    if as_json or output is options.OutputFormat.JSON:
        answer(json.dumps(report.facts() | {"duration-seconds": round(seconds, 3)}, indent=2))
    elif not quiet:
        answer(printable(report.sentence()))
    if not report.same:
        raise typer.Exit(DIFFERENT)


def _open_as_it_begins(
    path: str, parent_dirs: list[str], log_policy: LogPolicy
) -> VirtualDisk | RawFile:
    """Open a VHDX if the signature is that of one, else a raw disk."""
    with RawFile(path) as raw:
        is_vhdx = raw.begins_like_a_vhdx()
    if is_vhdx:
        return open_disk(path, parent_dirs=parent_dirs, log_policy=log_policy)
    return RawFile(path)


class _Report(NamedTuple):
    """What was compared, and what was found."""

    name: str
    disk: VirtualDisk
    other_name: str
    other: VirtualDisk | RawFile
    result: Comparison
    strict: bool

    @property
    def same(self) -> bool:
        """The answer."""
        return self.result.same_contents and (self.result.same_size or not self.strict)

    @property
    def warnings(self) -> tuple[tuple[str, Finding], ...]:
        """What is odd about any file, though its bytes are right."""
        others = self.other.warnings if isinstance(self.other, VirtualDisk) else ()
        return self.disk.warnings + others

    def facts(self) -> dict[str, object]:
        """Build what `--json` prints, with the keys of qemu-img where they mean the same."""
        size, other_size = self.result.sizes
        other_format = "raw" if isinstance(self.other, RawFile) else "vhdx"
        return {
            "same": self.same,
            "same-contents": self.result.same_contents,
            "same-size": self.result.same_size,
            "first-difference": self.result.first_difference,
            "different-bytes": self.result.different_bytes,
            "compared-bytes": self.result.compared_bytes,
            "images": [
                {"filename": self.name, "format": "vhdx", "virtual-size": size},
                {"filename": self.other_name, "format": other_format, "virtual-size": other_size},
            ],
            "warnings": warning_facts(self.warnings),
        }

    def sentence(self) -> str:
        """Word the answer for people."""
        both = f"{self.name} and {self.other_name}"
        place, count = self.result.first_difference, self.result.different_bytes
        if place is None:
            words = f"{both} have the same contents"
        elif count is None:
            words = f"{both} differ, the first byte at offset {place:#x} ({place})"
        else:
            words = f"{both} differ in {count} byte{'s' * (count > 1)}"
            words += f", the first at offset {place:#x} ({place})"
        if not self.result.same_size:
            size, other_size = self.result.sizes
            longer = self.name if size > other_size else self.other_name
            ending = " of zeros" if place is None else ""
            words += f"; {longer} is longer by {abs(size - other_size)} bytes{ending}"
        return words
