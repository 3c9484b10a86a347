"""What every range of the virtual disk is: data or zeros. The one match on block states."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from vhdx2raw.bat import BlockRun
from vhdx2raw.chain import Chain
from vhdx2raw.errors import CorruptImageError, Finding, TruncatedImageError
from vhdx2raw.geometry import ceil_div
from vhdx2raw.image import VhdxImage
from vhdx2raw.sector_bitmap import iter_runs
from vhdx2raw.source import Source
from vhdx2raw.structures import (
    FILE_OFFSET_MASK,
    HEADER_SECTION_SIZE,
    STATE_MASK,
    PayloadBlockState,
    SectorBitmapBlockState,
)


class ExtentKind(Enum):
    """What a range of the virtual disk holds."""

    DATA = auto()
    ZERO = auto()
    LOST = auto()
    """Nobody knows. Only what was opened to be salvaged has such ranges; they read as zeros."""


class Extent(NamedTuple):
    """A range of the virtual disk and where its bytes come from.

    Attributes:
        kind: Stored data, zeros that are stored nowhere, or lost.
        virtual_offset: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        image: The image that stores the data; None for anything else.
        file_offset: Where the data lies in that image, in bytes; 0 for anything else.
    """

    kind: ExtentKind
    virtual_offset: int
    length: int
    image: VhdxImage | None = None
    file_offset: int = 0

    @property
    def virtual_end(self) -> int:
        """Offset in the virtual disk just behind the extent."""
        return self.virtual_offset + self.length

    @property
    def source(self) -> Source:
        """The file that stores the data."""
        assert self.image is not None, "only data is stored anywhere"
        return self.image.source

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as the extent, with the stored data.

        Raises:
            TruncatedImageError: The file has become shorter since it was opened.
            OSError: The host could not read.
        """
        self.source.pread_into(self.file_offset, buffer)

    def cut(self, virtual_offset: int, virtual_end: int) -> Extent:
        """Return the part of the extent between two offsets in the virtual disk."""
        length = virtual_end - virtual_offset
        if length == self.length:
            return self
        skipped = virtual_offset - self.virtual_offset if self.kind is ExtentKind.DATA else 0
        return Extent(self.kind, virtual_offset, length, self.image, self.file_offset + skipped)

    def joined(self, following: Extent) -> Extent:
        """Return this extent and the one that continues it as one."""
        length = self.length + following.length
        return Extent(self.kind, self.virtual_offset, length, self.image, self.file_offset)

    def iter_in_file(self, alignment: int) -> Iterator[tuple[int, int, int]]:
        """Yield (virtual offset, file offset, length) of what lies in the file as it is read.

        All three are multiples of `alignment` bytes; nothing is yielded for what a log changed.
        """
        if self.kind is not ExtentKind.DATA or (self.file_offset - self.virtual_offset) % alignment:
            return
        for file_offset, length in self.source.iter_in_file(self.file_offset, self.length):
            start = ceil_div(file_offset, alignment) * alignment
            end = (file_offset + length) // alignment * alignment
            if start < end:
                yield self.virtual_offset + start - self.file_offset, start, end - start

    def continues(self, before: Extent) -> bool:
        """Tell whether this extent and the one before it could be one."""
        if self.kind is not before.kind or self.image is not before.image:
            return False
        in_file = self.kind is ExtentKind.DATA
        return not in_file or self.file_offset == before.file_offset + before.length


