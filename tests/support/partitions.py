"""Disks with partition tables, as VHDX files: what a table leaves free names its own address."""

from collections.abc import Mapping
from typing import Any

from tests.support.builder import MIB, Block, BlockState, Content, ImageSpec, child_of
from tests.support.builder.content import address_pattern
from tests.support.contents import EFI, LINUX, Row, gpt, record

SIZE = 8 * MIB
ROWS: list[Row] = [(EFI, 67, 2050, "boot"), (LINUX, 2051, 14001, "root"), (LINUX, 4096, 8191, "in")]
"""Two that begin and end at odd sectors, and one that lies within the second."""
PLACES = {1: (67, 2051), 2: (2051, 14002), 3: (4096, 8192)}
"""First sector of each, and the one after its last."""


def overlaid(pieces: Mapping[int, bytes], tag: str = "base") -> Content:
    """Give content that is `pieces`, by their places in the disk, and elsewhere its address."""

    def content(virtual_offset: int, length: int) -> bytes:
        data = bytearray(address_pattern(virtual_offset, length, tag))
        for start, piece in pieces.items():
            low, high = max(virtual_offset, start), min(virtual_offset + length, start + len(piece))
            if low < high:
                data[low - virtual_offset : high - virtual_offset] = piece[
                    low - start : high - start
                ]
        return bytes(data)

    return content


def disk_with(
    pieces: Mapping[int, bytes],
    size: int = SIZE,
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe a disk that has data everywhere, and these bytes at these places."""
    blocks = {index: Block(content=overlaid(pieces)) for index in range(-(-size // MIB))}
    return ImageSpec(size, MIB, blocks, **fields)


def gpt_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe a disk with the partitions of `ROWS`."""
    return disk_with(gpt(*ROWS, size=SIZE), **fields)


def mbr_disk(*entries: tuple[int, int, int]) -> ImageSpec:
    """Describe a disk with a table of (type, first sector, sector count)."""
    return disk_with({0: record(*entries)})


def fragmented_child(parent: ImageSpec, name: str = "base.vhdx") -> ImageSpec:
    """Describe a child that owns every third sector, from the second MiB on, and zeros in one."""
    sector_size = parent.logical_sector_size
    partial = Block(BlockState.PARTIALLY_PRESENT, sector_bits=range(1, MIB // sector_size, 3))
    blocks = dict.fromkeys(range(1, SIZE // MIB - 1), partial)
    blocks[4] = Block(BlockState.ZERO)
    return child_of(parent, name, blocks=blocks)
