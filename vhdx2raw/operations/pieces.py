"""The virtual disk cut into units of work: stretches in, pieces out. Integers only.

Pieces begin at multiples of a fixed size, whatever the extents of the disk are. So writes are
aligned and few even where a differencing disk changes its source every sector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.reading import Stretch
from vhdx2raw.source.base import Source
from vhdx2raw.units import KIB, MIB

PREFETCH_SIZE = 16 * MIB
"""Bytes that are asked for before they are read."""
MAX_PIECES_AHEAD = 256
"""What is planned before it is read; pieces of zeros hold no bytes to be counted."""
ORDERED_SIZE, ORDERED_COUNT = 2048 * MIB, 16384
"""Bytes of data, and pieces, that are put into the order of the file."""
MIN_IN_ORDER = 4 * MIB
"""Bytes of a file read one after the other, after which the host has noticed that."""
MAX_SKIP = 64 * KIB
"""Bytes that may be left out between them; the host reads so much more than was asked for."""


class Piece(NamedTuple):
    """A range of the virtual disk to be made in one go.

    Attributes:
        virtual_offset: Where it begins, in bytes.
        length: In bytes; no more than the size of pieces, except where long zeros stay whole.
        data: What is to be read of it, in order. What lies between is zeros.
    """

    virtual_offset: int
    length: int
    data: tuple[Stretch, ...]

    @property
    def data_length(self) -> int:
        return sum(stretch.data_length for stretch in self.data)

    def iter_blocks(self) -> Iterator[tuple[bool, int, int]]:
        """Yield (has a block, start, end) of the runs that tile the piece, from its start on."""
        start = end = 0
        for stretch in self.data:
            base = stretch.virtual_offset - self.virtual_offset
            for span_start, span_end in stretch.block_spans():
                begin = base + span_start
                if begin > end:
                    if start < end:
                        yield True, start, end
                    yield False, end, begin
                    start = begin
                end = base + span_end
        if start < end:
            yield True, start, end
        if end < self.length:
            yield False, end, self.length


def iter_pieces(
    stretches: Iterable[Stretch], piece_size: int, *, cut_zeros: bool = False
) -> Iterator[Piece]:
    """Cut a disk at multiples of `piece_size` bytes; what `stretches` leave out is left out.

    Zeros stay one piece, however many stretches they are, unless `cut_zeros` is set.
    """
    start = end = 0
    data: list[Stretch] = []
    for stretch in stretches:
        if stretch.virtual_offset > end:
            if start < end:
                yield Piece(start, end - start, tuple(data))
            start = end = stretch.virtual_offset
            data.clear()
        is_data = stretch.kind is ExtentKind.DATA
        first_cut = stretch.virtual_offset // piece_size * piece_size
        if is_data and not data and start < first_cut:
            yield Piece(start, first_cut - start, ())
            start = first_cut
        while end < stretch.virtual_end:
            begin = end
            end = min((begin // piece_size + 1) * piece_size, stretch.virtual_end)
            if is_data:
                data.append(stretch.cut(begin, end))
            elif not data and not cut_zeros:
                end = stretch.virtual_end
                continue
            if end % piece_size == 0:
                yield Piece(start, end - start, tuple(data))
                start = end
                data.clear()
    if start < end:
        yield Piece(start, end - start, tuple(data))


def iter_prefetched(pieces: Iterable[Piece], read_ahead: int = 0) -> Iterator[Piece]:
    """Yield pieces, and let the host begin to read the data of those that come next.

    What lies in the order in which it is read is left to the host, which does that by itself,
    unless the files want so many bytes of it to be asked for ahead.
    """
    size = max(PREFETCH_SIZE, read_ahead)
    ahead: deque[Piece] = deque()
    bytes_ahead = 0
    in_order = _InOrder()
    for piece in pieces:
        for stretch in piece.data:
            is_expected = [in_order.note(*place) for place in stretch.places()]
            if read_ahead or not all(is_expected):
                stretch.prefetch()
            bytes_ahead += stretch.length
        ahead.append(piece)
        while bytes_ahead > size or len(ahead) > MAX_PIECES_AHEAD:
            first = ahead.popleft()
            bytes_ahead -= sum(stretch.length for stretch in first.data)
            yield first
    yield from ahead


class _InOrder:
    """Which files are read in order, each by itself: a chain goes to and fro between them."""

    def __init__(self) -> None:
        # By file, where the last read ended, and how many bytes came in order until then.
        self._reads: dict[Source, tuple[int, int]] = {}

    def note(self, source: Source, file_offset: int, length: int) -> bool:
        """Note a read; return whether the host expects it."""
        end, in_order = self._reads.get(source, (0, 0))
        in_order = in_order + length if 0 <= file_offset - end <= MAX_SKIP else 0
        self._reads[source] = file_offset + length, in_order
        return in_order >= MIN_IN_ORDER


def iter_in_file_order(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces in the order in which their data lies in the files, many of them at a time.

    So what lies together is asked for together, wherever on the disk it belongs.
    """
    rest = iter(pieces)
    while window := _take(rest):
        yield from sorted(window, key=_place_of)


def _take(pieces: Iterator[Piece]) -> list[Piece]:
    """Return the next pieces with so much data that they are put in order by themselves."""
    window: list[Piece] = []
    size = 0
    while size < ORDERED_SIZE and len(window) < ORDERED_COUNT and (piece := next(pieces, None)):
        window.append(piece)
        size += piece.data_length
    return window


def _place_of(piece: Piece) -> tuple[str, int]:
    """Return in which file, and where, the data of a piece begins; zeros come first."""
    for stretch in piece.data:
        for source, file_offset, _ in stretch.places():
            return source.name, file_offset
    return "", 0


def cut_zeros(pieces: Iterable[Piece], size: int) -> Iterator[Piece]:
    """Cut those pieces that hold no data, and so may be long, into pieces of up to `size` bytes."""
    for piece in pieces:
        if piece.data:
            yield piece
            continue
        end = piece.virtual_offset + piece.length
        for start in range(piece.virtual_offset, end, size):
            yield Piece(start, min(size, end - start), ())
