"""What a range of the virtual disk is, and where its bytes come from."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from vhdx2raw.source.base import Source
from vhdx2raw.units import ceil_div
from vhdx2raw.vhdx.image import VhdxImage


class ExtentKind(Enum):
    """What a range of the virtual disk holds."""

    DATA = auto()
    ZERO = auto()
    INHERITED = auto()
    """What the version has that the chain rests on, if it was opened down to that version only."""
    LOST = auto()
    """Unknown. Only what was opened to be salvaged has such ranges; they read as zeros."""


class Extent(NamedTuple):
    """A range of the virtual disk and where its bytes come from.

    Attributes:
        kind: Stored data, zeros that are stored nowhere, or lost.
        virtual_offset: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        image: The image that stores the data; None for anything else, but for zeros of a block that
            lies where the log of an image promises more than its file has yet.
        file_offset: Where it lies in that image, in bytes; 0 where there is none.
    """

    kind: ExtentKind
    virtual_offset: int
    length: int
    image: VhdxImage | None = None
    file_offset: int = 0

    @property
    def virtual_end(self) -> int:
        return self.virtual_offset + self.length

    @property
    def has_block(self) -> bool:
        """Whether an image has a block for it: data, or zeros that its log promises."""
        return self.kind is ExtentKind.DATA or self.image is not None

    @property
    def data_length(self) -> int:
        """Bytes that are stored: all or none."""
        return self.length if self.kind is ExtentKind.DATA else 0

    def __repr__(self) -> str:
        place = f", {self.source.name!r} at {self.file_offset:#x}" if self.image else ""
        start, end = self.virtual_offset, self.virtual_end
        return f"<Extent {self.kind.name} {start:#x}-{end:#x}{place}>"

    @property
    def source(self) -> Source:
        assert self.image is not None, "only data is stored anywhere"
        return self.image.source

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as the extent, with the stored data.

        Raises:
            TruncatedImageError: The file has become shorter since it was opened.
            OSError: The host could not read.
        """
        self.source.pread_into(self.file_offset, buffer)

    def places(self) -> list[tuple[Source, int, int]]:
        """Return (source, file offset, length) of what is read for stored data."""
        return [(self.source, self.file_offset, self.length)]

    def prefetch(self) -> None:
        """Expect that stored data is read soon."""
        self.source.prefetch(self.file_offset, self.length)

    def cut(self, virtual_offset: int, virtual_end: int) -> Extent:
        """Return the part of the extent between two offsets in the virtual disk."""
        length = virtual_end - virtual_offset
        if length == self.length:
            return self
        skipped = virtual_offset - self.virtual_offset if self.has_block else 0
        return Extent(self.kind, virtual_offset, length, self.image, self.file_offset + skipped)

    def moved(self, distance: int) -> Extent:
        """Return the same in a disk that begins `distance` bytes earlier."""
        return self._replace(virtual_offset=self.virtual_offset + distance)

    def joined(self, following: Extent) -> Extent:
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

    def block_spans(self) -> list[tuple[int, int]]:
        """Return (start, end), from its beginning, of what an image has a block for."""
        return [(0, self.length)] if self.has_block else []

    def iter_without_holes(self) -> Iterator[Extent]:
        """Yield the parts of stored data that are no holes of the file."""
        distance = self.file_offset - self.virtual_offset
        for file_offset, length in self.source.iter_without_holes(self.file_offset, self.length):
            yield self.cut(file_offset - distance, file_offset - distance + length)

    def continues(self, before: Extent) -> bool:
        """Return whether this extent and the one before it could be one."""
        if self.kind is not before.kind or self.image is not before.image:
            return False
        # Zeros of blocks too: what lies between them in the file is none of theirs.
        return not self.has_block or self.file_offset == before.file_offset + before.length
