"""`vhdx2raw mount`: the disk in a VHDX as a file, without converting it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Annotated

import typer

from vhdx2raw.cli.console import format_error, print_damage, print_error, print_message
from vhdx2raw.cli.exit_codes import INTERNAL_FAULT, SALVAGED
from vhdx2raw.cli.options.opening import Image, OpeningFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import VerbosityFlags
from vhdx2raw.cli.signals import Interrupted, by_default
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import MountError, Vhdx2rawError
from vhdx2raw.operations.acceptance import check_acceptable
from vhdx2raw.operations.mount import mount_disk
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw mount disk.vhdx dir          dir/disk.img, dir/disk.p1.img
  vhdx2raw mount snapshot.avhdx dir     a checkpoint with its parents
  vhdx2raw mount --salvage damaged.vhdx dir
"""


def run(
    image: Image,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="An empty folder in which the files appear.")
    ],
    *,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Do not go to the background once DIR is mounted.")
    ] = False,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users look into DIR, too.")
    ] = False,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    verbosity: VerbosityFlags,
) -> None:
    """Show the disk in IMAGE as the file disk.img in DIR, read-only.

    Each partition is a file as well: disk.p1.img and so on. Nothing is converted; what is read is
    looked up at that moment. `umount DIR` or `fusermount3 -u DIR` ends it, and so does SIGTERM.
    What cannot be read is an input/output error, with a line on stderr or, from the background, in
    the log of the system.
    """
    options = opening.options_for([image], salvage)

    def serve(detach: Callable[[int], None]) -> int:
        with open_disk(image, options) as disk:
            exit_code = SALVAGED if disk.damage else 0
            verbosity.print_warnings(check_acceptable(disk))
            print_damage(disk.damage)

            def tell() -> None:
                if verbosity.reports:
                    name = name_of(image)
                    print_message(f"vhdx2raw: {name} is mounted; to end that: umount {folder}")
                detach(exit_code)

            with by_default():
                mount_disk(
                    disk,
                    folder,
                    allow_other=allow_other,
                    mounted=tell,
                    report=_report if foreground else _report_to_log,
                )
        return exit_code

    exit_code = serve(lambda _: None) if foreground else _serve_in_background(serve)
    if exit_code:
        raise typer.Exit(exit_code)


def _report(problem: str, error: Exception | None) -> None:
    print_error(_line_of(problem, error))


def _report_to_log(problem: str, error: Exception | None) -> None:
    import syslog  # noqa: PLC0415 - Windows has none

    syslog.openlog("vhdx2raw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, _line_of(problem, error))


def _line_of(problem: str, error: Exception | None) -> str:
    if error is None:
        return problem
    if isinstance(error, OSError | Vhdx2rawError):
        return f"{problem}: {format_error(error)}"
    return f"{problem}: {error!r}"


def _serve_in_background(serve: Callable[[Callable[[int], None]], int]) -> int:
    """Run `serve` in a process of its own, which says what is wrong until it is detached.

    Nothing is open yet that a second process could not use as well. Returns the exit code: what
    that process detaches or, if it never does, ends with.
    """
    if not hasattr(os, "fork"):
        raise MountError("there are no background processes here", remedy="use {foreground}")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()

        def detach(exit_code: int) -> None:
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.write(writing, bytes([exit_code]))
            os.close(writing)

        try:
            return serve(detach)
        except Interrupted as interruption:  # the first process says so
            os._exit(interruption.exit_code)
    os.close(writing)
    try:
        detached = os.read(reading, 1)
    except Interrupted:
        os.kill(child, signal.SIGTERM)
        raise
    if detached:
        return detached[0]
    _, status = os.waitpid(child, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    return exit_code if exit_code >= 0 else INTERNAL_FAULT
