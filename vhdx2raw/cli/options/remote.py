"""The options of everything that may be read over a network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from vhdx2raw.cli.usage import NETWORK
from vhdx2raw.source.remote.options import (
    DEFAULTS,
    MAX_CONNECTIONS,
    MAX_RETRIES,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
)


@dataclass(slots=True, eq=False, repr=False)
class RemoteFlags:
    """How URLs are read."""

    connections: Annotated[
        int,
        typer.Option(
            "--connections",
            metavar="N",
            min=1,
            max=MAX_CONNECTIONS,
            rich_help_panel=NETWORK,
            help="Requests at a time.",
        ),
    ] = DEFAULTS.connections
    retries: Annotated[
        int,
        typer.Option(
            "--retries",
            metavar="N",
            min=0,
            max=MAX_RETRIES,
            rich_help_panel=NETWORK,
            help="More tries of a request that fails.",
        ),
    ] = DEFAULTS.retries
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=MIN_TIMEOUT,
            max=MAX_TIMEOUT,
            rich_help_panel=NETWORK,
            help="How long to wait for the next bytes.",
        ),
    ] = DEFAULTS.timeout
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous",
            rich_help_panel=NETWORK,
            help="Use no credentials, as for public buckets.",
        ),
    ] = False
    ca_file: Annotated[
        str | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            rich_help_panel=NETWORK,
            help="Trust the certificates in FILE (PEM) as well.",
            show_default=False,
        ),
    ] = None

    def remote_options(self) -> dict[str, Any]:
        """Return what the library takes."""
        return {option.name: getattr(self, option.name) for option in fields(RemoteFlags)}
