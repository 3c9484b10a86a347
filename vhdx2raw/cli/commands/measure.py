"""`vhdx2raw measure`: what raw images will need, in the words of qemu-img."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import typer

from vhdx2raw.cli.console import (
    error_facts,
    format_size,
    print_damage,
    print_failure,
    print_json,
    print_result,
)
from vhdx2raw.cli.exit_codes import SALVAGED, first_failure
from vhdx2raw.cli.options.opening import OpeningFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import JsonFlags, VerbosityFlags
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.findings import printable
from vhdx2raw.operations.discovery import discover, iter_files
from vhdx2raw.operations.measure import Measurement, measure
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw measure disk.vhdx         length of the raw image, and its space
  vhdx2raw measure *.vhdx            for each, and for all of them together
  vhdx2raw measure .                 for the newest image of each chain
  vhdx2raw measure --json disk.vhdx  with the keys of qemu-img, and one more
"""


class _Disk(NamedTuple):
    """What is to be measured: its file, how it is opened, and why it cannot be."""

    path: str
    options: OpenOptions
    error: Vhdx2rawError | OSError | None = None


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="VHDX files, and folders in which the newest image of each chain counts.",
        ),
    ],
    *,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Say how much space the raw images of SRC need.

    The required size is the length of the image, which a block device for it must have; a raw image
    is never longer. The sparse size is the most that it takes up on a file system, unless -S 0
    writes everything. Only tables are read, no data. After a failure the other images are measured
    nevertheless; the exit code is that of the first failure.
    """
    disks = list(_iter_disks(sources, opening.options_for(sources, salvage)))
    found = [Measurement(0, 0, 0)]
    results: list[dict[str, object]] = []
    codes: list[int] = []
    for disk in disks:
        try:
            measured, exit_code = _measure(disk, verbosity)
        except (Vhdx2rawError, OSError) as error:
            if sources == [disk.path]:
                raise
            results.append({"filename": name_of(disk.path), "error": error_facts(error)})
            codes.append(print_failure(error))
            continue
        found.append(measured)
        codes.append(exit_code)
        results.append({"filename": name_of(disk.path), **_facts(measured)})
        if sources != [disk.path] and not as_json:
            required, sparse = format_size(measured.required), format_size(measured.sparse)
            print_result(f"{printable(name_of(disk.path))}: required {required}, sparse {sparse}")
    total = Measurement(*map(sum, zip(*found, strict=True)))
    if as_json:
        print_json({**_facts(total), "images": results})
    else:
        print_result("\n".join(_lines(total)))
    if exit_code := first_failure(codes):
        raise typer.Exit(exit_code)


def _iter_disks(sources: Sequence[str], options: OpenOptions) -> Iterator[_Disk]:
    """Yield the files as they were named, and of the chains in a folder the newest images."""
    for source in sources:
        if not os.path.isdir(source):  # noqa: PTH112 - no Path is needed
            yield _Disk(source, options)
            continue
        if options.parents:
            raise typer.BadParameter("--parent fits one file; for a folder use --parent-dir")
        unreadable: list[OSError] = []
        catalog = discover(iter_files(source, unreadable.append), options)
        failures = [*((str(error.filename), error) for error in unreadable), *catalog.broken]
        yield from (_Disk(path, options, error) for path, error in failures)
        for tip in catalog.tips:
            parents = [parent.path for parent in catalog.parents_of(tip)]
            error = None if options.salvage else catalog.chain_error_of(tip)
            yield _Disk(tip.path, replace(options, parents=parents), error)


def _measure(disk: _Disk, verbosity: VerbosityFlags) -> tuple[Measurement, int]:
    """Return what a disk needs, and the exit code."""
    if disk.error:
        raise disk.error
    with open_chain(disk.path, disk.options) as chain:
        verbosity.print_warnings(chain.warnings)
        print_damage(chain.damage)
        return measure(chain), SALVAGED if chain.damage else 0


def _facts(measured: Measurement) -> dict[str, object]:
    return {key.replace("_", "-"): value for key, value in measured._asdict().items()}


def _lines(measured: Measurement) -> list[str]:
    """Return what qemu-img prints, each size for people as well, and then what it does not know."""
    words = ("required size", "fully allocated size", "sparse size")
    pairs = zip(words, measured, strict=True)
    return [f"{name}: {size} ({format_size(size)})" for name, size in pairs]
