"""`vhdx2raw serve`: the disk as a network block device, by nbdkit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vhdx2raw.cli.commands.serve.address import ListenFlags
from vhdx2raw.cli.commands.serve.server import (
    Nbdkit,
    find_nbdkit,
    plugin_path,
    private_folder,
    run_command,
    serving,
    wait_for,
)
from vhdx2raw.cli.console import print_damage, print_message, print_result
from vhdx2raw.cli.exit_codes import SALVAGED
from vhdx2raw.cli.options.opening import Image, OpeningFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import VerbosityFlags
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.integrations.keys import write_keys
from vhdx2raw.operations.acceptance import check_acceptable
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw serve disk.vhdx                         print a URI; until Ctrl-C
  vhdx2raw serve --port 10809 disk.vhdx            by TCP, on this machine
  vhdx2raw serve disk.vhdx --run 'nbdinfo "$uri"'  until the command has ended
  vhdx2raw serve --plugin-path                     for nbdkit by hand
"""


def _print_plugin_path(wanted: bool) -> None:  # noqa: FBT001 - the shape that Typer asks for
    if wanted:
        print_result(plugin_path())
        raise typer.Exit


def run(
    image: Image,
    *,
    command: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="COMMAND",
            help="Serve as long as this command of the shell runs, which finds the URI in $uri;"
            " exit with its exit code.",
            show_default=False,
        ),
    ] = None,
    show_plugin_path: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option(
            "--plugin-path",
            is_eager=True,
            callback=_print_plugin_path,
            help="Print where the plugin for nbdkit lies, and exit.",
        ),
    ] = False,
    listening: ListenFlags,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    verbosity: VerbosityFlags,
) -> None:
    """Serve the disk in IMAGE as a network block device (NBD).

    nbdkit does it, with a plugin for its Python, until the program is interrupted; nothing can be
    written. The export "disk" is the whole disk and the default, "p1" its first partition. The URI
    of the default is printed once the server is ready.
    """
    options = opening.options_for([image], salvage)
    with open_disk(image, options) as disk:  # nbdkit has no words and exit codes for its errors
        verbosity.print_warnings(check_acceptable(disk))
        print_damage(disk.damage)
        exports = ", ".join(["disk", *(f"p{part.number}" for part in disk.partitions())])
        salvaged = bool(disk.damage)
    nbdkit = find_nbdkit()
    if verbosity.reports:  # as of checksums that are slow here
        _warn_of_other_python(nbdkit)
    with private_folder() as folder:
        address = listening.address(folder)
        with serving(nbdkit, address, folder, write_keys(image, options)) as server:
            if verbosity.verbose:
                print_message(f"vhdx2raw: {name_of(image)}: the exports are {exports}")
            if command is not None:
                exit_code = run_command(command, address)
            else:
                print_result(address.uri)
                exit_code = wait_for(server)
    raise typer.Exit(exit_code or (SALVAGED if salvaged else 0))


def _warn_of_other_python(nbdkit: Nbdkit) -> None:
    if not nbdkit.has_this_python:
        there, here = (
            ".".join(map(str, python[:2])) for python in (nbdkit.python, sys.version_info)
        )
        problem = f"has Python {there} built in, this is {here}: what is compiled for one"
        problem += " does not fit the other, so a large log takes long to read"
        print_message(f"vhdx2raw: {nbdkit.path}: warning: {problem}")
