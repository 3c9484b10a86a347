"""The options of `vhdx2raw batch` alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import typer

from vhdx2raw.cli.options.groups import parsed
from vhdx2raw.cli.options.opening import STANDARD_STREAM
from vhdx2raw.cli.usage import INPUT, MANY, OUTPUT, SPEED
from vhdx2raw.operations.batch.shards import shard
from vhdx2raw.operations.batch.tasks import Task

SLURM_NEEDS = "the array of this Slurm job is neither 0-{last} nor 1-{count}"


class Shard(NamedTuple):
    """Which part of how many."""

    number: int
    total: int


def _parse_shard(text: str) -> Shard:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not int(match[2]):
        raise ValueError(f"{text!r} is not a part such as 0/4, the first of four")
    return Shard(int(match[1]), int(match[2]))


@dataclass(slots=True, eq=False, repr=False)
class BatchFlags:
    """Which disks are converted, and how it is kept what became of them."""

    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            rich_help_panel=OUTPUT,
            help="Where the raw images go; it is made if it does not exist.",
            show_default=False,
        ),
    ] = None
    from_list: Annotated[
        str | None,
        typer.Option(
            "--from-list",
            metavar="FILE",
            rich_help_panel=INPUT,
            help="Take the disks from FILE: a path a line, or what --plan prints.",
            show_default=False,
        ),
    ] = None
    all_states: Annotated[
        bool,
        typer.Option(
            "--all",
            rich_help_panel=INPUT,
            help="Convert the parents of other files as well, and not only the newest states.",
        ),
    ] = False
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            rich_help_panel=MANY,
            help="Print the list of what is to be done, a line of JSON for each disk; do nothing.",
        ),
    ] = False
    shard: Annotated[
        Shard | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            parser=parsed(_parse_shard),
            rich_help_panel=MANY,
            help="Take only part I of N, from 0/N on, the same for all who have the same list.",
            show_default=False,
        ),
    ] = None
    shard_from: Annotated[
        int | None,
        typer.Option(
            "--shard-from",
            metavar="0|1",
            min=0,
            max=1,
            rich_help_panel=MANY,
            help="What I counts from: 0, or 1 in a Slurm array of 1-N, unless you say it.",
            show_default=False,
        ),
    ] = None
    results: Annotated[
        str | None,
        typer.Option(
            "--results",
            metavar="FILE",
            rich_help_panel=MANY,
            help="Add what becomes of each disk to FILE, which others may add to as well.",
            show_default=False,
        ),
    ] = None
    skip_done: Annotated[
        bool,
        typer.Option(
            "--skip-done",
            rich_help_panel=MANY,
            help="Go on where it ended: leave out what raw images and --results say is done.",
        ),
    ] = False
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast", rich_help_panel=MANY, help="Begin no other disk after a failure."
        ),
    ] = False
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            max=64,
            rich_help_panel=SPEED,
            help="Convert this many disks at a time.",
        ),
    ] = 1

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for option, value in {"--from-list": self.from_list, "--results": self.results}.items():
            if value == STANDARD_STREAM:
                problem = "standard input is never read" if value == self.from_list else ""
                raise typer.BadParameter(
                    f"{option} needs the name of a file; {problem}".rstrip("; ")
                )
        if self.shard_from is not None and self.shard is None:
            raise typer.BadParameter("--shard-from says what --shard counts from; give both")

    def shard_of(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the part that was asked for, or all.

        Raises:
            typer.BadParameter: There is no such part, or it is not certain which one is meant.
        """
        if self.shard is None:
            return list(tasks)
        first = self.shard_from
        if first is None:
            first = _first_of_slurm(self.shard, os.environ)
        number, total = self.shard
        if not first <= number < first + total:
            last = total - 1 + first
            raise typer.BadParameter(
                f"--shard {number}/{total}: the parts are {first}/{total} to {last}/{total};"
                " see --shard-from"
            )
        return shard(tasks, number - first, total)


def _first_of_slurm(part: Shard, environment: Mapping[str, str]) -> int:
    """Return what the tasks of a Slurm array count from; 0 if the part is not one of them.

    An array may have been submitted again for some of its tasks. Then its lowest number does not
    show what the first run has counted from.
    """
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
    task, lowest, highest = (environment.get(name) for name in names)
    if task != str(part.number) or lowest is None:
        return 0
    for first in (0, 1):
        if (lowest, highest) == (str(first), str(first + part.total - 1)):
            return first
    needs = SLURM_NEEDS.format(last=part.total - 1, count=part.total)
    raise typer.BadParameter(f"{needs}: say with --shard-from what {part.number} counts from")
