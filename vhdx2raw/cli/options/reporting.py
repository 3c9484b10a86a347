"""The options that say what is reported, and how."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer

from vhdx2raw.cli.console import Answer, is_terminal, print_warnings
from vhdx2raw.cli.progress import ProgressMode
from vhdx2raw.cli.usage import REPORTING
from vhdx2raw.disk.chain import NamedFinding


@dataclass(slots=True, eq=False, repr=False)
class ProgressFlags:
    """How progress is shown."""

    progress: Annotated[
        ProgressMode,
        typer.Option(
            "--progress",
            metavar="WHEN",
            rich_help_panel=REPORTING,
            help="Show progress on stderr: auto (on a terminal), always, never or json.",
        ),
    ] = ProgressMode.AUTO
    short_progress: Annotated[
        bool, typer.Option("-p", rich_help_panel=REPORTING, help="The same as --progress always.")
    ] = False

    def mode(self, *, quiet: bool) -> ProgressMode:
        if self.short_progress:
            return ProgressMode.ALWAYS
        is_silent = quiet and self.progress is ProgressMode.AUTO
        return ProgressMode.NEVER if is_silent else self.progress


@dataclass(slots=True, eq=False, repr=False)
class VerbosityFlags:
    """How much is written to stderr."""

    quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            rich_help_panel=REPORTING,
            help="Print nothing but errors, not even warnings.",
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", rich_help_panel=REPORTING, help="Report what was found and done."
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check that the two do not contradict each other."""
        if self.quiet and self.verbose:
            raise typer.BadParameter("-q and -v contradict each other")

    @property
    def reports(self) -> bool:
        """Whether to report what is not an error: to a person, and to those who ask for it."""
        return self.verbose or (is_terminal(sys.stderr) and not self.quiet)

    def print_warnings(self, warnings: Iterable[NamedFinding]) -> None:
        """Report warnings, to everybody who has not asked for silence."""
        if not self.quiet:
            print_warnings(warnings, in_full=self.reports)


class OutputFormat(str, Enum):
    """What goes to stdout, in the words of qemu-img."""

    HUMAN = "human"
    JSON = "json"


@dataclass(slots=True, eq=False, repr=False)
class JsonFlags:
    """In which form the result is written."""

    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=REPORTING, help="Write the result as JSON.")
    ] = False
    output: Annotated[
        OutputFormat,
        typer.Option("--output", help="json is --json, as users of qemu-img type it.", hidden=True),
    ] = OutputFormat.HUMAN

    def __post_init__(self) -> None:
        """Let a failure be told in the same form."""
        Answer.as_json = bool(self)

    def __bool__(self) -> bool:
        return self.as_json or self.output is OutputFormat.JSON
