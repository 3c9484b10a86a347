"""The options of everything that opens a disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import typer

from vhdx2raw.cli.options.remote import RemoteFlags
from vhdx2raw.cli.usage import INPUT, TRUST
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.vhdx.log import LogPolicy
from vhdx2raw.vhdx.region_search import REGION_NAMES

STANDARD_STREAM = "-"
STANDARD_INPUT = "a VHDX cannot be read from standard input; name a file"
Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="The VHDX file or its URL; it is never written to.")
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="The VHDX files or their URLs; they are never written to."
    ),
]


@dataclass(slots=True, eq=False, repr=False)
class SalvageFlags:
    """What is done with damaged disks."""

    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage",
            rich_help_panel=TRUST,
            help="Take what a damaged disk still holds; what is lost reads as zeros.",
        ),
    ] = False
    regions: Annotated[
        list[str],
        typer.Option(
            "--region",
            rich_help_panel=TRUST,
            metavar="NAME=OFFSET",
            help="Where bat or metadata lies, for --salvage.",
        ),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check that what belongs together was given together."""
        if self.regions and not self.salvage:
            raise typer.BadParameter("--region is about a damaged disk; give --salvage as well")

    def places(self) -> dict[str, int]:
        """Return the offsets of the regions that were named.

        Raises:
            typer.BadParameter: One is no name and offset.
        """
        places: dict[str, int] = {}
        for text in self.regions:
            name, _, offset = text.partition("=")
            try:
                places[name] = int(offset, 0)
            except ValueError:
                places[name] = -1
            if name not in REGION_NAMES or places[name] < 0:
                raise typer.BadParameter("--region needs bat=OFFSET or metadata=OFFSET, in bytes")
        return places


@dataclass(slots=True, eq=False, repr=False)
class PartitionFlags:
    """Which part of a disk is taken."""

    partition: Annotated[
        int | None,
        typer.Option(
            "--partition",
            metavar="N",
            min=1,
            rich_help_panel=INPUT,
            help="Take only partition N of `info`.",
            show_default=False,
        ),
    ] = None

    def of(self, disk: VirtualDisk) -> VirtualDisk:
        """Return what is to be read of a disk.

        Raises:
            PartitionError: There is no such partition.
        """
        return disk if self.partition is None else disk.partition(self.partition)

    @contextmanager
    def open(self, path: str, options: OpenOptions) -> Iterator[VirtualDisk]:
        """Open a disk, or that partition of it."""
        with open_disk(path, options) as disk:
            yield self.of(disk)

    @property
    def words(self) -> str:
        """What follows the name of a file where it is named for its disk."""
        return "" if self.partition is None else f" (partition {self.partition})"


@dataclass(slots=True, eq=False, repr=False)
class OpeningFlags(RemoteFlags):
    """How disks are opened."""

    parents: Annotated[
        list[str],
        typer.Option(
            "--parent",
            metavar="FILE",
            rich_help_panel=INPUT,
            help="The parent; repeat it for the parent's parent.",
        ),
    ] = field(default_factory=list)
    parent_dirs: Annotated[
        list[str],
        typer.Option(
            "--parent-dir",
            metavar="DIR",
            rich_help_panel=INPUT,
            help="Look for parents in DIR as well, which may be a URL.",
        ),
    ] = field(default_factory=list)
    allow_parent_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-parent-mismatch",
            rich_help_panel=INPUT,
            help="Use a parent of another version, too.",
        ),
    ] = False
    no_replay: Annotated[
        bool,
        typer.Option(
            "--no-replay", rich_help_panel=TRUST, help="Refuse a disk with updates in its log."
        ),
    ] = False
    ignore_log: Annotated[
        bool,
        typer.Option(
            "--ignore-log",
            rich_help_panel=TRUST,
            help="Leave out the updates in the log.",
        ),
    ] = False

    def options_for(
        self, images: Sequence[str], salvage: SalvageFlags | None = None
    ) -> OpenOptions:
        """Return what the library takes, for any number of images.

        Raises:
            typer.BadParameter: Something does not fit the images, or two options contradict each
                other.
        """
        if STANDARD_STREAM in images:
            raise typer.BadParameter(STANDARD_INPUT)
        if self.parents and len(images) > 1:
            raise typer.BadParameter("--parent fits one IMAGE; for several use --parent-dir")
        return self.options(salvage)

    def options(self, salvage: SalvageFlags | None = None) -> OpenOptions:
        """Return what the library takes.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        if self.no_replay and self.ignore_log:
            raise typer.BadParameter("--no-replay and --ignore-log contradict each other")
        log_policy = LogPolicy.IGNORE if self.ignore_log else LogPolicy.REPLAY
        return OpenOptions(
            parents=self.parents,
            parent_dirs=self.parent_dirs,
            allow_parent_mismatch=self.allow_parent_mismatch,
            log_policy=LogPolicy.REFUSE if self.no_replay else log_policy,
            salvage=salvage is not None and salvage.salvage,
            regions=salvage.places() if salvage is not None else {},
            **self.remote_options(),
        )
