"""`vhdx2raw compare`: whether a VHDX holds the same disk as a raw image or another VHDX."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import Annotated, NamedTuple

import typer

from vhdx2raw.cli.console import (
    format_size,
    print_damage,
    print_json,
    print_message,
    print_result,
    warning_facts,
)
from vhdx2raw.cli.exit_codes import DIFFERENT, SALVAGED
from vhdx2raw.cli.options.opening import (
    STANDARD_STREAM,
    Image,
    OpeningFlags,
    PartitionFlags,
    SalvageFlags,
)
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.progress import show_progress
from vhdx2raw.cli.transfers import print_transfer, transfer_facts
from vhdx2raw.disk.chain import NamedFinding, OpenOptions
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.findings import printable
from vhdx2raw.operations.compare import Comparison, compare
from vhdx2raw.source.base import total
from vhdx2raw.source.file_object import is_url, name_of
from vhdx2raw.source.raw_file import RawFile

EXAMPLES = """\b
Examples:
  vhdx2raw compare disk.vhdx disk.img         is the conversion right?
  vhdx2raw compare -q disk.vhdx disk.img      only the exit code, 0 or 1
  vhdx2raw compare disk.vhdx copy.vhdx        the same disk in two VHDX files
  vhdx2raw compare --strict disk.vhdx /dev/sdb
  vhdx2raw compare --partition 2 server.vhdx root.img
  vhdx2raw compare --json disk.vhdx disk.img  for a script
"""


def run(
    image: Image,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER", help="A raw image, a block device or another VHDX; only read as well."
        ),
    ],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Take OTHER for a raw image even if it looks like a VHDX.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A difference in size counts, even if it is all zeros.")
    ] = False,
    first: Annotated[
        bool, typer.Option("--first", help="Stop at the first difference, do not count them.")
    ] = False,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Compare the disk in IMAGE with the one in OTHER.

    The exit code is 0 if they are the same, and 1 if they differ. Where one is longer, the rest of
    it must be zeros. --parent names the parents of IMAGE; those of OTHER are looked for.
    --partition is taken of IMAGE and, if it is a VHDX as well, of OTHER; a raw OTHER is taken
    whole.
    """
    if STANDARD_STREAM in (image, other):
        raise typer.BadParameter("disks cannot be read from standard input; name a file")
    opened = opening.options(salvage)
    others = replace(opened, parents=(), allow_parent_mismatch=False)
    started = time.monotonic()
    with (
        part.open(image, opened) as disk,
        closing(RawFile(other) if raw else _open_as_it_begins(other, others)) as other_whole,
        show_progress(progress.mode(quiet=verbosity.quiet)) as show,
    ):
        other_disk = _part_of(other_whole, part)
        result = compare(disk, other_disk, stop_at_first=first, progress=show)
    seconds = time.monotonic() - started
    names = name_of(image), name_of(other)
    report = _Report(names[0], disk, names[1], other_disk, result, strict, part.partition)
    verbosity.print_warnings(report.warnings)
    print_damage(report.damage)
    if verbosity.verbose:
        _print_work(report, seconds)
    if as_json:
        facts = report.facts() | {"duration-seconds": round(seconds, 3)}
        print_json(facts)
    elif not verbosity.quiet:
        print_result(printable(report.sentence()))
    if not report.same:
        raise typer.Exit(DIFFERENT)
    if not report.is_certain:
        raise typer.Exit(SALVAGED)


def _print_work(report: _Report, seconds: float) -> None:
    compared = format_size(report.result.compared_bytes)
    print_message(f"vhdx2raw: {compared} compared in {seconds:.1f} s")
    for one in report.disks:
        print_transfer(one.name, one.chain.fetched)


def _part_of(disk: VirtualDisk | RawFile, part: PartitionFlags) -> VirtualDisk | RawFile:
    return part.of(disk) if isinstance(disk, VirtualDisk) else disk


def _open_as_it_begins(path: str, options: OpenOptions) -> VirtualDisk | RawFile:
    """Open a VHDX if the signature is that of one, or it is a URL, else a raw disk."""
    if is_url(path):
        return open_disk(path, options)
    with RawFile(path) as raw:
        is_vhdx = raw.begins_like_a_vhdx()
    return open_disk(path, options) if is_vhdx else RawFile(path)


class _Report(NamedTuple):
    """What was compared, and what was found."""

    name: str
    disk: VirtualDisk
    other_name: str
    other: VirtualDisk | RawFile
    result: Comparison
    strict: bool
    partition: int | None

    @property
    def same(self) -> bool:
        return self.result.same_contents and (self.result.same_size or not self.strict)

    @property
    def disks(self) -> list[VirtualDisk]:
        return [one for one in (self.disk, self.other) if isinstance(one, VirtualDisk)]

    @property
    def warnings(self) -> tuple[NamedFinding, ...]:
        """What is unusual about any file, though its bytes are right."""
        others = self.other.warnings if isinstance(self.other, VirtualDisk) else ()
        return self.disk.warnings + others

    @property
    def damage(self) -> tuple[NamedFinding, ...]:
        """What is wrong with any file; only with --salvage."""
        others = self.other.damage if isinstance(self.other, VirtualDisk) else ()
        return self.disk.damage + others

    @property
    def is_certain(self) -> bool:
        others = self.other.is_certain if isinstance(self.other, VirtualDisk) else True
        return self.disk.is_certain and others

    def facts(self) -> dict[str, object]:
        """Return the answer as JSON, with the keys of qemu-img where they mean the same."""
        size, other_size = self.result.sizes
        return {
            "same": self.same,
            "same-contents": self.result.same_contents,
            "same-size": self.result.same_size,
            "first-difference": self.result.first_difference,
            "different-bytes": self.result.different_bytes,
            "compared-bytes": self.result.compared_bytes,
            "images": [
                _facts_of(self.name, size, "vhdx", self.partition),
                _facts_of(self.other_name, other_size, "raw", None)
                if isinstance(self.other, RawFile)
                else _facts_of(self.other_name, other_size, "vhdx", self.partition),
            ],
            "warnings": warning_facts(self.warnings),
            "damage": warning_facts(self.damage),
            **transfer_facts(total(one.chain.fetched for one in self.disks)),
        }

    def sentence(self) -> str:
        """Return the answer for people."""
        both = f"{self.name} and {self.other_name}"
        place, count = self.result.first_difference, self.result.different_bytes
        if place is None:
            words = f"{both} have the same contents"
        elif count is None:
            words = f"{both} differ, the first byte at offset {place:#x} ({place})"
        else:
            words = f"{both} differ in {count} byte{'s' * (count > 1)}"
            words += f", the first at offset {place:#x} ({place})"
        if not self.result.same_size:
            size, other_size = self.result.sizes
            longer = self.name if size > other_size else self.other_name
            ending = " of zeros" if place is None else ""
            words += f"; {longer} is longer by {abs(size - other_size)} bytes{ending}"
        return words


def _facts_of(name: str, size: int, kind: str, partition: int | None) -> dict[str, object]:
    return {"filename": name, "format": kind, "partition": partition, "virtual-size": size}
