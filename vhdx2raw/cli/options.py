"""The words of the command line that take a value: each option once, for every command."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from vhdx2raw.cli.progress import ProgressMode
from vhdx2raw.cli.words import parse_size
from vhdx2raw.convert import MAX_SPARSE_SIZE, MIN_SPARSE_SIZE
from vhdx2raw.hashes import ALGORITHMS, algorithm_name
from vhdx2raw.log import LogPolicy

STANDARD_STREAM = "-"
NULL_OUTPUT = "null:"


class OutputFormat(str, Enum):
    """What goes to stdout, in the words of qemu-img."""

    HUMAN = "human"
    JSON = "json"


def _parse_sparse_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if size and not (MIN_SPARSE_SIZE <= size <= MAX_SPARSE_SIZE and size.bit_count() == 1):
        raise typer.BadParameter("give 0, or a power of two from 512 to 1M")
    return size


def parse_algorithm(text: str) -> str:
    """Return the name of an algorithm for digests as it is in `ALGORITHMS`."""
    if algorithm_name(text) not in ALGORITHMS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(ALGORITHMS)}")
    return algorithm_name(text)


def choose_log_policy(*, no_replay: bool, ignore_log: bool) -> LogPolicy:
    """Return what two options say about the log.

    Raises:
        typer.BadParameter: They contradict each other.
    """
    if no_replay and ignore_log:
        raise typer.BadParameter("--no-replay and --ignore-log contradict each other")
    if no_replay:
        return LogPolicy.REFUSE
    return LogPolicy.IGNORE if ignore_log else LogPolicy.REPLAY


def choose_progress(mode: ProgressMode, *, short: bool, quiet: bool) -> ProgressMode:
    """Return what three options say about progress."""
    if short:
        return ProgressMode.ALWAYS
    return ProgressMode.NEVER if quiet and mode is ProgressMode.AUTO else mode


Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="The VHDX file; it is never written to.")
]
Parents = Annotated[
    list[str],
    typer.Option(
        "--parent",
        metavar="FILE",
        help="The parent of a differencing disk; repeat it for the parent's parent.",
    ),
]
ParentDirs = Annotated[
    list[str],
    typer.Option("--parent-dir", metavar="DIR", help="Look for parents in DIR as well."),
]
AllowParentMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-parent-mismatch",
        help="Use a parent that is not the version that the child was made from.",
    ),
]
NoReplay = Annotated[
    bool, typer.Option("--no-replay", help="Refuse a disk with updates in its log.")
]
IgnoreLog = Annotated[
    bool, typer.Option("--ignore-log", help="Read a disk as it is without the updates in its log.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace DST if it exists.")]
SparseSize = Annotated[
    int,
    typer.Option(
        "-S",
        "--sparse-size",
        metavar="SIZE",
        parser=_parse_sparse_size,
        help="Make holes of stored zeros that fill SIZE bytes; 0 writes and allocates everything.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=64,
        help="Copy with this many threads.",
        show_default=False,
    ),
]
NoClone = Annotated[
    bool, typer.Option("--no-clone", help="Copy even where the file system could share blocks.")
]
NoSync = Annotated[
    bool, typer.Option("--no-sync", help="Do not wait until DST is on stable storage.")
]
Progress = Annotated[
    ProgressMode, typer.Option("--progress", help="How to show progress on stderr.")
]
ShortProgress = Annotated[bool, typer.Option("-p", help="The same as --progress always.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what was found and done.")]
Json = Annotated[bool, typer.Option("--json", help="Write a summary to stdout as JSON.")]
JsonAnswer = Annotated[bool, typer.Option("--json", help="Write the answer as JSON.")]
Output = Annotated[
    OutputFormat,
    typer.Option("--output", help="json is --json, as users of qemu-img type it.", hidden=True),
]


def parse_bytes(text: str) -> int:
    """Return a size in bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


StartOffset = Annotated[
    int,
    typer.Option(
        "--start-offset", metavar="SIZE", parser=parse_bytes, help="Begin at this offset."
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        metavar="SIZE",
        parser=parse_bytes,
        help="Show no more than this many bytes.",
        show_default=False,
    ),
]
Picture = Annotated[bool, typer.Option("--picture", help="Draw the disk in the terminal.")]
Svg = Annotated[
    str | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help=f"Draw the disk as an SVG; '{STANDARD_STREAM}' is standard output.",
    ),
]
ForceSvg = Annotated[bool, typer.Option("--force", help="Replace the SVG file if it exists.")]
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="The VHDX files; they are never written to."),
]
Other = Annotated[
    str,
    typer.Argument(
        metavar="OTHER", help="A raw image, a block device or another VHDX; only read as well."
    ),
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Take OTHER for a raw image even if it looks like a VHDX.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="A difference in size counts, even if it is all zeros.")
]
First = Annotated[
    bool, typer.Option("--first", help="Stop at the first difference, do not count them.")
]
Algorithm = Annotated[
    str,
    typer.Option(
        "-a",
        "--algorithm",
        metavar="NAME",
        parser=parse_algorithm,
        help=f"The kind of digest: {', '.join(ALGORITHMS)}.",
    ),
]
WithChain = Annotated[
    bool, typer.Option("--chain", help="Tell of every parent of a differencing disk as well.")
]
