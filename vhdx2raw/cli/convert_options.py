"""The options that only `convert` has."""

from __future__ import annotations

from typing import Annotated

import typer

from vhdx2raw.cli.options import NULL_OUTPUT, STANDARD_STREAM, parse_algorithm, parse_bytes

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="SRC... [DST]",
        help="The VHDX file, which is never written to, and the raw image: a file, a block"
        f" device, '{STANDARD_STREAM}' for standard output or '{NULL_OUTPUT}' for none."
        " With --output-dir any number of VHDX files.",
    ),
]
OutputDir = Annotated[
    str | None,
    typer.Option(
        "--output-dir",
        metavar="DIR",
        help="Convert every SRC to DIR/NAME.img; DIR is made if it does not exist.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", metavar="N", min=1, max=64, help="Convert this many files at a time."
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave out every SRC whose output exists already."),
]
TargetIsZero = Annotated[
    bool,
    typer.Option("--target-is-zero", help="DST is a block device that reads as zeros already."),
]
HashAlgorithm = Annotated[
    str | None,
    typer.Option(
        "--hash",
        metavar="ALG",
        parser=parse_algorithm,
        help="Print the digest of the disk as well, as sha256sum does, taken on the way.",
        show_default=False,
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read DST back from storage, and compare, before it is done."),
]
Salvage = Annotated[
    bool,
    typer.Option(
        "--salvage", help="Take what a damaged disk still holds; what is lost becomes zeros."
    ),
]
Mapfile = Annotated[
    str | None,
    typer.Option(
        "--mapfile",
        metavar="FILE",
        help="Write what was lost as a map file of GNU ddrescue.",
        show_default=False,
    ),
]
AllowChanged = Annotated[
    bool,
    typer.Option("--allow-changed", help="Accept that SRC changes while it is read."),
]
StrictConversion = Annotated[
    bool, typer.Option("--strict", help="Refuse what otherwise is only worth a warning.")
]
MaxVirtualSize = Annotated[
    int | None,
    typer.Option(
        "--max-virtual-size",
        metavar="SIZE",
        parser=parse_bytes,
        help="Refuse a disk that is larger, such as 2T.",
        show_default=False,
    ),
]
