"""The program: its commands, and what each failure becomes."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vhdx2raw.cli.failures import tell_failure
from vhdx2raw.cli.interruption import Interrupted, catch_signals
from vhdx2raw.cli.words import complain, complain_of_fault
from vhdx2raw.errors import Vhdx2rawError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERNAL_FAULT = 70

COMMANDS = ("convert", "info", "map", "check", "compare", "hash")
"""The names of the commands, each that of its module."""
DEFAULT_COMMAND = "convert"
OWN_OPTIONS = ("--help", "--version")
EXAMPLES = """\b
Examples:
  vhdx2raw disk.vhdx disk.img             convert, with holes for what is empty
  vhdx2raw --force disk.vhdx disk.img     replace disk.img if it exists
  vhdx2raw disk.vhdx - | zstd > disk.zst  write to a pipe
  vhdx2raw convert --help                 all options, and more examples
"""


class _Commands(TyperGroup):
    """The commands, each loaded when it is needed; the first word may be left out.

    `SRC DST` means `convert SRC DST`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer's own
        if args and args[0] not in COMMANDS and args[0] not in OWN_OPTIONS:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"vhdx2raw.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name, epilog=module.EXAMPLES, no_args_is_help=True)(module.run)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the shape that Typer asks for
    if wanted:
        typer.echo(f"vhdx2raw {metadata.version('vhdx2raw')}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES)
def _program(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version),
    ] = False,
) -> None:
    """Convert VHDX virtual disks to raw, sparse disk images.

    `vhdx2raw SRC DST` is short for `vhdx2raw convert SRC DST`; for its options see
    `vhdx2raw convert --help`. A file that is called like a command is written `./convert`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program on `arguments` (by default those of the process); return its exit code."""
    try:
        with catch_signals():
            words = list(sys.argv[1:] if arguments is None else arguments)
            app(words, prog_name="vhdx2raw")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except Interrupted as interruption:
        complain(str(interruption))
        return interruption.exit_code
    except (Vhdx2rawError, OSError) as error:
        return tell_failure(error)
    except Exception:  # noqa: BLE001 - the last door: no traceback unless it is asked for
        complain_of_fault()
        return INTERNAL_FAULT
    return 0
