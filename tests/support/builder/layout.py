"""Numbers of the format and the arithmetic of blocks, chunks and BAT indexes."""

from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

SECTOR_SIZE_OF_LOG = 4 * KIB
HEADER_OFFSETS = (64 * KIB, 128 * KIB)
REGION_TABLE_OFFSETS = (192 * KIB, 256 * KIB)
HEADER_SIZE = 4 * KIB
REGION_TABLE_SIZE = 64 * KIB
METADATA_TABLE_SIZE = 64 * KIB
HEADER_SECTION_SIZE = MIB
SECTOR_BITMAP_BLOCK_SIZE = MIB
SECTORS_PER_CHUNK = 1 << 23

ZERO_GUID = UUID(int=0)
BAT_REGION = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
VIRTUAL_DISK_ID = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_LOCATOR_TYPE = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")

IS_USER = 1
IS_VIRTUAL_DISK = 2
IS_REQUIRED = 4


class BlockState(IntEnum):
    """The state in a payload BAT entry; sector bitmap entries use 0 and 6 only."""

    NOT_PRESENT = 0
    UNDEFINED = 1
    ZERO = 2
    UNMAPPED = 3
    RESERVED_4 = 4
    UNMAPPED_V095 = 5
    FULLY_PRESENT = 6
    PARTIALLY_PRESENT = 7


def same_bytes_guid(byte: int) -> UUID:
    """Give the GUID of sixteen equal bytes."""
    return UUID(bytes=bytes([byte]) * 16)


def round_up(value: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-value // unit) * unit


@dataclass(frozen=True)
class BlockGeometry:
    """Counts and indexes that follow from the sizes.

    Impossible sizes (0, 3 MiB ...) are tolerated, so that an image with them can be built.
    """

    virtual_disk_size: int
    block_size: int
    logical_sector_size: int

    @property
    def chunk_ratio(self) -> int:
        """Payload blocks per chunk."""
        chunk_size = SECTORS_PER_CHUNK * self.logical_sector_size
        return max(1, chunk_size // max(MIB, self.block_size))

    @property
    def payload_block_count(self) -> int:
        """Payload blocks of the disk, the last one maybe used in part."""
        return -(-self.virtual_disk_size // max(MIB, self.block_size))

    @property
    def chunk_count(self) -> int:
        """Sector bitmap blocks that a differencing disk of this size can have."""
        return -(-self.payload_block_count // self.chunk_ratio)

    @property
    def bitmap_bytes_per_block(self) -> int:
        """Bytes of the sector bitmap that belong to one payload block."""
        return self.block_size // max(512, self.logical_sector_size) // 8

    def bat_entry_count(self, *, differencing: bool) -> int:
        """Entries of the table, the last one being a payload or a bitmap entry."""
        if differencing:
            return self.chunk_count * (self.chunk_ratio + 1)
        blocks = self.payload_block_count
        return blocks + (blocks - 1) // self.chunk_ratio if blocks else 0

    def payload_bat_index(self, payload_block_index: int) -> int:
        """Where the entry of a payload block stands in the table."""
        return payload_block_index + payload_block_index // self.chunk_ratio

    def bitmap_bat_index(self, chunk_index: int) -> int:
        """Where the entry of a chunk's sector bitmap stands in the table."""
        return chunk_index * (self.chunk_ratio + 1) + self.chunk_ratio
