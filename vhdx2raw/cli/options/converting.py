"""The options of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from vhdx2raw.cli.console import parse_size
from vhdx2raw.cli.options.groups import parsed
from vhdx2raw.cli.usage import OUTPUT, SPEED, TRUST
from vhdx2raw.output.hashes import require_algorithm

if TYPE_CHECKING:
    from vhdx2raw.operations.convert import ConvertOptions

NULL_OUTPUT = "null:"
NO_VERSION = "--save-state, --state and --update need one version of a disk as a whole"


class HolesFlag(str, Enum):
    """Which zeros become holes."""

    ZEROS = "zeros"
    SOURCE = "source"
    NONE = "none"


def _parse_sparse_size(text: str) -> int:
    from vhdx2raw.operations.convert import MAX_SPARSE_SIZE, MIN_SPARSE_SIZE  # noqa: PLC0415

    size = parse_size(text)
    if size and not (MIN_SPARSE_SIZE <= size <= MAX_SPARSE_SIZE and size.bit_count() == 1):
        raise ValueError("give 0, or a power of two from 512 to 1M")
    return size


@dataclass(slots=True, eq=False, repr=False)
class ConvertFlags:
    """How disks are converted."""

    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace DST if it exists.")
    ] = False
    target_is_zero: Annotated[
        bool,
        typer.Option(
            "--target-is-zero",
            rich_help_panel=OUTPUT,
            help="DST is a block device that reads as zeros already.",
        ),
    ] = False
    sparse_size: Annotated[
        int,
        typer.Option(
            "-S",
            "--sparse-size",
            metavar="SIZE",
            parser=parsed(_parse_sparse_size),
            rich_help_panel=OUTPUT,
            help="Make holes of stored zeros that fill SIZE bytes; 0 writes and allocates"
            " everything.",
        ),
    ] = "4k"  # type: ignore[assignment]  # parsed by Typer
    holes: Annotated[
        HolesFlag,
        typer.Option(
            "--holes",
            metavar="WHICH",
            rich_help_panel=OUTPUT,
            help="Make holes of all zeros (zeros), only of what SRC does not store (source), or"
            " none.",
        ),
    ] = HolesFlag.ZEROS
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", rich_help_panel=TRUST, help="Refuse what otherwise is only worth a warning."
        ),
    ] = False
    max_virtual_size: Annotated[
        int | None,
        typer.Option(
            "--max-virtual-size",
            metavar="SIZE",
            parser=parsed(parse_size),
            rich_help_panel=TRUST,
            help="Refuse a disk that is larger, such as 2T.",
            show_default=False,
        ),
    ] = None
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed",
            rich_help_panel=TRUST,
            help="Accept that SRC changes while it is read.",
        ),
    ] = False
    hash_algorithms: Annotated[
        list[str],
        typer.Option(
            "--hash",
            metavar="ALG",
            parser=parsed(require_algorithm),
            rich_help_panel=TRUST,
            help="Print the digest of what is written; repeatable.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    hash_source: Annotated[
        bool,
        typer.Option(
            "--hash-source",
            rich_help_panel=TRUST,
            help="Print those of the files that are read, too.",
        ),
    ] = False
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            rich_help_panel=TRUST,
            help="Read DST back from storage, and compare.",
        ),
    ] = False
    save_state: Annotated[
        bool,
        typer.Option(
            "--save-state",
            rich_help_panel=OUTPUT,
            help="Keep DST.state.json, which `apply` needs.",
        ),
    ] = False
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="The same in FILE.",
            show_default=False,
        ),
    ] = None
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            rich_help_panel=OUTPUT,
            help="Write to DST, in place, only what differs.",
        ),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=OUTPUT,
            help="Keep what was written at a failure; go on with it.",
        ),
    ] = False
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=64,
            rich_help_panel=SPEED,
            help="Copy with this many threads.",
            show_default=False,
        ),
    ] = None
    no_clone: Annotated[
        bool,
        typer.Option(
            "--no-clone",
            rich_help_panel=SPEED,
            help="Copy even where the file system could share blocks.",
        ),
    ] = False
    no_sync: Annotated[
        bool,
        typer.Option(
            "--no-sync", rich_help_panel=SPEED, help="Do not wait until DST is on stable storage."
        ),
    ] = False

    @property
    def needs_version(self) -> bool:
        """Whether it is recorded, or has to be certain, which version of a disk DST holds."""
        return self.save_state or self.state is not None or self.update

    def options(self, *, salvage: bool) -> ConvertOptions:
        """Return what the library takes.

        Args:
            salvage: Whether the disk is read with losses, or without its log.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        from vhdx2raw.operations.convert import ConvertOptions  # noqa: PLC0415 - one command's

        if self.needs_version and salvage:
            raise typer.BadParameter(f"--salvage and --ignore-log take what there is; {NO_VERSION}")
        if self.needs_version and self.allow_changed:
            raise typer.BadParameter(f"--allow-changed may mix two disks; {NO_VERSION}")
        if self.resume and (self.update or self.allow_changed):
            raise typer.BadParameter("--resume fits neither --update nor --allow-changed")
        if self.holes is HolesFlag.SOURCE and (self.update or not self.sparse_size):
            raise typer.BadParameter("--holes source fits neither --update nor -S 0")
        if self.update and self.target_is_zero:
            raise typer.BadParameter("--target-is-zero and --update contradict each other")
        return ConvertOptions(
            state=self.state,
            update=self.update,
            resume=self.resume,
            force=self.force,
            target_is_zero=self.target_is_zero,
            holes=self.holes.value,
            sparse_size=self.sparse_size,
            workers=self.workers,
            clone=not self.no_clone,
            sync=not self.no_sync,
            hash_algorithm=self.hash_algorithms,
            hash_source=self.hash_source,
            verify=self.verify,
            strict=self.strict,
            max_virtual_disk_size=self.max_virtual_size,
            allow_changed=self.allow_changed,
        )
