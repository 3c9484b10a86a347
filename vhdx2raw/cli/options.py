"""The options of the command line: each once, in groups that commands take as a whole.

A group is a dataclass whose fields are options. A command names it as the type of a parameter, and
`expand_groups` makes of it what Typer understands: a function with a parameter for each field.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from vhdx2raw.cli.console import Answer, is_terminal, parse_size, print_warnings
from vhdx2raw.cli.progress import ProgressMode
from vhdx2raw.cli.usage import INPUT, OUTPUT, REPORTING, SPEED, TRUST
from vhdx2raw.disk.chain import NamedFinding, OpenOptions
from vhdx2raw.output.hashes import ALGORITHMS, require_algorithm
from vhdx2raw.vhdx.log import LogPolicy
from vhdx2raw.vhdx.region_search import REGION_NAMES

if TYPE_CHECKING:
    from vhdx2raw.operations.convert import ConvertOptions

STANDARD_STREAM = "-"
NULL_OUTPUT = "null:"
STANDARD_INPUT = "a VHDX cannot be read from standard input; name a file"
NO_VERSION = "--save-state, --state and --update need one version of a disk as a whole"

Value = TypeVar("Value")


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with a parameter for each option of its groups."""
    parameters: list[Parameter] = []
    groups: dict[str, type] = {}
    # Not get_type_hints of a function: before Python 3.11 it wraps what has None as its default.
    for parameter in signature(command, eval_str=True).parameters.values():
        hint = parameter.annotation
        if isinstance(hint, type) and is_dataclass(hint):
            groups[parameter.name] = hint
            types = get_type_hints(hint, include_extras=True)
            parameters += [_parameter_of(option, types[option.name]) for option in fields(hint)]
        else:
            parameters.append(parameter)

    def run(**values: object) -> None:
        made = {
            name: group(**{option.name: values.pop(option.name) for option in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, {}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter_of(option: Field[Any], hint: object) -> Parameter:
    default = option.default
    if option.default_factory is not MISSING:
        default = option.default_factory()
    return Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def parsed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return `parse`, whose `ValueError` becomes a wrong use of the command line."""

    def parse_option(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse_option


def _parse_sparse_size(text: str) -> int:
    from vhdx2raw.operations.convert import MAX_SPARSE_SIZE, MIN_SPARSE_SIZE  # noqa: PLC0415

    size = parse_size(text)
    if size and not (MIN_SPARSE_SIZE <= size <= MAX_SPARSE_SIZE and size.bit_count() == 1):
        raise ValueError("give 0, or a power of two from 512 to 1M")
    return size


ALGORITHM_NAMES = ", ".join(ALGORITHMS)
Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="The VHDX file; it is never written to.")
]
Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="The VHDX files; they are never written to.")
]


@dataclass(frozen=True, slots=True)
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
            help="Where a region lies (bat or metadata), if --salvage does not find it.",
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


@dataclass(frozen=True, slots=True)
class OpeningFlags:
    """How disks are opened."""

    parents: Annotated[
        list[str],
        typer.Option(
            "--parent",
            metavar="FILE",
            rich_help_panel=INPUT,
            help="The parent of a differencing disk; repeat it for the parent's parent.",
        ),
    ] = field(default_factory=list)
    parent_dirs: Annotated[
        list[str],
        typer.Option(
            "--parent-dir",
            metavar="DIR",
            rich_help_panel=INPUT,
            help="Look for parents in DIR as well.",
        ),
    ] = field(default_factory=list)
    allow_parent_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-parent-mismatch",
            rich_help_panel=INPUT,
            help="Use a parent that is not the version that the child was made from.",
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
            help="Read a disk as it is without the updates in its log.",
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
        )


@dataclass(frozen=True, slots=True)
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
            help="Print the digest of the disk as well, as sha256sum does; repeat it for several.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            rich_help_panel=TRUST,
            help="Read DST back from storage, and compare, before it is done.",
        ),
    ] = False
    save_state: Annotated[
        bool,
        typer.Option(
            "--save-state",
            rich_help_panel=OUTPUT,
            help="Record in DST.state.json what DST holds, for `apply`.",
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
            help="Read DST, and write to it only what differs, in place.",
        ),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=OUTPUT,
            help="Keep what was written if this fails; go on with what was kept.",
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
        if self.update and self.target_is_zero:
            raise typer.BadParameter("--target-is-zero and --update contradict each other")
        return ConvertOptions(
            state=self.state,
            update=self.update,
            resume=self.resume,
            force=self.force,
            target_is_zero=self.target_is_zero,
            sparse_size=self.sparse_size,
            workers=self.workers,
            clone=not self.no_clone,
            sync=not self.no_sync,
            hash_algorithm=self.hash_algorithms,
            verify=self.verify,
            strict=self.strict,
            max_virtual_disk_size=self.max_virtual_size,
            allow_changed=self.allow_changed,
        )


@dataclass(frozen=True, slots=True)
class ProgressFlags:
    """How progress is shown."""

    progress: Annotated[
        ProgressMode,
        typer.Option(
            "--progress",
            metavar="WHEN",
            rich_help_panel=REPORTING,
            help="Show progress on stderr: auto (on a terminal), always, never or json.",
        ),
    ] = ProgressMode.AUTO
    short_progress: Annotated[
        bool, typer.Option("-p", rich_help_panel=REPORTING, help="The same as --progress always.")
    ] = False

    def mode(self, *, quiet: bool) -> ProgressMode:
        if self.short_progress:
            return ProgressMode.ALWAYS
        is_silent = quiet and self.progress is ProgressMode.AUTO
        return ProgressMode.NEVER if is_silent else self.progress


@dataclass(frozen=True, slots=True)
class VerbosityFlags:
    """How much is written to stderr."""

    quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            rich_help_panel=REPORTING,
            help="Print nothing but errors, not even warnings.",
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", rich_help_panel=REPORTING, help="Report what was found and done."
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check that the two do not contradict each other."""
        if self.quiet and self.verbose:
            raise typer.BadParameter("-q and -v contradict each other")

    @property
    def reports(self) -> bool:
        """Whether to report what is not an error: to a person, and to those who ask for it."""
        return self.verbose or (is_terminal(sys.stderr) and not self.quiet)

    def print_warnings(self, warnings: Iterable[NamedFinding]) -> None:
        """Report warnings, to everybody who has not asked for silence."""
        if not self.quiet:
            print_warnings(warnings, in_full=self.reports)


class OutputFormat(str, Enum):
    """What goes to stdout, in the words of qemu-img."""

    HUMAN = "human"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class JsonFlags:
    """In which form the result is written."""

    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=REPORTING, help="Write the result as JSON.")
    ] = False
    output: Annotated[
        OutputFormat,
        typer.Option("--output", help="json is --json, as users of qemu-img type it.", hidden=True),
    ] = OutputFormat.HUMAN

    def __post_init__(self) -> None:
        """Let a failure be told in the same form."""
        Answer.as_json = bool(self)

    def __bool__(self) -> bool:
        return self.as_json or self.output is OutputFormat.JSON
