"""What a raw image of a disk needs, found out from the tables alone: no data is read."""

from __future__ import annotations

from typing import Final, NamedTuple

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.reading import Blend, Stretch, iter_stretches
from vhdx2raw.units import KIB, ceil_div

PAGE_SIZE: Final = 4 * KIB
"""Bytes; the least that a file system allocates, and that a conversion looks at for zeros."""


class Measurement(NamedTuple):
    """What a raw image needs, in bytes.

    Attributes:
        required: The length of the image, and so the least size of a block device for it.
        fully_allocated: The same: what the image takes up once every byte is allocated.
        sparse: The most that the image takes up on a file system of 4 KiB blocks while what is
            stored nowhere is a hole.
    """

    required: int
    fully_allocated: int
    sparse: int


def measure(chain: Chain) -> Measurement:
    """Return what a raw image of the disk needs.

    Raises:
        CorruptImageError: A table turned out to be damaged.
        OSError: The host could not read a table.
    """
    size = chain.virtual_disk_size
    pages = sum(
        _page_count(data)
        for stretch in iter_stretches(chain)
        if stretch.kind is ExtentKind.DATA
        for data in stretch.iter_without_holes()
    )
    # A page in which two stretches meet was counted for both.
    return Measurement(size, size, min(pages, ceil_div(size, PAGE_SIZE)) * PAGE_SIZE)


def _page_count(stretch: Stretch) -> int:
    """Return how many pages of the disk have data of a stretch."""
    if not isinstance(stretch, Blend):
        return ceil_div(stretch.virtual_end, PAGE_SIZE) - stretch.virtual_offset // PAGE_SIZE
    per_page = max(1, PAGE_SIZE // stretch.sector_size)
    # Shifted to the first sector of a page, so that each page is as many bits.
    stored = stretch.stored << stretch.virtual_offset // stretch.sector_size % per_page
    distance = 1
    while distance < per_page:
        stored |= stored >> distance
        distance *= 2
    digits = f"{stored:b}"[::-1]
    return digits[::per_page].count("1")
