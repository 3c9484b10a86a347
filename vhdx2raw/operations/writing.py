"""What is done between opening and the end of a conversion: copied, verified, hashed, committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vhdx2raw import host
from vhdx2raw.disk.chain import NamedFinding
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError, UntoldResultError, add_note
from vhdx2raw.operations.compare import verify
from vhdx2raw.operations.copying import Copy, Holes
from vhdx2raw.operations.digest import digest_files, total_size
from vhdx2raw.operations.progress import ProgressCallback, throttled
from vhdx2raw.operations.resume import Resumption
from vhdx2raw.output.base import Sink
from vhdx2raw.output.hashes import DEFAULT_ALGORITHM
from vhdx2raw.output.hashing import HashingSink
from vhdx2raw.output.shape import Shape
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB
from vhdx2raw.zeros import MAX_BUFFER_SIZE

if TYPE_CHECKING:
    from vhdx2raw.operations.convert import ConvertOptions
    from vhdx2raw.output.maps import MapSink

MAX_WORKERS = 4
"""More threads than this wait for each other instead of for the disks."""
CHANGED_REMEDY = (
    "a VM may be using it: shut that down or convert a checkpoint;"
    " {allow_changed} takes the result as it is"
)


class Writing:
    """How a disk goes to an output that is open.

    Attributes:
        disk: The disk.
        sink: The output.
        shape: What else it has.
        resumption: What an earlier run has written, if it is gone on with.
        copy: The copy of the disk alone.
        digests: Of the output, by their algorithms, as they were asked for.
        source_digests: Of each file of the disk.
    """

    def __init__(
        self,
        disk: VirtualDisk,
        sink: Sink,
        options: ConvertOptions,
        shape: Shape,
        *,
        maps: Sequence[MapSink] = (),
        resumption: Resumption | None = None,
    ) -> None:
        """Plan the work.

        Raises:
            ValueError: The sink cannot do what is asked.
        """
        _check_sink(sink, options)
        disk.chain.watch()
        self.disk, self.sink, self.shape, self.resumption = disk, sink, shape, resumption
        self._options = options
        self._start = resumption.start if resumption else 0
        self._holes: Holes = options.holes if options.sparse_size else "none"
        self._top = sink
        if maps:
            from vhdx2raw.output.maps import MappedSink  # noqa: PLC0415 - few runs have a need

            self._top = MappedSink(sink, maps)
        self._hashing = HashingSink.stack(self._top, options.hash_algorithms)
        if self._hashing:
            self._top = self._hashing[0]
            self._hash_again()
        self.copy = Copy(
            disk,
            self._top,
            holes=self._holes,
            sparse_size=options.sparse_size,
            clone=options.clone and not options.update,
            extents=(lambda: disk.stretches(self._start)) if self._start else None,
            in_order=resumption is not None,
        )
        self.source_digests: tuple[Mapping[str, str], ...] = ()
        # What comes after the copy counts as well: to read that back, and the files once more.
        self._passes = 2 if options.verify else 1
        self._files_size = total_size(disk.chain) if options.hash_source else 0
        self._progress: ProgressCallback = self._report
        if resumption:
            self._progress = resumption.watched(self.copy, self._report)

    @property
    def digests(self) -> dict[str, str]:
        return {each.algorithm: each.hexdigest for each in reversed(self._hashing)}

    def _report(self, done: int, moved: int) -> None:
        self._options.progress(done, moved * self._passes + self._files_size)

    def run(self) -> tuple[NamedFinding, ...]:
        """Write all of the output, and let it appear.

        Returns:
            How files have changed meanwhile, if that was allowed.

        Raises:
            ImageError: A file turned out to be truncated, or was changed meanwhile.
            OutputError: The output cannot be written.
            UntoldResultError: The output is complete, and a map of it is not.
            OSError: The host could not read or write.
        """
        options, copy = self._options, self.copy
        is_flushed = options.sync or options.verify or options.state is not None or options.update
        if is_flushed:
            self.sink.expect_flush()
        copy.run(options.workers or default_workers(), self._progress)
        report = throttled(self._progress)
        self.shape.write_rest(
            self._top,
            writes_zeros=self._holes == "none",
            report=lambda: report(copy.done_bytes, copy.total_bytes),
        )
        if is_flushed:
            self._top.flush()
        if options.verify:
            self._verify()
        if options.hash_source:
            self._hash_source()
        changes: tuple[NamedFinding, ...] = ()
        if options.allow_changed:
            changes = self.disk.chain.find_changes()
        else:
            self.disk.chain.require_unchanged(remedy=CHANGED_REMEDY)
        self._progress(copy.done_bytes * self._passes + self._files_size, copy.total_bytes)
        try:
            self._top.commit()
        except UntoldResultError as error:
            if copy.lost.total_bytes:
                lost = f"{copy.lost.total_bytes} bytes, which are zeros in {self.sink.name}"
                add_note(error, f"{self.disk.name}: salvaged; lost {lost}")
            raise
        return changes

    def _hash_again(self) -> None:
        """Hash what an earlier run has written."""
        if not self._start:
            return
        hashing = self._hashing[0]
        assert hashing.readable_path is not None, "it is a file"
        report = throttled(self._options.progress)
        with RawFile(hashing.readable_path) as raw:
            for start in range(0, self._start, MIB):
                hashing.take(raw.pread(start, min(MIB, self._start - start)))
                report(0, self._start)

    def _verify(self) -> None:
        """Read back what was written, which counts as much as it was to copy it."""
        path, copy, moved = self.sink.readable_path, self.copy, self.copy.total_bytes
        assert path is not None, "checked first"

        def report(done: int, total: int) -> None:
            self._progress(moved + moved * done // max(1, total), moved)

        lost, name = copy.lost.merged(), self.sink.name
        try:
            verify(self.disk, path, name=name, progress=report, lost=lost, shape=self.shape)
        except OutputError:
            if self.resumption:
                self.resumption.discard()
            raise

    def _hash_source(self) -> None:
        """Take the digests of the files, while it is certain that they do not change."""
        moved = self.copy.total_bytes
        self.source_digests = digest_files(
            self.disk.chain,
            self._options.hash_algorithms or (DEFAULT_ALGORITHM,),
            progress=lambda done, _: self._progress(moved * self._passes + done, moved),
        )


def _check_sink(sink: Sink, options: ConvertOptions) -> None:
    size = sink.piece_size
    if not 4 * KIB <= size <= MAX_BUFFER_SIZE or size.bit_count() != 1:
        raise ValueError(f"piece_size {size} of the sink is no power of two in its range")
    if options.verify and sink.readable_path is None:
        raise ValueError("what goes to this sink cannot be read back")


def default_workers() -> int:
    """Return how many threads to copy with: the processors this process may use, up to a few."""
    return min(MAX_WORKERS, host.processor_count())
