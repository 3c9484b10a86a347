"""The map of a disk: which file says what each range holds, and the disk as a grid of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntFlag, auto
from itertools import groupby
from typing import NamedTuple

from vhdx2raw.bat import BlockRun
from vhdx2raw.chain import Chain
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.geometry import ceil_div
from vhdx2raw.image import VhdxImage
from vhdx2raw.structures import PayloadBlockState

MIN_CELL_SIZE = 512

_ASKS_PARENT = (PayloadBlockState.NOT_PRESENT, PayloadBlockState.PARTIALLY_PRESENT)
"""The states of blocks that may show zeros without saying so themselves (R86, R89)."""


class MapEntry(NamedTuple):
    """A range of the virtual disk, and the file of the chain that says what it holds.

    Attributes:
        kind: Stored data, zeros, or lost.
        start: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        depth: Which file: 0 the child, 1 its parent, and so on.
        filename: That file as the user named it, or as it was found.
        present: Whether that file says what is here. If not, no file does: it was the last one
            to be asked, and the range reads as zeros.
        file_offset: Where the bytes stand in that file just as they read, in bytes. None for data
            that is in the log of the file, and for anything else.
    """

    kind: ExtentKind
    start: int
    length: int
    depth: int
    filename: str
    present: bool
    file_offset: int | None = None

    @property
    def end(self) -> int:
        """Offset in the virtual disk just behind the range."""
        return self.start + self.length

    def continues(self, before: MapEntry) -> bool:
        """Tell whether this entry and the one before it could be one."""
        expected = None if before.file_offset is None else before.file_offset + before.length
        return self.file_offset == expected and (
            (self.kind, self.depth, self.present) == (before.kind, before.depth, before.present)
        )


def iter_map(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[MapEntry]:
    """Yield the entries that tile a range of the virtual disk, by default all of it.

    They come in order and without gaps, and no two neighbours could be one. The arguments are
    those of `iter_extents`.
    """
    pending: MapEntry | None = None
    for entry in _iter_parts(chain, virtual_offset, length):
        if pending is not None and entry.continues(pending):
            pending = pending._replace(length=pending.length + entry.length)
            continue
        if pending is not None:
            yield pending
        pending = entry
    if pending is not None:
        yield pending


def _iter_parts(chain: Chain, virtual_offset: int, length: int | None) -> Iterator[MapEntry]:
    depths = {id(image): depth for depth, image in enumerate(chain.images)}
    layers = [_Layer(image, virtual_offset) for image in chain.images]
    for extent in iter_extents(chain, virtual_offset, length):
        match extent.kind:
            case ExtentKind.DATA:
                yield from _iter_data(extent, depths[id(extent.image)])
            case ExtentKind.ZERO:
                yield from _iter_zeros(extent, layers)
            case ExtentKind.LOST:
                place = (extent.virtual_offset, extent.length)
                yield MapEntry(ExtentKind.LOST, *place, 0, layers[0].name, present=False)


def _iter_data(extent: Extent, depth: int) -> Iterator[MapEntry]:
    """Yield data cut such that each part either stands in the file as it reads, or does not."""
    whole = MapEntry(
        ExtentKind.DATA,
        extent.virtual_offset,
        extent.length,
        depth,
        extent.source.name,
        present=True,
    )
    done = whole.start
    for start, file_offset, length in extent.iter_in_file(alignment=1):
        if done < start:
            yield whole._replace(start=done, length=start - done)
        yield whole._replace(start=start, length=length, file_offset=file_offset)
        done = start + length
    if done < whole.end:
        yield whole._replace(start=done, length=whole.end - done)


class _Layer:
    """The blocks of one image, to be asked about in rising order."""

    def __init__(self, image: VhdxImage, virtual_offset: int) -> None:
        self.name = image.source.name
        self.size = image.virtual_disk_size
        self._block_size = image.geometry.block_size
        first_block = virtual_offset // self._block_size
        self._runs = image.bat.iter_runs(first_block, image.geometry.payload_block_count)
        self._run = BlockRun(first_block, 0, 0)

    def ask(self, position: int) -> tuple[int, bool]:
        """Tell who says that there are zeros at `position`: this image, or one below it.

        The first value is the offset up to which the answer holds.
        """
        while self._run.end_block * self._block_size <= position:
            self._run = next(self._runs)
        end = min(self._run.end_block * self._block_size, self.size)
        return end, self._run.state not in _ASKS_PARENT


def _iter_zeros(extent: Extent, layers: Sequence[_Layer]) -> Iterator[MapEntry]:
    """Yield zeros by the image that says so.

    Extents do not tell. It matters where only the changes of a child are wanted: zeros that hide
    what its parent has are one.
    """
    start = extent.virtual_offset
    while start < extent.virtual_end:
        end, present = extent.virtual_end, False
        for depth, layer in enumerate(layers):  # noqa: B007 - the last one asked is the answer
            if start >= layer.size:
                break
            layer_end, present = layer.ask(start)
            end = min(end, layer_end)
            if present:
                break
        yield MapEntry(ExtentKind.ZERO, start, end - start, depth, layer.name, present=present)
        start = end


class Holding(IntFlag):
    """What a cell of a grid holds; a cell may hold several."""

    ZERO = auto()
    CHILD = auto()
    PARENT = auto()
    GRANDPARENT = auto()
    ANCESTOR = auto()
    LOST = auto()


_BY_DEPTH = (Holding.CHILD, Holding.PARENT, Holding.GRANDPARENT, Holding.ANCESTOR)


def _holding_of(entry: MapEntry) -> Holding:
    match entry.kind:
        case ExtentKind.DATA:
            return _BY_DEPTH[min(entry.depth, len(_BY_DEPTH) - 1)]
        case ExtentKind.ZERO:
            return Holding.ZERO
        case ExtentKind.LOST:
            return Holding.LOST


class CellRun(NamedTuple):
    """Consecutive cells that hold the same.

    Attributes:
        first: Index of the first cell.
        cell_count: How many.
        holding: What each of them holds.
    """

    first: int
    cell_count: int
    holding: Holding


class Grid(NamedTuple):
    """A range of the virtual disk as cells of one size.

    Attributes:
        start: Where the first cell begins in the virtual disk, in bytes.
        length: Bytes of all cells; the last one may be shorter than the others.
        cell_size: Bytes that a cell stands for, a power of two.
        cells: What each cell holds, as the value of a `Holding`.
        totals: Bytes of each kind in the range.
    """

    start: int
    length: int
    cell_size: int
    cells: bytes
    totals: Mapping[Holding, int]

    def iter_runs(self, first: int, end: int) -> Iterator[CellRun]:
        """Yield the runs of like cells that tile those from `first` to `end`."""
        for value, group in groupby(self.cells[first:end]):
            count = sum(1 for _ in group)
            yield CellRun(first, count, Holding(value))
            first += count

    def bounds(self, run: CellRun) -> tuple[int, int]:
        """Return where a run of cells begins and ends in the virtual disk, in bytes."""
        begin = self.start + run.first * self.cell_size
        return begin, min(begin + run.cell_count * self.cell_size, self.start + self.length)


def make_grid(entries: Iterable[MapEntry], start: int, length: int, max_cells: int) -> Grid:
    """Lay a grid of at most `max_cells` cells over entries that tile a range.

    Takes time for each entry and each cell, and memory for each cell.
    """
    cell_size = MIN_CELL_SIZE
    while ceil_div(length, cell_size) > max_cells:
        cell_size *= 2
    cells = bytearray(ceil_div(length, cell_size))
    totals: dict[Holding, int] = {}
    for entry in entries:
        holding = _holding_of(entry)
        totals[holding] = totals.get(holding, 0) + entry.length
        first = (entry.start - start) // cell_size
        last = (entry.end - 1 - start) // cell_size
        cells[first] |= holding
        cells[last] |= holding
        if first + 1 < last:
            cells[first + 1 : last] = bytes([holding]) * (last - first - 1)
    return Grid(start, length, cell_size, bytes(cells), totals)
