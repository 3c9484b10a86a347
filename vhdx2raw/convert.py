"""The loop: every piece of the virtual disk is read, looked at and handed to the sink.

Policy lives here, ability in the sink. Several threads take pieces from one plan, each with one
buffer made once, so memory is bounded by the number of threads whatever the size of the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

from vhdx2raw import host
from vhdx2raw.chain import Chain
from vhdx2raw.compare import verify as verify_output
from vhdx2raw.disk import VirtualDisk
from vhdx2raw.errors import Finding
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.pieces import Piece, cut_zeros, iter_pieces
from vhdx2raw.progress import ProgressCallback, now_and_then, say_nothing
from vhdx2raw.salvage import LostRanges, Range
from vhdx2raw.sinks import CLONE_ALIGNMENT, HashingSink, Sink
from vhdx2raw.structures import KIB, MIB
from vhdx2raw.workers import share_work
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS, fill_zeros, iter_runs

ZERO_SIZE = 64 * MIB
"""Bytes made zero at once where that is work: enough to be few requests, few enough to be stopped
in between."""
DEFAULT_SPARSE_SIZE = 4 * KIB
MIN_SPARSE_SIZE = 512
MAX_SPARSE_SIZE = MAX_BUFFER_SIZE
CHANGED_HINT = (
    "a VM may be using it: shut that down or convert a checkpoint;"
    " --allow-changed takes the result as it is"
)
MAX_WORKERS = 4
"""More threads than this wait for each other instead of for the disks."""


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """What a conversion did, in bytes of the virtual disk.

    Attributes:
        virtual_disk_size: All of it.
        data_bytes: Stored in the images; the rest is stored nowhere and reads as zeros.
        cloned_bytes: Of these, not copied, but shared between the images and the output.
        written_bytes: Handed to the sink; what is neither cloned nor written are holes.
        lost_ranges: (offset, length) of what could not be read and became zeros, in order; only
            if the chain was opened to be salvaged.
        changes: How files have changed meanwhile, which was allowed, with their names.
        digest: Of the whole disk, in hexadecimal, if one was asked for.
    """

    virtual_disk_size: int
    data_bytes: int
    cloned_bytes: int
    written_bytes: int
    lost_ranges: tuple[Range, ...] = ()
    changes: tuple[tuple[str, Finding], ...] = ()
    digest: str | None = None

    @property
    def lost_bytes(self) -> int:
        """Bytes that could not be read."""
        return sum(length for _, length in self.lost_ranges)


def convert(
    chain: Chain,
    sink: Sink,
    *,
    sparse_size: int = DEFAULT_SPARSE_SIZE,
    workers: int | None = None,
    clone: bool = True,
    sync: bool = True,
    hash_algorithm: str | None = None,
    verify: bool = False,
    allow_changed: bool = False,
    progress: ProgressCallback = say_nothing,
) -> ConversionResult:
    """Write the virtual disk of `chain` to `sink`, completely or not at all.

    Args:
        chain: The disk.
        sink: Where it goes; it is committed at the end, and aborted on any failure.
        sparse_size: Stored zeros that fill this many bytes, aligned, become holes: a power of
            two from `MIN_SPARSE_SIZE` to `MAX_SPARSE_SIZE`. 0 writes everything, holes included.
        workers: Threads that copy; by default as many as there are processors for this process.
        clone: Whether the output may share storage with the images, where the host can do that.
            Then zeros that are stored in the images stay stored. Not with `sparse_size` 0.
        sync: Whether to wait until the output is on stable storage before it appears.
        hash_algorithm: What digest to take of the disk on its way, such as ``sha256``. Then
            one thread copies, in order, and nothing is cloned.
        verify: Whether to read the output back from storage and compare it, before it appears
            under its name. Not with a sink that cannot be read back.
        allow_changed: Whether a file may change while it is read; then the result may be a
            mixture of two states.
        progress: Called from this thread about ten times a second, once more when all bytes are
            moved, and never after the output has appeared under its name. What it raises ends
            the conversion.

    Raises:
        ImageError: A file turned out to be truncated, or was changed meanwhile.
        OutputError: The output cannot be made.
        OSError: The host could not read or write.
        ValueError: A number is out of its range, or the sink cannot do what is asked.
    """
    hashing: HashingSink | None = None
    try:
        _check_arguments(sink, sparse_size, workers, verify=verify)
        if hash_algorithm:
            sink = hashing = HashingSink(sink, hash_algorithm)
        copy = _Copy(chain, sink, sparse_size, clone=clone)
        passes = 2 if verify else 1
        copy.run(workers or default_workers(), lambda done, all_: progress(done, all_ * passes))
        if sync or verify:
            sink.flush()
        if verify:
            _verify(chain, sink, copy.total_bytes, progress)
        changes = _find_changes(chain, allowed=allow_changed)
        progress(copy.done_bytes * passes, copy.total_bytes * passes)
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    return copy.result(changes, hashing.hexdigest if hashing else None)


def _find_changes(chain: Chain, *, allowed: bool) -> tuple[tuple[str, Finding], ...]:
    if allowed:
        return chain.find_changes()
    chain.require_unchanged(hint=CHANGED_HINT)
    return ()


def _verify(chain: Chain, sink: Sink, moved: int, progress: ProgressCallback) -> None:
    """Read back what was written, which counts as much as it was to copy it."""
    assert sink.readable_path is not None, "that was asked first"

    def tell(done: int, total: int) -> None:
        progress(moved + moved * done // max(1, total), 2 * moved)

    disk = VirtualDisk(chain, owns_chain=False)
    verify_output(disk, sink.readable_path, name=sink.name, progress=tell)


def _check_arguments(sink: Sink, sparse_size: int, workers: int | None, *, verify: bool) -> None:
    in_range = MIN_SPARSE_SIZE <= sparse_size <= MAX_SPARSE_SIZE
    if sparse_size and not (in_range and sparse_size.bit_count() == 1):
        raise ValueError(f"sparse_size {sparse_size} is neither 0 nor a power of two in its range")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    size = sink.piece_size
    if not 4 * KIB <= size <= MAX_BUFFER_SIZE or size.bit_count() != 1:
        raise ValueError(f"piece_size {size} of the sink is no power of two in its range")
    if verify and sink.readable_path is None:
        raise ValueError("what goes to this sink cannot be read back")


def default_workers() -> int:
    """Return how many threads to copy with: the processors this process may use, up to a few."""
    return min(MAX_WORKERS, host.processor_count())


def _stored_bytes(chain: Chain) -> int:
    extents = iter_extents(chain)
    return sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)


class _Copy:
    """One run of the loop: the plan that the threads share, and what they did of it."""

    def __init__(self, chain: Chain, sink: Sink, sparse_size: int, *, clone: bool) -> None:
        self._sink = sink
        self._virtual_disk_size = chain.virtual_disk_size
        self._sparse_size = sparse_size
        self._piece_size = max(sink.piece_size, sparse_size)
        self._writes_zeros = sparse_size == 0 or not sink.makes_holes
        self.lost = LostRanges()
        self._salvaging = chain.salvaging
        extents = self.lost.note_lost(iter_extents(chain))
        if clone and not self._writes_zeros:
            extents = self._iter_after_cloning(extents)
        self._plan = iter_pieces(extents, self._piece_size, cut_zeros=self._writes_zeros)
        if sink.zeroing_is_work:
            self._plan = cut_zeros(self._plan, ZERO_SIZE)
        self._counts_zeros = self._writes_zeros or sink.zeroing_is_work
        self._counting = Lock()
        self.total_bytes = chain.virtual_disk_size if self._counts_zeros else _stored_bytes(chain)
        self.done_bytes = 0
        self.data_bytes = 0
        self.cloned_bytes = 0
        self.written_bytes = 0

    def run(self, workers: int, progress: ProgressCallback) -> None:
        """Copy everything, in order in this thread if the sink wants that, else in several."""
        if not self._sink.sequential:

            def tell_progress() -> None:
                progress(self.done_bytes, self.total_bytes)

            share_work(self._plan, self._start_worker, workers, tell_progress)
            return
        make = self._start_worker()
        tell = now_and_then(progress)
        for piece in self._plan:
            make(piece)
            tell(self.done_bytes, self.total_bytes)

    def result(
        self, changes: tuple[tuple[str, Finding], ...], digest: str | None
    ) -> ConversionResult:
        """Return what was done."""
        return ConversionResult(
            self._virtual_disk_size,
            self.data_bytes,
            self.cloned_bytes,
            self.written_bytes,
            self.lost.merged(),
            changes,
            digest,
        )

    def _start_worker(self) -> Callable[[Piece], None]:
        """Return what makes one piece after the other, with a buffer of its own."""
        buffer = host.page_aligned(self._piece_size)
        return lambda piece: self._make(piece, buffer)

    def _iter_after_cloning(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        """Clone what can be cloned, and yield what is left; the first refusal ends the attempt."""
        for extent in extents:
            done = extent.virtual_offset
            for virtual_offset, file_offset, length in extent.iter_in_file(CLONE_ALIGNMENT):
                descriptor = extent.source.descriptor
                if not self._sink.clone(virtual_offset, descriptor, file_offset, length):
                    yield extent.cut(done, extent.virtual_end)
                    yield from extents
                    return
                if done < virtual_offset:
                    yield extent.cut(done, virtual_offset)
                done = virtual_offset + length
                with self._counting:
                    self.done_bytes += length
                    self.data_bytes += length
                    self.cloned_bytes += length
            if done < extent.virtual_end:
                yield extent.cut(done, extent.virtual_end)

    def _make(self, piece: Piece, buffer: memoryview) -> None:
        """Bring one piece to the sink."""
        if piece.data:
            written = self._copy(piece, buffer[: piece.length])
        elif self._writes_zeros:
            self._sink.write(piece.virtual_offset, ZEROS[: piece.length])
            written = piece.length
        else:
            self._sink.zero(piece.virtual_offset, piece.length)
            written = 0
        with self._counting:
            self.done_bytes += piece.length if self._counts_zeros else piece.data_length
            self.data_bytes += piece.data_length
            self.written_bytes += written

    def _copy(self, piece: Piece, buffer: memoryview) -> int:
        """Read what is stored of a piece, write what of it is not zeros; return how much."""
        if piece.data_length < piece.length:
            fill_zeros(buffer)
        for extent in piece.data:
            start = extent.virtual_offset - piece.virtual_offset
            part = buffer[start : start + extent.length]
            if self._salvaging:
                self.lost.read_into(extent, part)
            else:
                extent.read_into(part)
        if self._writes_zeros:
            self._sink.write(piece.virtual_offset, buffer)
            return piece.length
        written = 0
        for is_zero, start, end in iter_runs(buffer, self._sparse_size):
            if is_zero:
                self._sink.zero(piece.virtual_offset + start, end - start)
            else:
                self._sink.write(piece.virtual_offset + start, buffer[start:end])
                written += end - start
        return written
