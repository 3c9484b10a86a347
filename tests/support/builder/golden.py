"""The four golden images, defined to the last byte by section 8 of the format document."""

from .family import child_of, make_dirty
from .image import Block, ImageSpec
from .layout import GIB, MIB, BlockState, same_bytes_guid

GOLDEN_FILE_SHA256 = {
    "g1": "0d0dff4c8a6576cab71c168b8974981d5612033f526508af37c0d08c22ae0225",
    "g2": "8af5ebd857bd5129705fbedc46dec74be96dad1b00d9a0348c3f3c3c8c14c71a",
    "g3": "b9d8d2ec5d57e8c840fea6aa6b6aa43fcbd621f9e9695932fa709d023ce7cec5",
    "g4": "a84f595f78c60e610e82a00f5c150a5a2e609de3875c072ceb5660e1dadb6780",
}
GOLDEN_RAW_SHA256 = {
    "g1": "44a322dac0962e1c868478cd2bdcfaaf3635281b16c7a2209c94214ab847f1ec",
    "g2": "ef7b9c52de3706d2a7e8807842e91801e881942fd8847448933cf7bfb47f2ce5",
    "g3": "b3adf1dd55db14aff062fe3b42c76e4a717c0d588bad6f0066e24d3f19591c7b",
    "g4": "30ce8fbac89b55dd632bba7c6a9d27229fc4cd9dbbc14538edd5974dc51255a4",
}


def golden_g1() -> ImageSpec:
    """Give the dynamic image: one block of 0xA5, one ZERO, a short last block."""
    return ImageSpec(
        virtual_disk_size=3 * MIB + 1024,
        block_size=MIB,
        creator="",
        blocks={0: Block(content=0xA5), 2: Block(BlockState.ZERO)},
    )


def golden_g2() -> ImageSpec:
    """Give G1 with a dirty log, wrapped over the ring's end, that adds block 3."""
    after = golden_g1()
    after.blocks[3] = Block(content=0xB6)
    return make_dirty(golden_g1(), after, position=0xFF000, sequence_number=0x0102030405060708)


def golden_g3() -> ImageSpec:
    """Give the child of G1 (as g1.vhdx beside it) with three sectors of its own."""
    return child_of(
        golden_g1(),
        ".\\g1.vhdx",
        block_size=2 * MIB,
        creator="",
        virtual_disk_id=same_bytes_guid(0x55),
        blocks={0: Block(BlockState.PARTIALLY_PRESENT, 0xC7, sector_bits={0, 2, 2055})},
    )


def golden_g4() -> ImageSpec:
    """Give the dynamic image with blocks on both sides of a chunk border."""
    return ImageSpec(
        virtual_disk_size=5 * GIB,
        block_size=MIB,
        creator="",
        virtual_disk_id=same_bytes_guid(0x77),
        data_write_guid=same_bytes_guid(0x88),
        blocks={
            0: Block(content=0xD0),
            4095: Block(content=0xD1),
            4096: Block(content=0xD2),
            5119: Block(content=0xD3),
        },
    )
