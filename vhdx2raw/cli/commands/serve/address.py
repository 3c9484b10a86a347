"""Where a server listens: the options that say so, and how clients and nbdkit are told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import quote

import typer

from vhdx2raw.errors import OutputError

MAX_SOCKET_PATH = 107
"""Bytes that the path of a Unix socket can have on Linux."""
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - they are recognized here


class Address(NamedTuple):
    """Where the server listens.

    Attributes:
        uri: How clients name it.
        words: How nbdkit is told.
        variables: What programs that are run can know of it, besides the URI.
        socket: The path of a Unix socket, which exists as long as the server.
    """

    uri: str
    words: tuple[str, ...]
    variables: Mapping[str, str]
    socket: Path | None = None


def unix_address(path: str) -> Address:
    """Return the address of a Unix socket.

    Raises:
        OutputError: No socket can have this name.
    """
    if (size := len(os.fsencode(path))) > MAX_SOCKET_PATH:
        problem = f"has {size} bytes, and the path of a socket at most {MAX_SOCKET_PATH}"
        raise OutputError(problem, path=path, remedy="use a shorter one: {socket}")
    uri = f"nbd+unix:///?socket={quote(os.fsencode(path))}"
    return Address(uri, ("--unix", path), {"unixsocket": path}, Path(path))


def tcp_address(host: str, port: int) -> Address:
    """Return the address of a TCP port."""
    shown = "localhost" if host in ANY_ADDRESS else host
    uri = f"nbd://[{shown}]:{port}" if ":" in shown else f"nbd://{shown}:{port}"
    return Address(uri, ("--ipaddr", host, "--port", str(port)), {"port": str(port)})


@dataclass(slots=True, eq=False, repr=False)
class ListenFlags:
    """Where to listen."""

    socket: Annotated[
        str | None,
        typer.Option(
            "--socket",
            metavar="PATH",
            help="Listen on a Unix socket of this name, instead of one in a private folder.",
            show_default=False,
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=1,
            max=65535,
            help="Listen on a TCP port, on this machine only.",
            show_default=False,
        ),
    ] = None
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="With --port: listen on this address. Whoever reaches it can read the disk.",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check that no two of them contradict each other."""
        if self.socket is not None and self.port is not None:
            raise typer.BadParameter("--socket and --port contradict each other")
        if self.listen is not None and self.port is None:
            raise typer.BadParameter("--listen is about TCP; give --port as well")

    def address(self, private_folder: Path) -> Address:
        """Return what they say, or a socket in a folder that nobody else can look into.

        Raises:
            OutputError: No socket can have such a name.
        """
        if self.port is not None:
            return tcp_address(self.listen or LOOPBACK, self.port)
        return unix_address(os.path.abspath(self.socket or private_folder / "socket"))  # noqa: PTH100
