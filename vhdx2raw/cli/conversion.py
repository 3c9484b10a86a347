"""One conversion as the command line does it: what is wished, what is done, what is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from vhdx2raw import host
from vhdx2raw.acceptance import require_acceptable
from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.cli.digests import answer_digest
from vhdx2raw.cli.files import require_writable, write_file
from vhdx2raw.cli.interruption import defer, raise_if_interrupted
from vhdx2raw.cli.options import NULL_OUTPUT, STANDARD_STREAM
from vhdx2raw.cli.words import (
    complain,
    format_size,
    log_facts,
    say,
    say_warnings,
    standard_output,
    warning_facts,
)
from vhdx2raw.convert import ConversionResult, convert
from vhdx2raw.errors import Finding
from vhdx2raw.log import LogPolicy
from vhdx2raw.progress import ProgressCallback
from vhdx2raw.salvage import iter_mapfile
from vhdx2raw.sinks import BlockDeviceSink, NullSink, Sink, StreamSink, open_sink

SALVAGED = 3
"""The exit code of a conversion that is done, though parts could not be read."""


class Wishes(NamedTuple):
    """What the user wants of every conversion of a run."""

    parents: list[str]
    parent_dirs: list[str]
    allow_parent_mismatch: bool
    log_policy: LogPolicy
    salvage: bool
    mapfile: str | None
    strict: bool
    max_virtual_size: int | None
    force: bool
    target_is_zero: bool
    sparse_size: int
    workers: int | None
    clone: bool
    sync: bool
    hash_algorithm: str | None
    verify: bool
    allow_changed: bool

    def convert(self, source: str, destination: str, show: ProgressCallback) -> Outcome:
        """Convert one file, such that a signal leaves nothing behind."""
        started = time.monotonic()
        with open_chain(
            source,
            parents=self.parents,
            parent_dirs=self.parent_dirs,
            allow_parent_mismatch=self.allow_parent_mismatch,
            log_policy=self.log_policy,
            salvage=self.salvage,
        ) as chain:
            warnings = require_acceptable(
                chain, strict=self.strict, max_virtual_disk_size=self.max_virtual_size
            )
            if self.mapfile is not None:
                require_writable(self.mapfile, chain.identities, force=self.force)
            result = self._write(chain, destination, show)
            if self.mapfile is not None:
                lines = iter_mapfile(result.lost_ranges, chain.virtual_disk_size)
                data = "".join(f"{line}\n" for line in lines).encode("ascii")
                write_file(self.mapfile, data, chain.identities, force=self.force)
        seconds = time.monotonic() - started
        warnings = (*warnings, *result.changes)
        return Outcome(self, chain, destination, result, seconds, warnings)

    def _write(self, chain: Chain, destination: str, show: ProgressCallback) -> ConversionResult:
        if destination == STANDARD_STREAM:
            # Nothing to clean up, and a pipe that nobody reads must not hold up a signal.
            stream = StreamSink(standard_output().buffer, inputs=chain.identities)
            return self._copy(chain, stream, show)
        defer()

        def show_unless_interrupted(done: int, total: int) -> None:
            raise_if_interrupted()
            show(done, total)

        sink = self._open_sink(chain, destination)
        try:
            return self._copy(chain, sink, show_unless_interrupted)
        except BaseException:
            sink.abort()
            if isinstance(sink, BlockDeviceSink) and sink.left_incomplete:
                complain(f"{destination}: was overwritten in part, and holds no usable disk now")
            raise

    def _open_sink(self, chain: Chain, destination: str) -> Sink:
        if destination == NULL_OUTPUT:
            return NullSink()
        return open_sink(
            destination,
            chain.virtual_disk_size,
            replace=self.force,
            inputs=chain.identities,
            target_is_zero=self.target_is_zero,
            direct=self.sync,
        )

    def _copy(self, chain: Chain, sink: Sink, show: ProgressCallback) -> ConversionResult:
        return convert(
            chain,
            sink,
            sparse_size=self.sparse_size,
            workers=self.workers,
            clone=self.clone,
            sync=self.sync,
            hash_algorithm=self.hash_algorithm,
            verify=self.verify,
            allow_changed=self.allow_changed,
            progress=show,
        )


class Outcome(NamedTuple):
    """What became of one conversion that did not fail."""

    wishes: Wishes
    chain: Chain
    destination: str
    result: ConversionResult
    seconds: float
    warnings: tuple[tuple[str, Finding], ...]

    @property
    def exit_code(self) -> int:
        """0, or `SALVAGED` if what was read is not certain or not complete."""
        return SALVAGED if self.chain.damage or self.result.lost_ranges else 0

    def tell(self, in_full: bool) -> None:  # noqa: FBT001 - it is the question
        """Say on stderr what is lost and, if it is to be told in full, what was done and is odd."""
        if in_full:
            say_warnings(self.warnings)
            self._tell_work()
        if self.exit_code:
            self._tell_losses()

    def _tell_work(self) -> None:
        result, metadata = self.result, self.chain.child.metadata
        cloned = f", {format_size(result.cloned_bytes)} shared" if result.cloned_bytes else ""
        say(
            f"vhdx2raw: {self.chain.child.source.name}: {format_size(result.virtual_disk_size)}"
            f" {metadata.disk_type} disk, {format_size(result.data_bytes)} of it stored;"
            f" {format_size(result.written_bytes)} written{cloned} to {self.destination}"
            f" in {self.seconds:.1f} s"
        )

    def _tell_losses(self) -> None:
        for name, finding in self.chain.damage:
            complain(f"{name}: damaged: {finding}")
        result = self.result
        complain(
            f"{self.chain.child.source.name}: salvaged; lost {format_size(result.lost_bytes)}"
            f" ({result.lost_bytes} bytes; ranges: {len(result.lost_ranges)}), which are zeros"
            f" in {self.destination}"
        )

    def answer_digest(self) -> None:
        """Write the digest, if there is one; stdout may be taken by the disk itself."""
        if self.result.digest and self.destination == STANDARD_STREAM:
            say(f"{self.result.digest}  {self.destination}")
        elif self.result.digest:
            answer_digest(self.result.digest, self.destination)

    def facts(self) -> dict[str, object]:
        """Return what `--json` prints, with the keys of qemu-img where they mean the same."""
        chain, result = self.chain, self.result
        facts: dict[str, object] = {
            "filename": chain.child.source.name,
            "destination": self.destination,
            "format": "raw",
            "virtual-size": result.virtual_disk_size,
            "data-size": result.data_bytes,
            "cloned-size": result.cloned_bytes,
            "written-size": result.written_bytes,
            "logical-sector-size": chain.child.metadata.logical_sector_size,
            "chain": [
                {"filename": image.source.name, "log": log_facts(image.log)}
                for image in chain.images
            ],
            "warnings": warning_facts(self.warnings),
            "verified": self.wishes.verify,
            "duration-seconds": round(self.seconds, 3),
        }
        if result.digest:
            facts["hash"] = {"algorithm": self.wishes.hash_algorithm, "digest": result.digest}
        if chain.salvaging:
            facts["damage"] = warning_facts(chain.damage)
            facts["lost-size"] = result.lost_bytes
            facts["lost-ranges"] = [
                {"start": start, "length": length} for start, length in result.lost_ranges
            ]
        if Path(self.destination).is_file():
            facts["actual-size"] = host.allocated_size(Path(self.destination).stat())
        return facts
