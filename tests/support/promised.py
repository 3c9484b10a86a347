"""Chains with blocks that only a log promises, and which image says what a sector holds."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from hypothesis import strategies as st

from tests.support.builder import MIB, Block, BlockState, ImageSpec, make_dirty

SAYS_ZEROS = (BlockState.UNDEFINED, BlockState.ZERO, BlockState.UNMAPPED)


def who_says(specs: Sequence[ImageSpec], offset: int) -> tuple[int, bool]:
    """Give the depth of the last image that is asked for a sector, and whether it has an answer.

    By the description alone; the rules are R85 to R90 and R107.
    """
    for depth, spec in enumerate(specs):
        if offset >= spec.virtual_disk_size:
            return depth, False
        index, start = divmod(offset, spec.block_size)
        block = spec.blocks.get(index, Block(BlockState.NOT_PRESENT))
        bits = block.sector_bits
        is_here = bits is None or start // spec.logical_sector_size in bits
        if block.state in (BlockState.FULLY_PRESENT, *SAYS_ZEROS):
            return depth, True
        if block.state == BlockState.PARTIALLY_PRESENT and is_here:
            return depth, True
    return len(specs) - 1, False


def has_block(specs: Sequence[ImageSpec], offset: int) -> bool:
    """Return whether the image that decides on a sector has a block for it, also of zeros."""
    depth, has_answer = who_says(specs, offset)
    block = specs[depth].blocks.get(offset // specs[depth].block_size)
    return has_answer and block is not None and block.state not in SAYS_ZEROS


def with_promised_end(spec: ImageSpec, missing: int) -> ImageSpec:
    """Give an image that lacks its last bytes, which are zeros, and whose log promises them.

    The last block becomes one of zeros, in `spec` as well. An image without blocks stays whole.
    """
    stored = [index for index, block in spec.blocks.items() if block.owns_space]
    if not stored:
        return spec
    spec.blocks[stored[-1]].content = 0
    before = deepcopy(spec)
    before.parent = spec.parent
    dirty = make_dirty(before, spec)
    end = spec.placement().end
    for entry in dirty.log.entries:
        entry.flushed_file_offset = end - missing
        entry.last_file_offset = end
    dirty.file_size = end - missing
    return dirty


def write_promised(data: st.DataObject, specs: Sequence[ImageSpec], folder: Path) -> Path:
    """Write a chain in which some of the files lack some or all of their last block."""
    for spec in specs:
        blocks = spec.block_size // MIB
        missing = data.draw(st.integers(0, blocks)) * MIB
        file = with_promised_end(spec, missing) if missing else spec
        file.write(folder / f"{spec.tag}.vhdx")
    return folder / f"{specs[0].tag}.vhdx"
