"""The options that make an output what the next program takes, or say what it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from vhdx2raw.cli.console import parse_size
from vhdx2raw.cli.options.groups import parsed
from vhdx2raw.cli.options.opening import STANDARD_STREAM
from vhdx2raw.cli.usage import NEXT

if TYPE_CHECKING:
    from vhdx2raw.operations.convert import ConvertOptions


class OutputFormatFlag(str, Enum):
    """What the output is."""

    RAW = "raw"
    VHD = "vhd"


def _parse_round_size(text: str) -> int:
    from vhdx2raw.operations.convert import MAX_ROUND_SIZE  # noqa: PLC0415
    from vhdx2raw.output.vhd import SECTOR_SIZE  # noqa: PLC0415

    size = parse_size(text)
    if size % SECTOR_SIZE or not 0 < size <= MAX_ROUND_SIZE:
        raise ValueError("give a multiple of 512, at most 64T")
    return size


@dataclass(slots=True, eq=False, repr=False)
class ShapeFlags:
    """What an output is for the next program."""

    output_format: Annotated[
        OutputFormatFlag,
        typer.Option(
            "-O",
            "--output-format",
            metavar="FORMAT",
            rich_help_panel=NEXT,
            help="raw, or vhd: a fixed VHD for Azure.",
        ),
    ] = OutputFormatFlag.RAW
    round_size: Annotated[
        int | None,
        typer.Option(
            "--round-size",
            metavar="SIZE",
            parser=parsed(_parse_round_size),
            rich_help_panel=NEXT,
            help="Add zeros up to a multiple of SIZE, such as 1G.",
            show_default=False,
        ),
    ] = None
    map_out: Annotated[
        str | None,
        typer.Option(
            "--map-out",
            metavar="FILE",
            rich_help_panel=NEXT,
            help="Write a map of DST as qemu-img map does.",
            show_default=False,
        ),
    ] = None
    bmap: Annotated[
        str | None,
        typer.Option(
            "--bmap",
            metavar="FILE",
            rich_help_panel=NEXT,
            help="Write the block map of DST for bmaptool.",
            show_default=False,
        ),
    ] = None

    @property
    def maps(self) -> list[str]:
        """The files that describe the output."""
        return [path for path in (self.map_out, self.bmap) if path is not None]

    def added_to(self, options: ConvertOptions, *, needs_version: bool) -> ConvertOptions:
        """Return what the library takes.

        Args:
            options: What it takes without these.
            needs_version: Whether the output is to be changed in place now or later.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        from vhdx2raw.output.vhd import SIZE_UNIT  # noqa: PLC0415 - one command's

        is_vhd = self.output_format is OutputFormatFlag.VHD
        if is_vhd and (self.round_size or 0) % SIZE_UNIT:
            raise typer.BadParameter("-O vhd needs a --round-size of whole MiB")
        if needs_version and (is_vhd or self.round_size is not None):
            raise typer.BadParameter(
                "-O vhd and --round-size fit none of --save-state, --state and --update"
            )
        if self.maps and (options.update or options.resume):
            raise typer.BadParameter("--map-out and --bmap fit neither --update nor --resume")
        if STANDARD_STREAM in self.maps:
            raise typer.BadParameter("--map-out and --bmap need the name of a file")
        return replace(
            options,
            output_format=self.output_format.value,
            round_size=self.round_size,
            map_out=self.map_out,
            bmap=self.bmap,
        )

    def require_distinct(self, others: Iterable[str]) -> None:
        """Refuse a map that is another file of the same run.

        Raises:
            typer.BadParameter: It is.
        """
        names = [os.path.realpath(path) for path in (*self.maps, *others)]
        if any(names.count(os.path.realpath(path)) > 1 for path in self.maps):
            raise typer.BadParameter("--map-out, --bmap and the other outputs must differ")
