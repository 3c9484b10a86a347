"""What one image of a chain says about a range, and what it leaves to its parent.

The one match on block states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.units import KIB, MIB, ceil_div
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.bat import BlockRun
from vhdx2raw.vhdx.image import VhdxImage
from vhdx2raw.vhdx.sector_bitmap import iter_runs

WINDOW_SIZE = MIB
"""Bytes of the disk that are blended at once where they change their owner often."""
BITMAP_PIECE_SIZE = 16 * KIB
"""Bytes of a sector bitmap that are looked at at once."""
ALL_SECTORS = -1
"""As bits, however many there are."""


class Part(NamedTuple):
    """A range of the virtual disk, and the image of the chain that determines it.

    Attributes:
        kind: What it holds.
        start: Where it begins in the virtual disk, in bytes.
        end: Where it ends.
        depth: Which image: 0 the child, 1 its parent, and so on.
        present: Whether that image says what is here. If not, no image does: it was the last one
            to be asked, and the range reads as zeros.
        file_offset: Where data lies in that image, in bytes, or zeros that its log promises; 0 for
            anything else.
    """

    kind: ExtentKind
    start: int
    end: int
    depth: int
    present: bool
    file_offset: int = 0


class Mixed(NamedTuple):
    """A range of partially present blocks, up to `WINDOW_SIZE` bytes, some of it the parent's.

    Attributes:
        start: Where it begins in the virtual disk, in bytes.
        end: Where it ends.
        depth: Which image says so.
        sectors: A bit for each sector, from the one that `start` lies in; set if it is present.
        blocks: The blocks.
    """

    start: int
    end: int
    depth: int
    sectors: int
    blocks: BlockRun


class Inherited(NamedTuple):
    """A range that an image leaves to its parent."""

    start: int
    end: int


def iter_layer(
    chain: Chain, depth: int, start: int, end: int, *, mixed: bool
) -> Iterator[Part | Inherited | Mixed]:
    """Yield what the image at `depth` says, and what it leaves to its parent.

    Past the root lie zeros, so that no caller asks whether there is a parent; what a missing
    parent had is lost (R110), unless the chain ends at a known version on purpose. What an image
    does not reach is hidden past its end, even where a deeper one has it (R107). Where `mixed` is
    set, partially present blocks are cut at multiples of `WINDOW_SIZE`, and no further.
    """
    if depth == len(chain.images):
        kind = ExtentKind.LOST if chain.images[-1].metadata.has_parent else ExtentKind.ZERO
        if chain.base:
            kind = ExtentKind.INHERITED
        yield Part(kind, start, end, depth - 1, present=False)
        return
    image = chain.images[depth]
    own_end = min(end, image.virtual_disk_size)
    if start < own_end:
        yield from _iter_blocks(image, depth, start, own_end, mixed=mixed)
    if max(start, own_end) < end:
        yield Part(ExtentKind.ZERO, max(start, own_end), end, depth, present=False)


def _iter_blocks(
    image: VhdxImage, depth: int, start: int, end: int, *, mixed: bool
) -> Iterator[Part | Inherited | Mixed]:
    """Yield what the blocks of an image say about a range inside of it."""
    block_size = image.geometry.block_size
    for run in image.bat.iter_runs(start // block_size, ceil_div(end, block_size)):
        run_start = run.first_block * block_size
        begin, stop = max(start, run_start), min(end, run.end_block * block_size)
        match run.state:
            case layout.PayloadBlockState.PARTIALLY_PRESENT if image.metadata.has_parent:
                yield from _iter_partial(image, depth, run, begin, stop, mixed=mixed)
            # Without a parent, a partially present block is all here (R81).
            case (
                layout.PayloadBlockState.FULLY_PRESENT | layout.PayloadBlockState.PARTIALLY_PRESENT
            ):
                yield from iter_stored(image, depth, run, begin, stop)
            case layout.PayloadBlockState.NOT_PRESENT:
                yield Inherited(begin, stop)
            case layout.PayloadBlockState.RESERVED:
                yield Part(ExtentKind.LOST, begin, stop, depth, present=False)
            case _:
                # Also in a child these are zeros, and never what the parent has (R86, R87).
                yield Part(ExtentKind.ZERO, begin, stop, depth, present=True)


def iter_stored(
    image: VhdxImage, depth: int, blocks: BlockRun, start: int, end: int
) -> Iterator[Part]:
    """Yield a range of some blocks as data that lies at its natural place in them.

    What a log only promises past the end of the file reads as zeros: there can be any number.
    What a damaged table places past the end of the file is lost, and so is all of a block that it
    places in the header section, whichever part of it is asked for (R78).
    """
    distance = blocks.file_offset - blocks.first_block * image.geometry.block_size
    has_place = blocks.file_offset >= layout.HEADER_SECTION_SIZE
    stop = max(start, min(end, image.source.size - distance)) if has_place else start
    done = start
    for file_offset, length in image.source.iter_stored(start + distance, stop - start):
        begin = file_offset - distance
        if done < begin:
            yield Part(
                ExtentKind.ZERO, done, begin, depth, present=True, file_offset=done + distance
            )
        done = begin + length
        if length:
            yield Part(ExtentKind.DATA, begin, done, depth, present=True, file_offset=file_offset)
    if done < stop:
        yield Part(ExtentKind.ZERO, done, stop, depth, present=True, file_offset=done + distance)
    if stop < end:
        yield Part(ExtentKind.LOST, stop, end, depth, present=False)


def _iter_partial(
    image: VhdxImage, depth: int, blocks: BlockRun, start: int, end: int, *, mixed: bool
) -> Iterator[Part | Inherited | Mixed]:
    """Yield what partially present blocks of one chunk say.

    The data lies at its natural place in the block; what the parent has is left out (R89, R90).
    """
    geometry = image.geometry
    if image.salvaging and blocks.block_count > 1:
        # So that a bitmap which cannot be read costs as few blocks as possible.
        for block in blocks.split(geometry.block_size):
            begin = max(start, block.first_block * geometry.block_size)
            stop = min(end, block.end_block * geometry.block_size)
            yield from _iter_partial(image, depth, block, begin, stop, mixed=mixed)
        return
    chunk_index = blocks.first_block // geometry.chunk_ratio
    chunk_start = chunk_index * geometry.chunk_size
    # A chain can have hundreds of images, and each of them holds a piece of a bitmap.
    span = BITMAP_PIECE_SIZE * 8 * geometry.logical_sector_size
    for begin, stop in _iter_cuts(start, end, span):
        first_sector = (begin - chunk_start) // geometry.logical_sector_size
        end_sector = ceil_div(stop - chunk_start, geometry.logical_sector_size)
        bitmap = _read_bitmap(image, chunk_index, first_sector // 8, ceil_div(end_sector, 8))
        if bitmap is None:
            # Nothing says which of its sectors are the parent's (R83).
            yield Part(ExtentKind.LOST, begin, stop, depth, present=False)
            continue
        piece = _BitmapPiece(bitmap, begin, stop, geometry.logical_sector_size)
        runs = piece.iter_sectors() if not mixed else piece.iter_windows()
        for start_of_run, end_of_run, sectors in runs:
            if sectors == ALL_SECTORS:
                yield from iter_stored(image, depth, blocks, start_of_run, end_of_run)
            elif sectors:
                yield Mixed(start_of_run, end_of_run, depth, sectors, blocks)
            else:
                yield Inherited(start_of_run, end_of_run)


def _iter_cuts(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the pieces of a range that is cut at multiples of `size`."""
    while start < end:
        stop = min(end, (start // size + 1) * size)
        yield start, stop
        start = stop


class _BitmapPiece(NamedTuple):
    """What a sector bitmap says about a range of the disk.

    Attributes:
        bitmap: Its bytes, the first of them that of the sector at `start`.
        start: Where the range begins in the virtual disk, in bytes.
        end: Where it ends.
        sector_size: Bytes of a sector.
    """

    bitmap: bytes
    start: int
    end: int
    sector_size: int

    def iter_sectors(self) -> Iterator[tuple[int, int, int]]:
        """Yield (start, end, `ALL_SECTORS` or 0) of the runs of present sectors and of others."""
        first = self.start // self.sector_size
        position = first * self.sector_size
        count = ceil_div(self.end, self.sector_size) - first
        for present, sector_count in iter_runs(self.bitmap, first % 8, count):
            begin, position = max(self.start, position), position + sector_count * self.sector_size
            yield begin, min(self.end, position), ALL_SECTORS if present else 0

    def iter_windows(self) -> Iterator[tuple[int, int, int]]:
        """Yield windows, those that are all alike together: (start, end, sectors as bits)."""
        done, before = self.start, 0
        first_byte = self.start // self.sector_size // 8
        for begin, stop in _iter_cuts(self.start, self.end, WINDOW_SIZE):
            sector, end_sector = begin // self.sector_size, ceil_div(stop, self.sector_size)
            piece = self.bitmap[sector // 8 - first_byte : ceil_div(end_sector, 8) - first_byte]
            if piece[0] in (0x00, 0xFF) and piece == piece[:1] * len(piece):
                sectors = ALL_SECTORS if piece[0] else 0
            else:
                bits = int.from_bytes(piece, "little") >> sector % 8
                sectors = bits & ((1 << end_sector - sector) - 1)
            if done < begin and (before > 0 or sectors != before):
                yield done, begin, before
                done = begin
            before = sectors
        yield done, self.end, before


def _read_bitmap(
    image: VhdxImage, chunk_index: int, first_byte: int, end_byte: int
) -> bytes | None:
    """Read a part of a sector bitmap; None if it cannot be read and the disk is salvaged."""
    entry = image.bat.sector_bitmap_entry(chunk_index)
    file_offset = entry & layout.FILE_OFFSET_MASK
    try:
        if entry & layout.STATE_MASK == layout.SectorBitmapBlockState.PRESENT and file_offset:
            return image.source.pread(file_offset + first_byte, end_byte - first_byte)
    except (OSError, TruncatedImageError):
        if not image.salvaging:
            raise
    assert image.salvaging, "the BAT of any other disk was found to be sound"
    return None
