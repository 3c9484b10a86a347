"""The loop: every piece of the virtual disk is read, looked at and handed to the sink.

Policy lives here, ability in the sink. Several threads take pieces from one plan, each with one
buffer made once, so memory is bounded by the number of threads whatever the size of the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread

from vhdx2raw.chain import Chain
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.pieces import Piece, iter_pieces
from vhdx2raw.sinks import CLONE_ALIGNMENT, Sink
from vhdx2raw.structures import KIB, MIB
from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS, fill_zeros, iter_runs

PIECE_SIZE = MIB
"""Bytes read and written at once: large enough for the kernel to hold them in large folios, small
enough to bound the memory of many threads."""
DEFAULT_SPARSE_SIZE = 4 * KIB
MIN_SPARSE_SIZE = 512
MAX_SPARSE_SIZE = MAX_BUFFER_SIZE
MAX_WORKERS = 4
"""More threads than this wait for each other instead of for the disks."""
PROGRESS_SECONDS = 0.1

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes moved so far and the bytes to be moved."""


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """What a conversion did, in bytes of the virtual disk.

    Attributes:
        virtual_disk_size: All of it.
        data_bytes: Stored in the images; the rest is stored nowhere and reads as zeros.
        cloned_bytes: Of these, not copied, but shared between the images and the output.
        written_bytes: Handed to the sink; what is neither cloned nor written are holes.
    """

    virtual_disk_size: int
    data_bytes: int
    cloned_bytes: int
    written_bytes: int


def convert(
    chain: Chain,
    sink: Sink,
    *,
    sparse_size: int = DEFAULT_SPARSE_SIZE,
    workers: int | None = None,
    clone: bool = True,
    sync: bool = True,
    progress: ProgressCallback = lambda _done, _total: None,
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
        progress: Called from this thread about ten times a second, once more when all bytes are
            moved, and never after the output has appeared under its name. What it raises ends
            the conversion.

    Raises:
        ImageError: The image turned out to be truncated.
        OutputError: The output cannot be made.
        OSError: The host could not read or write.
        ValueError: A number is out of its range.
    """
    try:
        _check_numbers(sparse_size, workers)
        copy = _Copy(chain, sink, sparse_size, clone=clone)
        if sink.sequential:
            copy.run_here(progress)
        else:
            copy.run_in_threads(workers or default_workers(), progress)
        if sync:
            sink.flush()
        progress(copy.done_bytes, copy.total_bytes)
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    return ConversionResult(
        chain.virtual_disk_size, copy.data_bytes, copy.cloned_bytes, copy.written_bytes
    )


def _check_numbers(sparse_size: int, workers: int | None) -> None:
    in_range = MIN_SPARSE_SIZE <= sparse_size <= MAX_SPARSE_SIZE
    if sparse_size and not (in_range and sparse_size.bit_count() == 1):
        raise ValueError(f"sparse_size {sparse_size} is neither 0 nor a power of two in its range")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")


def default_workers() -> int:
    """Return how many threads to copy with: the processors this process may use, up to a few."""
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)))


def _stored_bytes(chain: Chain) -> int:
    extents = iter_extents(chain)
    return sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)


class _Copy:
    """One run of the loop: the plan that the threads share, and what they did of it."""

    def __init__(self, chain: Chain, sink: Sink, sparse_size: int, *, clone: bool) -> None:
        self._sink = sink
        self._sparse_size = sparse_size
        self._piece_size = max(PIECE_SIZE, sparse_size)
        self._writes_zeros = sparse_size == 0 or not sink.makes_holes
        extents = iter_extents(chain)
        if clone and not self._writes_zeros:
            extents = self._iter_after_cloning(extents)
        self._plan = iter_pieces(extents, self._piece_size, cut_zeros=self._writes_zeros)
        # Guards the plan, the counts and the fate of the run.
        self._changed = Condition()
        self._working = 0
        self._stopping = False
        self._failure: BaseException | None = None
        self.total_bytes = chain.virtual_disk_size if self._writes_zeros else _stored_bytes(chain)
        self.done_bytes = 0
        self.data_bytes = 0
        self.cloned_bytes = 0
        self.written_bytes = 0

    def run_here(self, progress: ProgressCallback) -> None:
        """Copy everything in this thread, in order."""
        buffer = memoryview(bytearray(self._piece_size))
        next_progress = 0.0
        for piece in self._plan:
            self._make(piece, buffer)
            if time.monotonic() >= next_progress:
                progress(self.done_bytes, self.total_bytes)
                next_progress = time.monotonic() + PROGRESS_SECONDS

    def run_in_threads(self, count: int, progress: ProgressCallback) -> None:
        """Copy everything with `count` threads, and raise the first failure of any of them."""
        threads = [Thread(target=self._work) for _ in range(count)]
        self._working = count
        try:
            for thread in threads:
                thread.start()
            while self._is_running():
                progress(self.done_bytes, self.total_bytes)
        finally:
            self._stopping = True
            for thread in threads:
                if thread.ident is not None:  # one that could not be started cannot be joined
                    thread.join()
        if self._failure:
            raise self._failure

    def _is_running(self) -> bool:
        """Wait a little, and tell whether there still is something to wait for."""
        with self._changed:
            if self._working and not self._failure:
                self._changed.wait(PROGRESS_SECONDS)
            return self._working > 0 and not self._failure

    def _work(self) -> None:
        """Take pieces until none is left or the run is over: what each thread does."""
        buffer = memoryview(bytearray(self._piece_size))
        failure: BaseException | None = None
        try:
            while piece := self._next_piece():
                self._make(piece, buffer)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failure = error
        with self._changed:
            self._working -= 1
            self._failure = self._failure or failure
            self._stopping = self._stopping or failure is not None
            self._changed.notify()

    def _next_piece(self) -> Piece | None:
        with self._changed:
            return None if self._stopping else next(self._plan, None)

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
                # Called with the plan, and so with its lock, held.
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
        with self._changed:
            self.done_bytes += piece.length if self._writes_zeros else piece.data_length
            self.data_bytes += piece.data_length
            self.written_bytes += written

    def _copy(self, piece: Piece, buffer: memoryview) -> int:
        """Read what is stored of a piece, write what of it is not zeros; return how much."""
        if piece.data_length < piece.length:
            fill_zeros(buffer)
        for extent in piece.data:
            start = extent.virtual_offset - piece.virtual_offset
            extent.read_into(buffer[start : start + extent.length])
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