def iter_extents(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[Extent]:
    """Yield the extents that tile a range of the virtual disk, by default all of it.

    They come in order and without gaps, and no two neighbours could be one.

    Args:
        chain: The disk.
        virtual_offset: Where the range begins, in bytes.
        length: Bytes of the range; what lies behind the end of the disk is left out.

    Raises:
        CorruptImageError: A range is lost, and the chain was not opened to be salvaged.
        OSError: The host could not read a table.
    """
    end = chain.virtual_disk_size
    if length is not None:
        end = min(end, virtual_offset + length)
    pending: Extent | None = None
    for extent in _iter_resolved(chain.images, virtual_offset, end):
        if extent.kind is ExtentKind.LOST and not chain.salvaging:
            raise _unexpected_loss(chain, extent)
        if pending is not None and extent.continues(pending):
            pending = pending.joined(extent)
            continue
        if pending is not None:
            yield pending
        pending = extent
    if pending is not None:
        yield pending


def _unexpected_loss(chain: Chain, extent: Extent) -> CorruptImageError:
    """Return the error for what cannot be in a disk whose tables were found to be sound."""
    problem = f"no table tells where the disk has its bytes from {extent.virtual_offset:#x} on"
    finding = Finding("R80", "BAT", f"{problem}, as it did when the file was opened", "2.5.1.1")
    return CorruptImageError(finding, path=chain.child.source.name)


class _Inherited(NamedTuple):
    """A range that an image leaves to its parent."""

    start: int
    end: int


def _iter_resolved(images: tuple[VhdxImage, ...], start: int, end: int) -> Iterator[Extent]:
    """Yield what a chain shows from start to end.

    No recursion: a chain may be deeper than a program that calls this has frames to spare.
    """
    layers = [_iter_layer(images, 0, start, end)]
    while layers:
        part = next(layers[-1], None)
        if part is None:
            layers.pop()
        elif isinstance(part, Extent):
            yield part
        else:
            layers.append(_iter_layer(images, len(layers), part.start, part.end))


def _iter_layer(
    images: tuple[VhdxImage, ...], depth: int, start: int, end: int
) -> Iterator[Extent | _Inherited]:
    """Yield what the image at `depth` shows, and what it leaves to its parent.

    Behind the root lie zeros, so that no one asks whether there is a parent; what a missing
    parent had is lost (R110). What an image does not reach is hidden behind its end, even where a
    deeper one has it (R107).
    """
    if depth == len(images):
        missing = images[-1].metadata.has_parent
        kind = ExtentKind.LOST if missing else ExtentKind.ZERO
        yield Extent(kind, start, end - start)
        return
    own_end = min(end, images[depth].virtual_disk_size)
    if start < own_end:
        yield from _iter_blocks(images[depth], start, own_end)
    if max(start, own_end) < end:
        yield Extent(ExtentKind.ZERO, max(start, own_end), end - max(start, own_end))


def _iter_blocks(image: VhdxImage, start: int, end: int) -> Iterator[Extent | _Inherited]:
    """Yield what the blocks of an image say about a range inside of it."""
    block_size = image.geometry.block_size
    for run in image.bat.iter_runs(start // block_size, ceil_div(end, block_size)):
        run_start = run.first_block * block_size
        begin, stop = max(start, run_start), min(end, run.end_block * block_size)
        match run.state:
            case PayloadBlockState.PARTIALLY_PRESENT if image.metadata.has_parent:
                yield from _iter_partial(image, run, begin, stop)
            # Without a parent, a partially present block is all here (R81).
            case PayloadBlockState.FULLY_PRESENT | PayloadBlockState.PARTIALLY_PRESENT:
                yield from _iter_stored(image, begin, stop, run.file_offset - run_start)
            case PayloadBlockState.NOT_PRESENT:
                yield _Inherited(begin, stop)
            case PayloadBlockState.RESERVED:
                yield Extent(ExtentKind.LOST, begin, stop - begin)
            case _:
                # Also in a child these are zeros, and never what the parent has (R86, R87).
                yield Extent(ExtentKind.ZERO, begin, stop - begin)


def _iter_stored(image: VhdxImage, start: int, end: int, distance: int) -> Iterator[Extent]:
    """Yield a range as data that lies `distance` bytes further on in the file.

    What a log only promises behind the end of the file is told as zeros: there can be any number.
    What a damaged table places in the header section or behind the end of the file is lost.
    """
    stop = end if start + distance >= HEADER_SECTION_SIZE else start
    stop = max(start, min(stop, image.source.size - distance))
    done = start
    for file_offset, length in image.source.iter_stored(start + distance, stop - start):
        begin = file_offset - distance
        if done < begin:
            yield Extent(ExtentKind.ZERO, done, begin - done)
        done = begin + length
        if length:
            yield Extent(ExtentKind.DATA, begin, length, image, file_offset)
    if done < stop:
        yield Extent(ExtentKind.ZERO, done, stop - done)
    if stop < end:
        yield Extent(ExtentKind.LOST, stop, end - stop)


def _iter_partial(
    image: VhdxImage, blocks: BlockRun, start: int, end: int
) -> Iterator[Extent | _Inherited]:
    """Yield what partially present blocks of one chunk show: per sector, theirs or the parent's.

    The data lies at its natural place in the block; what the parent has is left out (R89, R90).
    """
    if image.salvaging and blocks.block_count > 1:
        # So that a bitmap which cannot be read costs as few blocks as possible.
        for block in blocks.split(image.geometry.block_size):
            block_start = block.first_block * image.geometry.block_size
            begin, stop = max(start, block_start), min(end, block_start + image.geometry.block_size)
            yield from _iter_partial(image, block, begin, stop)
        return
    geometry = image.geometry
    chunk_index = blocks.first_block // geometry.chunk_ratio
    chunk_start = chunk_index * geometry.chunk_size
    sector_size = geometry.logical_sector_size
    first_sector = (start - chunk_start) // sector_size
    end_sector = ceil_div(end - chunk_start, sector_size)
    first_byte, end_byte = first_sector // 8, ceil_div(end_sector, 8)
    bitmap = _read_bitmap(image, chunk_index, first_byte, end_byte)
    if bitmap is None:
        # Nothing tells which of its sectors are the parent's (R83).
        yield Extent(ExtentKind.LOST, start, end - start)
        return
    distance = blocks.file_offset - blocks.first_block * geometry.block_size
    position = chunk_start + first_sector * sector_size
    for present, count in iter_runs(bitmap, first_sector % 8, end_sector - first_sector):
        begin, position = max(start, position), position + count * sector_size
        stop = min(end, position)
        if present:
            yield from _iter_stored(image, begin, stop, distance)
        else:
            yield _Inherited(begin, stop)


def _read_bitmap(
    image: VhdxImage, chunk_index: int, first_byte: int, end_byte: int
) -> bytes | None:
    """Read a part of a sector bitmap; None if it cannot be read and the disk is salvaged."""
    entry = image.bat.sector_bitmap_entry(chunk_index)
    file_offset = entry & FILE_OFFSET_MASK
    try:
        if entry & STATE_MASK == SectorBitmapBlockState.PRESENT and file_offset:
            return image.source.pread(file_offset + first_byte, end_byte - first_byte)
    except (OSError, TruncatedImageError):
        if not image.salvaging:
            raise
    assert image.salvaging, "the BAT of any other disk was found to be sound"
    return None
