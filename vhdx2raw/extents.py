"""What every range of the virtual disk is: stored data, or zeros. The one match on block states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from vhdx2raw.bat import BlockRun
from vhdx2raw.image import VhdxImage
from vhdx2raw.structures import PayloadBlockState


class ExtentKind(Enum):
    """What a range of the virtual disk holds."""

    DATA = auto()
    ZERO = auto()


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of the virtual disk and where its bytes come from.

    Attributes:
        kind: Stored data, or zeros that are stored nowhere.
        virtual_offset: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        image: The image that stores the data; None for zeros.
        file_offset: Where the data lies in that image, in bytes; 0 for zeros.
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

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as the extent, with the stored data.

        Raises:
            TruncatedImageError: The file has become shorter since it was opened.
            OSError: The host could not read.
        """
        assert self.image is not None, "zeros are stored nowhere"
        self.image.source.pread_into(self.file_offset, buffer)

    def continues(self, before: Extent) -> bool:
        """Tell whether this extent and the one before it could be one."""
        if self.kind is not before.kind or self.image is not before.image:
            return False
        return self.kind is ExtentKind.ZERO or self.file_offset == before.file_offset + before.length


def iter_extents(image: VhdxImage) -> Iterator[Extent]:
    """Yield the extents of the virtual disk: in order, without gaps, none that could be merged."""
    pending: Extent | None = None
    for extent in _iter_blocks(image):
        if pending is None:
            pending = extent
        elif extent.continues(pending):
            length = pending.length + extent.length
            pending = Extent(
                pending.kind, pending.virtual_offset, length, pending.image, pending.file_offset
            )
        else:
            yield pending
            pending = extent
    if pending is not None:
        yield pending


def _iter_blocks(image: VhdxImage) -> Iterator[Extent]:
    """Yield an extent for each run of blocks."""
    for run in image.bat.iter_runs(0, image.geometry.payload_block_count):
        virtual_offset = run.first_block * image.geometry.block_size
        virtual_end = min(run.end_block * image.geometry.block_size, image.virtual_disk_size)
        length = virtual_end - virtual_offset
        match run.state:
            # Without a parent, a partially present block is all here (R81).
            case PayloadBlockState.FULLY_PRESENT | PayloadBlockState.PARTIALLY_PRESENT:
                yield Extent(ExtentKind.DATA, virtual_offset, length, image, run.file_offset)
            case _:
                yield Extent(ExtentKind.ZERO, virtual_offset, length)
