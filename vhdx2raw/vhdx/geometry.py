"""The arithmetic of sectors, blocks, chunks and BAT indexes: integers only (MS-VHDX 2.4, 2.5).

A *chunk* is the stretch of the virtual disk that one sector bitmap block describes: 2^23 logical
sectors. The BAT holds, chunk by chunk, the entries of its payload blocks and then the entry of
its sector bitmap block, in every type of disk.
"""

from __future__ import annotations

from typing import NamedTuple

from vhdx2raw.units import ceil_div
from vhdx2raw.vhdx.layout import SECTORS_PER_CHUNK


class Geometry(NamedTuple):
    """The sizes of a disk, and every count and index that follows from them.

    Attributes:
        virtual_disk_size: Bytes of the virtual disk.
        block_size: Bytes of a payload block.
        logical_sector_size: Bytes of a logical sector.
        has_parent: Whether the disk is differencing, which lengthens the BAT (2.5).
    """

    virtual_disk_size: int
    block_size: int
    logical_sector_size: int
    has_parent: bool

    @property
    def chunk_size(self) -> int:
        """Bytes of the virtual disk in a chunk."""
        return SECTORS_PER_CHUNK * self.logical_sector_size

    @property
    def chunk_ratio(self) -> int:
        """Payload blocks in a chunk."""
        return self.chunk_size // self.block_size

    @property
    def payload_block_count(self) -> int:
        """Payload blocks of the disk, the last one possibly used in part."""
        return ceil_div(self.virtual_disk_size, self.block_size)

    @property
    def chunk_count(self) -> int:
        """Chunks, each with one sector bitmap block; the last one possibly used in part."""
        return ceil_div(self.payload_block_count, self.chunk_ratio)

    @property
    def bat_entry_count(self) -> int:
        """Entries of the BAT.

        Without a parent the table ends with the last payload block, with one it ends with the
        last sector bitmap block.
        """
        if self.has_parent:
            return self.chunk_count * (self.chunk_ratio + 1)
        return self.payload_bat_index(self.payload_block_count - 1) + 1

    def payload_bat_index(self, payload_block_index: int) -> int:
        """Return the index of the BAT entry of a payload block."""
        return payload_block_index + payload_block_index // self.chunk_ratio

    def sector_bitmap_bat_index(self, chunk_index: int) -> int:
        """Return the index of the BAT entry of the sector bitmap block of a chunk."""
        return (chunk_index + 1) * self.chunk_ratio + chunk_index

    def blocks_of_chunk(self, chunk_index: int) -> range:
        """Return the indexes of the payload blocks of a chunk."""
        first = chunk_index * self.chunk_ratio
        return range(first, min(first + self.chunk_ratio, self.payload_block_count))

    def used_block_size(self, payload_block_index: int) -> int:
        """Return how many bytes of a payload block belong to the virtual disk."""
        start = payload_block_index * self.block_size
        return min(self.block_size, self.virtual_disk_size - start)
