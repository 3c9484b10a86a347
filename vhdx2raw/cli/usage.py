"""How the program explains itself: the help, and what is wrong with a command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import typer

from vhdx2raw.cli.console import print_error, print_message
from vhdx2raw.cli.exit_codes import WRONG_USAGE

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What Typer raises for every wrong use of the command line; it has no public name."""

MANY = "Many disks"
INPUT = "Input and parents"
OUTPUT = "Output"
NEXT = "For the next program"
TRUST = "Damage and trust"
SPEED = "Speed"
NETWORK = "Network"
REPORTING = "Reporting"
OTHER = "Options"
PANELS = (OTHER, MANY, INPUT, OUTPUT, NEXT, TRUST, SPEED, NETWORK, REPORTING)
"""The groups of options in the order of the help. An option names its own as `rich_help_panel`.

Typer draws them as boxes of Rich, which at 80 columns cuts the names of options off and breaks
lines within words, and takes twice the time; here they are sections of the plain help.
"""


_BATCH = "for many disks use: vhdx2raw batch SRC... --output-dir DIR"
MOVED = {
    **dict.fromkeys(("--output-dir", "--jobs", "-j"), _BATCH),
    "--skip-existing": f"{_BATCH} --skip-done",
}
"""What `convert` had as options once, and what does that now."""


def options_by_panel(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:  # noqa: ANN401
    """Return how each option is typed and what it means, by panel."""
    panels: dict[str, list[tuple[str, str]]] = {name: [] for name in PANELS}
    used = OTHER
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if option.param_type_name == "option" and record is not None:
            if option.name != "help":  # the last one, which needs no panel of its own
                panel = getattr(option, "rich_help_panel", None) or OTHER
                used = max(used, panel, key=PANELS.index)
            else:
                panel = used
            panels[panel].append(record)
    return {name: records for name, records in panels.items() if records}


def write_parameters(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
    """Write the arguments, then the options by panel."""
    arguments = [
        parameter.get_help_record(ctx)
        for parameter in command.get_params(ctx)
        if parameter.param_type_name == "argument"
    ]
    for title, records in {"Arguments": arguments, **options_by_panel(command, ctx)}.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def require_command_or_file(word: str, names: Sequence[str]) -> None:
    """Refuse a first word that is not a file and looks like one of `names`, misspelled.

    Raises:
        typer.BadParameter: It is such a word.
    """
    if word in names or word.startswith("-") or os.path.lexists(word):
        return
    from difflib import get_close_matches  # noqa: PLC0415 - most runs have no need

    for name in get_close_matches(word.lower(), names, 1):
        raise typer.BadParameter(f"{word!r} is not a file; did you mean the command {name!r}?")


def print_usage_error(error: Any) -> int:  # noqa: ANN401 - a `UsageError`
    """Report a wrong use of the command line; return the exit code."""
    # As Typer itself does, which has no public name for it.
    if type(error).__name__ == "NoArgsIsHelpError":
        for line in error.format_message().splitlines():
            print_message(line)
        return WRONG_USAGE
    option = getattr(error, "option_name", None)
    is_about_value = not isinstance(error, typer.BadParameter) or error.param or error.param_hint
    message = error.format_message() if is_about_value else error.message
    if option in MOVED and error.ctx.info_name == "convert":
        message = f"{option} is no option of convert, which makes one image; {MOVED[option]}"
    print_error(message, hint=f"see {error.ctx.command_path} --help" if error.ctx else "")
    return WRONG_USAGE
