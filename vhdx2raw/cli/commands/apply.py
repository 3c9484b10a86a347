"""`vhdx2raw apply`: a checkpoint's changes, put onto a raw image that was made before."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Annotated

import typer

from vhdx2raw.cli.console import format_size, print_json, print_message, warning_facts
from vhdx2raw.cli.options.opening import OpeningFlags
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.progress import interruptible, show_progress
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.signals import defer
from vhdx2raw.cli.transfers import print_transfer, transfer_facts
from vhdx2raw.operations.apply import ApplyOptions, ApplyResult, apply_checkpoint
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw apply snap1.avhdx disk.img           what has changed since then
  vhdx2raw apply --dry-run -v snap2.avhdx disk.img
  vhdx2raw apply --verify snap2.avhdx disk.img  read it back from storage
  vhdx2raw apply --state sdx.json snap1.avhdx /dev/sdx
"""


@dataclass(slots=True, eq=False, repr=False)
class ApplyFlags:
    """How a checkpoint is applied."""

    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="The state file of DST; by default DST.state.json.",
            show_default=False,
        ),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Take a DST that was changed since it was made.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing, show what would be written.")
    ] = False
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back from storage what was written, and compare.")
    ] = False


def run(
    child: Annotated[
        str, typer.Argument(metavar="CHILD", help="The checkpoint; it is never written to.")
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DST", help="The raw image, a file or a block device, changed in place."
        ),
    ],
    *,
    applying: ApplyFlags,
    opening: OpeningFlags,
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Put onto the raw image DST what the checkpoint CHILD has changed.

    DST holds the base, or an earlier checkpoint, by its state file, which `convert --save-state`
    made. After a failure run the same command again.
    """
    if opening.ignore_log:
        raise typer.BadParameter("without its log, a checkpoint is no version of a disk")
    opened, started = opening.options(), time.monotonic()
    with show_progress(progress.mode(quiet=verbosity.quiet)) as show:
        interrupted_or_shown = interruptible(show)

        def report(done: int, total: int) -> None:
            defer()  # from now on the image is changed
            interrupted_or_shown(done, total)

        options = ApplyOptions(
            **{field.name: getattr(opened, field.name) for field in fields(opened)},
            **asdict(applying),
            progress=report,
        )
        result = apply_checkpoint(child, destination, options)
    seconds, name = time.monotonic() - started, name_of(child)
    verbosity.print_warnings(result.warnings)
    if verbosity.reports:
        sentence = _sentence(result, destination, dry_run=applying.dry_run)
        print_message(f"vhdx2raw: {name}: {sentence} in {seconds:.1f} s")
        print_transfer(name, result.fetched)
    if as_json:
        facts = _facts(result, name, destination, seconds) | {"dry-run": applying.dry_run}
        with nullcontext() if applying.dry_run else telling(destination):
            print_json(facts)


def _sentence(result: ApplyResult, destination: str, *, dry_run: bool) -> str:
    if not result.files:
        return f"{destination} holds it already"
    verb = "would change" if dry_run else "changed"
    size = format_size(result.changed_bytes)
    plural = "range" if result.changed_ranges == 1 else "ranges"
    return f"{verb} {size} of {destination} in {result.changed_ranges} {plural}"


def _facts(result: ApplyResult, child: str, destination: str, seconds: float) -> dict[str, object]:
    return {
        "filename": child,
        "destination": destination,
        "virtual-size": result.virtual_disk_size,
        "changed-size": result.changed_bytes,
        "changed-ranges": result.changed_ranges,
        "written-size": result.written_bytes,
        "verified-size": result.verified_bytes,
        "applied": list(result.files),
        "holds": {
            "data-write-guid": result.state.holds.data_write_guid,
            "filename": result.state.holds.filename,
        },
        "warnings": warning_facts(result.warnings),
        "duration-seconds": round(seconds, 3),
        **transfer_facts(result.fetched),
    }
