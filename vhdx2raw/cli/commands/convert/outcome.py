"""One conversion as the command line does it, and how its outcome is reported."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import typer

from vhdx2raw import host
from vhdx2raw.cli.console import (
    format_size,
    print_damage,
    print_digest,
    print_error,
    print_message,
    standard_output,
    warning_facts,
)
from vhdx2raw.cli.exit_codes import SALVAGED
from vhdx2raw.cli.files import require_writable, write_file
from vhdx2raw.cli.options.converting import NO_VERSION, NULL_OUTPUT
from vhdx2raw.cli.options.opening import STANDARD_STREAM, PartitionFlags
from vhdx2raw.cli.options.reporting import VerbosityFlags
from vhdx2raw.cli.progress import interruptible
from vhdx2raw.cli.record import digest_facts, file_facts, now, run_facts
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.signals import defer
from vhdx2raw.cli.transfers import print_transfer, transfer_facts
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.salvage import iter_mapfile
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import UntoldResultError
from vhdx2raw.operations.convert import ConversionResult, ConvertOptions, convert_disk
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.state import default_state_path
from vhdx2raw.output.null import NullSink
from vhdx2raw.output.stream import StreamSink

MAPFILE_REMEDY = "to list what is lost, convert to null: with another {mapfile}"


@dataclass(frozen=True, slots=True)
class Converter:
    """How each file of a run is converted.

    Attributes:
        opening: How it is opened.
        options: How it is converted.
        part: Which part of its disk is taken.
        mapfile: Where a salvaged disk gets its map file.
        save_state: Whether a state file is kept beside each output.
    """

    opening: OpenOptions
    options: ConvertOptions
    part: PartitionFlags
    mapfile: str | None = None
    save_state: bool = False

    @property
    def keeps_state(self) -> bool:
        """Whether it matters afterwards which version of a disk the output holds."""
        return self.save_state or self.options.state is not None or self.options.update

    def convert(self, source: str, destination: str, show: ProgressCallback) -> Outcome:
        """Convert one file, such that a signal leaves nothing behind."""
        began, started = now(), time.monotonic()
        with self.open(source) as whole:
            disk = self.part.of(whole)
            inputs, force = disk.chain.identities, self.options.force
            if self.mapfile is not None:
                require_writable(self.mapfile, inputs, force=force)
            result = self.write(disk, destination, show)
            seconds = time.monotonic() - started
            outcome = Outcome(self.options, self.part, disk, destination, result, seconds, began)
            if self.mapfile is not None:
                try:
                    with telling(destination, MAPFILE_REMEDY):
                        lines = iter_mapfile(result.lost_ranges, disk.size)
                        data = "".join(f"{line}\n" for line in lines).encode("ascii")
                        write_file(self.mapfile, data, inputs, force=force, interruptible=False)
                except UntoldResultError:
                    outcome.print_losses()
                    raise
        return outcome

    def open(self, source: str) -> VirtualDisk:
        return open_disk(source, self.opening)

    def write(
        self, disk: VirtualDisk, destination: str, show: ProgressCallback
    ) -> ConversionResult:
        """Write an open disk to its output."""
        if destination == STANDARD_STREAM:
            # Nothing to clean up, and a pipe that is not read must not hold up a signal.
            stream = StreamSink(standard_output().buffer, inputs=disk.chain.identities)
            return convert_disk(disk, stream, replace(self.options, progress=show))
        defer()
        options = replace(self.options, progress=interruptible(show))
        if self.save_state and options.state is None:
            options = replace(options, state=default_state_path(destination))
        sink = NullSink() if destination == NULL_OUTPUT else destination
        return convert_disk(disk, sink, options)


def require_consistent(converter: Converter) -> None:
    """Refuse what contradicts itself, before anything is opened.

    Raises:
        typer.BadParameter: Two options do.
    """
    salvage, mapfile = converter.opening.salvage, converter.mapfile
    if salvage and converter.options.resume:
        raise typer.BadParameter("--resume would forget what --salvage has lost")
    if converter.part.partition is not None and converter.keeps_state:
        raise typer.BadParameter(f"--partition takes a part of a disk; {NO_VERSION}")
    if mapfile is not None and not salvage:
        raise typer.BadParameter("--mapfile lists what --salvage has lost; give both")
    if mapfile == STANDARD_STREAM:
        raise typer.BadParameter("--mapfile needs the name of a file")


def hash_facts(digests: Mapping[str, str]) -> dict[str, object]:
    """Return digests as JSON; the first one has a key of its own."""
    hashes = digest_facts(digests)
    return {"hash": hashes[0], "hashes": hashes} if hashes else {}


class Outcome(NamedTuple):
    """What became of one conversion that did not fail."""

    options: ConvertOptions
    part: PartitionFlags
    disk: VirtualDisk
    destination: str
    result: ConversionResult
    seconds: float
    began: str

    @property
    def exit_code(self) -> int:
        """0, or `SALVAGED` if what was read is not certain or not complete."""
        return SALVAGED if self.disk.damage or self.result.lost_ranges else 0

    def print(self, verbosity: VerbosityFlags) -> None:
        """Report on stderr the warnings, what was done, and what is lost."""
        verbosity.print_warnings(self.result.warnings)
        if verbosity.reports:
            self._print_work()
        if self.exit_code:
            self.print_losses()

    def _print_work(self) -> None:
        result, kind = self.result, self.disk.metadata.disk_type
        if result.begun_anew:
            print_message(f"vhdx2raw: {self.destination}: begun anew: {result.begun_anew}")
        if result.resumed_bytes:
            again = ", which were read once more for the digest" if result.digest else ""
            print_message(
                f"vhdx2raw: {self.destination}: resumed after"
                f" {format_size(result.resumed_bytes)}{again}"
            )
        print_transfer(self.disk.name, self.disk.chain.fetched)
        cloned = f", {format_size(result.cloned_bytes)} shared" if result.cloned_bytes else ""
        print_message(
            f"vhdx2raw: {self.disk.name}{self.part.words}: {format_size(result.virtual_disk_size)}"
            f" {kind} disk, {format_size(result.data_bytes)} of it stored;"
            f" {format_size(result.written_bytes)} written{cloned} to {self.destination}"
            f" in {self.seconds:.1f} s"
        )

    def print_losses(self) -> None:
        """Report on stderr what is damaged, and how much is lost."""
        print_damage(self.disk.damage)
        result, name = self.result, self.disk.name
        if not result.lost_ranges:
            print_error(f"{name}: salvaged; no range of the disk was lost")
            return
        count = len(result.lost_ranges) + result.unlisted_ranges
        print_error(
            f"{name}: salvaged; lost {format_size(result.lost_bytes)}"
            f" ({result.lost_bytes} bytes; ranges: {count}), which are zeros in {self.destination}"
        )
        if result.unlisted_ranges:
            print_error(
                f"{name}: {result.unlisted_ranges} of these ranges are not listed by themselves,"
                " but with what lies between them and another one"
            )

    def print_digest(self) -> None:
        """Write the digests, if there are any; stdout may be taken by the disk itself."""
        found = [(digest, self.destination) for digest in self.result.digests.values()]
        for image, digests in zip(self.disk.chain.images, self.result.source_digests, strict=False):
            found += ((digest, image.source.name) for digest in digests.values())
        for digest, name in found:
            if self.destination == STANDARD_STREAM:
                print_message(f"{digest}  {name}")
            else:
                print_digest(digest, name)

    def facts(self) -> dict[str, object]:
        """Return the summary as JSON, with the keys of qemu-img where they mean the same."""
        chain, result = self.disk.chain, self.result
        facts: dict[str, object] = {
            "filename": self.disk.name,
            "partition": self.part.partition,
            "destination": self.destination,
            "format": self.options.output_format,
            "image-size": result.virtual_disk_size + result.added_bytes,
            "virtual-size": result.virtual_disk_size,
            "data-size": result.data_bytes,
            "cloned-size": result.cloned_bytes,
            "written-size": result.written_bytes,
            "logical-sector-size": chain.child.metadata.logical_sector_size,
            "chain": file_facts(chain, result.source_digests),
            "warnings": warning_facts(result.warnings),
            "verified": self.options.verify,
            "duration-seconds": round(self.seconds, 3),
            **run_facts(self.began),
        }
        for key, path in (("map", self.options.map_out), ("bmap", self.options.bmap)):
            if path is not None:
                facts[key] = os.fspath(path)
        facts |= hash_facts(result.digests)
        if self.options.resume:
            facts["resumed-size"] = result.resumed_bytes
            facts["begun-anew"] = result.begun_anew or None
        if chain.salvaging:
            facts["damage"] = warning_facts(chain.damage)
            facts["lost-size"] = result.lost_bytes
            facts["lost-ranges"] = [
                {"start": start, "length": length} for start, length in result.lost_ranges
            ]
            facts["unlisted-ranges"] = result.unlisted_ranges
        if Path(self.destination).is_file():
            facts["actual-size"] = host.allocated_size(Path(self.destination).stat())
        return facts | transfer_facts(chain.fetched)
