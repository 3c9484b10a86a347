"""The copy loop: every piece of a virtual disk is read, looked at and handed to a sink.

Policy is here, ability in the sink. Several threads take pieces from one plan, each with one
buffer made once, so memory is bounded by the number of threads whatever the size of the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, cycle
from threading import Lock
from typing import Literal

from vhdx2raw import host
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.reading import Stretch
from vhdx2raw.disk.salvage import LostRanges
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.operations.pieces import (
    Piece,
    cut_zeros,
    iter_in_file_order,
    iter_pieces,
    iter_prefetched,
)
from vhdx2raw.operations.progress import ProgressCallback, throttled
from vhdx2raw.operations.threads import Ending, map_ahead, share_work
from vhdx2raw.output.base import CLONE_ALIGNMENT, Sink
from vhdx2raw.units import MIB, ceil_div
from vhdx2raw.zeros import ZEROS, fill_zeros, iter_runs

Holes = Literal["zeros", "source", "none"]
"""Which zeros become holes: those that are not stored and long stored ones, only those that are
not stored, or none."""
ZERO_SIZE = 64 * MIB
"""Bytes made zero at once where that is work: enough to be few requests, few enough to be stopped
in between."""


class Copy:
    """One run of the loop: the plan that the threads share, and what they did of it.

    Attributes:
        total_bytes: To be moved.
        done_bytes: Moved so far.
        data_bytes: Stored in the images; the rest is stored nowhere and reads as zeros.
        cloned_bytes: Of these, not copied, but shared between the images and the output.
        written_bytes: Handed to the sink; what is neither cloned nor written are holes.
        lost: What could not be read, if the disk is salvaged.
    """

    def __init__(
        self,
        disk: VirtualDisk,
        sink: Sink,
        *,
        holes: Holes = "zeros",
        sparse_size: int,
        clone: bool,
        extents: Callable[[], Iterator[Stretch]] | None = None,
        in_order: bool = False,
    ) -> None:
        """Plan to copy `disk` to `sink`; what was cloned on the way is not copied.

        Args:
            disk: The disk.
            sink: Where it goes.
            holes: Which zeros become holes.
            sparse_size: Bytes, a power of two; of ``zeros``, how many together become a hole.
            clone: Whether the output may share storage with the images.
            extents: What yields the ranges to copy, by default all of the disk.
            in_order: Whether to keep close to the order of the disk, whatever takes less requests.
        """
        self._sink = sink
        self._sparse_size = sparse_size
        self._piece_size = max(sink.piece_size, sparse_size)
        self._writes_zeros = holes == "none" or not sink.makes_holes
        self._keeps_stored = holes == "source"
        self._salvaging = disk.chain.salvaging
        self.lost = LostRanges()
        self._iter_all = extents or disk.stretches
        if self._keeps_stored:
            iter_all = self._iter_all
            self._iter_all = lambda: map(_as_stored, iter_all())
        self._is_part = extents is not None
        self._ending = Ending(disk.chain.cancel)
        stretches = self.lost.note_lost(self._ending.until(self._iter_all()))
        read_ahead = disk.chain.read_ahead
        if clone and not (self._writes_zeros or read_ahead):
            stretches = self._iter_after_cloning(stretches)
        if not self._keeps_stored:
            stretches = self._iter_without_holes(stretches)
        self._plan = iter_pieces(stretches, self._piece_size, cut_zeros=self._writes_zeros)
        if sink.zeroing_is_work:
            self._plan = cut_zeros(self._plan, ZERO_SIZE)
        self._plan = self._noted(self._plan)
        if read_ahead and not (in_order or sink.sequential):
            self._plan = iter_in_file_order(self._plan)
        self._plan = iter_prefetched(self._plan, read_ahead)
        self._counts_zeros = self._writes_zeros or sink.zeroing_is_work
        self._counting = Lock()
        self._under_way: set[int] = set()
        self._planned = 0
        self.total_bytes = disk.size
        self.done_bytes = 0
        self.data_bytes = 0
        self.cloned_bytes = 0
        self.written_bytes = 0

    def low_water(self) -> int:
        """Return an offset in the disk up to which everything was handed to the sink."""
        with self._counting:
            return min(self._under_way, default=self._planned)

    def _noted(self, plan: Iterator[Piece]) -> Iterator[Piece]:
        """Note what is taken from the plan, until it is handed over."""
        for piece in plan:
            with self._counting:
                self._under_way.add(piece.virtual_offset)
                self._planned = piece.virtual_offset + piece.length
            yield piece

    def run(self, workers: int, progress: ProgressCallback) -> None:
        """Copy everything with some threads; in order in this thread if the sink needs that."""
        if self._is_part or not self._counts_zeros:
            self._count(progress)

        def report() -> None:
            progress(self.done_bytes, self.total_bytes)

        if not self._sink.sequential:
            share_work(self._plan, self._start_worker, workers, report, self._ending)
            return
        report_now_and_then = throttled(progress)
        # One thread reads ahead while this one writes.
        buffers = cycle([host.page_aligned(self._piece_size) for _ in range(3)])
        numbered = zip(self._plan, buffers)  # noqa: B905 - the buffers never end
        with closing(map_ahead(self._read_numbered, numbered, 1, self._ending, report)) as pieces:
            for piece, data in pieces:
                self._hand_over(piece, data)
                report_now_and_then(self.done_bytes, self.total_bytes)

    def _read_numbered(self, numbered: tuple[Piece, memoryview]) -> tuple[Piece, memoryview]:
        piece, buffer = numbered
        return piece, self._read(piece, buffer)

    def _start_worker(self) -> Callable[[Piece], None]:
        """Return what copies one piece after the other, with a buffer of its own."""
        buffer = host.page_aligned(self._piece_size)
        return lambda piece: self._hand_over(piece, self._read(piece, buffer))

    def _count(self, progress: ProgressCallback) -> None:
        """Find out how much there is to do, which can take a while too."""
        report = throttled(progress, later=True)
        total = 0
        for stretch in self._iter_all():
            total += stretch.length if self._counts_zeros else stretch.data_length
            report(0, self.total_bytes)
        self.total_bytes = total

    def _iter_after_cloning(self, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
        """Clone what can be cloned, and yield what is left; the first refusal ends the attempt."""
        for stretch in stretches:
            if not isinstance(stretch, Extent):
                yield stretch
                continue
            done = stretch.virtual_offset
            for virtual_offset, file_offset, length in self._iter_clonable(stretch):
                descriptor = stretch.source.descriptor
                if not self._sink.clone(virtual_offset, descriptor, file_offset, length):
                    yield stretch.cut(done, stretch.virtual_end)
                    yield from stretches
                    return
                if done < virtual_offset:
                    yield stretch.cut(done, virtual_offset)
                done = virtual_offset + length
                with self._counting:
                    self.done_bytes += length
                    self.data_bytes += length
                    self.cloned_bytes += length
            if done < stretch.virtual_end:
                yield stretch.cut(done, stretch.virtual_end)

    def _iter_clonable(self, extent: Extent) -> Iterator[tuple[int, int, int]]:
        """Yield (virtual offset, file offset, length) of what may share its storage.

        A hole of the file would become one of the output, which is wrong where it is stored zeros.
        """
        for virtual_offset, file_offset, length in extent.iter_in_file(CLONE_ALIGNMENT):
            if not self._keeps_stored:
                yield virtual_offset, file_offset, length
                continue
            descriptor = extent.source.descriptor
            for begin, stop in host.iter_data(descriptor, file_offset, file_offset + length):
                start = ceil_div(begin, CLONE_ALIGNMENT) * CLONE_ALIGNMENT
                end = stop // CLONE_ALIGNMENT * CLONE_ALIGNMENT
                if start < end:
                    yield virtual_offset + start - file_offset, start, end - start

    def _iter_without_holes(self, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
        """Yield what is a hole of an image file as zeros, which were moved by finding that out."""
        for stretch in stretches:
            if stretch.kind is not ExtentKind.DATA:
                yield stretch
                continue
            parts = stretch.iter_without_holes()
            first = next(parts, None)
            if first is stretch:
                yield stretch
                continue
            done, data_bytes = stretch.virtual_offset, 0
            for data in chain([first] if first else [], parts):
                if done < data.virtual_offset:
                    yield Extent(ExtentKind.ZERO, done, data.virtual_offset - done)
                yield data
                done = data.virtual_end
                data_bytes += data.data_length
            if done < stretch.virtual_end:
                yield Extent(ExtentKind.ZERO, done, stretch.virtual_end - done)
            with self._counting:
                self.data_bytes += stretch.data_length - data_bytes
                if not self._counts_zeros:
                    self.done_bytes += stretch.data_length - data_bytes

    def _read(self, piece: Piece, buffer: memoryview) -> memoryview:
        """Return the bytes of a piece in `buffer`; none for a piece that is not stored."""
        if not piece.data:
            return buffer[:0]
        buffer = buffer[: piece.length]
        if sum(stretch.length for stretch in piece.data) < piece.length:
            fill_zeros(buffer)
        for stretch in piece.data:
            start = stretch.virtual_offset - piece.virtual_offset
            part = buffer[start : start + stretch.length]
            if self._salvaging:
                self.lost.read_into(stretch, part)
            else:
                stretch.read_into(part)
        return buffer

    def _hand_over(self, piece: Piece, data: memoryview) -> None:
        """Bring one piece to the sink: what is not zeros, or all of it."""
        start, written = piece.virtual_offset, 0
        if self._writes_zeros:
            self._sink.write(start, data or ZEROS[: piece.length])
            written = piece.length
        elif not piece.data:
            self._sink.zero(start, piece.length)
        else:
            for is_written, begin, end in self._iter_runs(piece, data):
                if is_written:
                    self._sink.write(start + begin, data[begin:end])
                    written += end - begin
                else:
                    self._sink.zero(start + begin, end - begin)
        with self._counting:
            self._under_way.discard(start)
            self.done_bytes += piece.length if self._counts_zeros else piece.data_length
            self.data_bytes += piece.data_length
            self.written_bytes += written

    def _iter_runs(self, piece: Piece, data: memoryview) -> Iterator[tuple[bool, int, int]]:
        """Yield (is to be written, start, end) of the runs that tile a piece."""
        if self._keeps_stored:
            yield from piece.iter_blocks()
            return
        for is_zero, begin, end in iter_runs(data, self._sparse_size):
            yield not is_zero, begin, end


def _as_stored(stretch: Stretch) -> Stretch:
    """Return what an image has a block for as data, also zeros that only its log promises."""
    if isinstance(stretch, Extent) and stretch.has_block:
        return stretch._replace(kind=ExtentKind.DATA)
    return stretch
