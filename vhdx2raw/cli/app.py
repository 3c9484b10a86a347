"""The program: its commands, and what each failure becomes."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vhdx2raw.cli.console import (
    Answer,
    print_internal_fault,
    print_interruption,
    print_last_failure,
    print_result,
    warn_of_slow_checksums,
)
from vhdx2raw.cli.exit_codes import INTERNAL_FAULT
from vhdx2raw.cli.options.groups import expand_groups
from vhdx2raw.cli.signals import Interrupted, defer, deferring, end_deferring
from vhdx2raw.cli.usage import (
    UsageError,
    print_usage_error,
    require_command_or_file,
    write_parameters,
)
from vhdx2raw.errors import Vhdx2rawError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "convert",
    "apply",
    "batch",
    "info",
    "map",
    "check",
    "compare",
    "hash",
    "measure",
    "tree",
    "mount",
    "serve",
)
"""The names of the commands, each that of its module."""
DEFAULT_COMMAND = "convert"
OWN_OPTIONS = ("-h", "--help", "--version", "--install-completion", "--show-completion")
EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert; what is empty becomes holes
  vhdx2raw --force disk.vhdx disk.img     replace disk.img if it exists
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw convert --help                 all options, and more examples
"""


MAX_HELP_WIDTH = 100
"""Columns of the help, however wide the terminal is."""
COMPLETION_WIDTH = 79
"""Characters of help beside a completion; Typer would make two candidates of a longer one."""


def _shorten(items: list[Any]) -> list[Any]:
    for item in items:
        item.help = item.help and shorten(item.help, COMPLETION_WIDTH, placeholder="...")
    return items


def _print_help(ctx: Any, _option: object, wanted: bool) -> None:  # noqa: ANN401, FBT001
    """Print the help, as every result is printed: also to a stream that does not block."""
    if wanted and not ctx.resilient_parsing:
        print_result(ctx.get_help())
        ctx.exit()


class _Help:
    """How a command prints its help."""

    def get_help_option(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _print_help
        return option


class _Command(_Help, TyperCommand):
    """A command whose help has sections, and whose options are completed on one line each."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own
        write_parameters(self, ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401
        # Without the braces that Typer puts around the names of arguments.
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:  # noqa: ANN401
        return _shorten(super().shell_complete(ctx, incomplete))


class _Commands(_Help, TyperGroup):
    """The commands, each loaded when it is needed; the first word may be left out.

    `SRC DST` means `convert SRC DST`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer's own
        if args and args[0] not in COMMANDS and args[0] not in OWN_OPTIONS:
            require_command_or_file(args[0], COMMANDS)
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        self.format_commands(ctx, formatter)
        write_parameters(self, ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        if cmd_name not in COMMANDS:
            return None
        with deferring():  # an exception within an import can be lost
            module = import_module(f"vhdx2raw.cli.commands.{cmd_name}")
        gc.enable()
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name, cls=_Command, epilog=module.EXAMPLES, no_args_is_help=True)(
            expand_groups(module.run)
        )
        return typer.main.get_command(single)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:  # noqa: ANN401
        found = _shorten(super().shell_complete(ctx, incomplete))
        if incomplete.startswith("-"):
            # The command may still be left out, so its options are as good as our own.
            default = self.get_command(ctx, DEFAULT_COMMAND).shell_complete(ctx, incomplete)
            known = {item.value for item in found}
            found += [item for item in default if item.value not in known]
        return found


app = typer.Typer(
    cls=_Commands,
    context_settings={
        "color": False,
        "help_option_names": ["-h", "--help"],
        "max_content_width": MAX_HELP_WIDTH,
    },
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the shape that Typer asks for
    if wanted:
        from importlib import metadata  # noqa: PLC0415 - takes a while, and most runs have no need

        typer.echo(f"vhdx2raw {metadata.version('vhdx2raw')}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES)
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version)
    ] = False,
) -> None:
    """Convert VHDX virtual disks to raw, sparse disk images.

    `vhdx2raw SRC DST` is short for `vhdx2raw convert SRC DST`; for its options see
    `vhdx2raw convert --help`. A file with the name of a command is written `./convert`.
    """


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Do what `main` does, which has begun to catch signals, and has them wait."""
    Answer.reset()
    try:
        try:
            end_deferring()
            words = list(sys.argv[1:] if arguments is None else arguments)
            Answer.arguments = words
            warn_of_slow_checksums(words)
            return app(words, prog_name="vhdx2raw", standalone_mode=False) or 0
        finally:
            defer()  # what is left to do takes no time, and a second signal must not end it
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except UsageError as error:
        return print_usage_error(error)
    except Interrupted as interruption:
        print_interruption(interruption, interruption.exit_code)
        return interruption.exit_code
    except (Vhdx2rawError, OSError) as error:
        return print_last_failure(error)
    except Exception:  # noqa: BLE001 - the last door: no traceback unless it is asked for
        print_internal_fault()
        return INTERNAL_FAULT
