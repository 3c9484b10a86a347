"""Chains with blocks that only a log promises, and which image says what a sector holds."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path

from hypothesis import strategies as st

from tests.support.builder import MIB, Block, BlockState, ImageSpec, log_sectors, make_dirty
from tests.support.random_chains import MAX_SIZE_MIB, PAGE

NO_BLOCK = Block(BlockState.NOT_PRESENT)
SAYS_ZEROS = (BlockState.UNDEFINED, BlockState.ZERO, BlockState.UNMAPPED)


def who_says(specs: Sequence[ImageSpec], offset: int) -> tuple[int, bool]:
    """Give the depth of the last image that is asked for a sector, and whether it has an answer.

    By the description alone; the rules are R85 to R90 and R107.
    """
    for depth, spec in enumerate(specs):
        if offset >= spec.virtual_disk_size:
            return depth, False
        index, start = divmod(offset, spec.block_size)
        block = spec.blocks.get(index, NO_BLOCK)
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


def with_promised_end(
    spec: ImageSpec, missing: int, logged: Collection[int] = frozenset()
) -> ImageSpec:
    """Give an image that lacks its last bytes, whose log promises them: zeros, but for a few pages.

    Of the blocks of which anything is missing nothing else is left, in `spec` as well. No sector
    bitmap is missing, and an image without blocks stays whole.

    Args:
        spec: The image.
        missing: How many bytes, if there are so many.
        logged: Which of the blocks, in the order of the file, have a page of data in the log.
    """
    placement = spec.placement()
    places = {
        place: index for index, place in placement.blocks.items() if spec.blocks[index].owns_space
    }
    bitmaps_end = max((place + MIB for place in placement.bitmaps.values()), default=0)
    cut = max(placement.end - missing, bitmaps_end, min(places, default=0))
    beyond = sorted(place for place in places if place + spec.block_size > cut)
    if not beyond:
        return spec
    pages: dict[int, bytes] = {}
    for number, place in enumerate(beyond):
        block = spec.blocks[places[place]]
        block.content = 0
        if number in logged:
            page = bytes([number + 1]) * PAGE
            block.content = {spec.block_size - PAGE: page}
            pages[place + spec.block_size - PAGE] = page
    before = deepcopy(spec)
    before.parent = spec.parent
    dirty = make_dirty(before, spec)
    if pages:
        log_sectors(dirty, pages)
    for entry in dirty.log.entries:
        entry.flushed_file_offset = cut
        entry.last_file_offset = placement.end
    dirty.file_size = cut
    return dirty


def write_promised(data: st.DataObject, specs: Sequence[ImageSpec], folder: Path) -> Path:
    """Write a chain in which some of the files lack some or all of their blocks."""
    for spec in specs:
        missing = data.draw(st.integers(0, 2 * MAX_SIZE_MIB)) * MIB
        logged = data.draw(st.sets(st.integers(0, MAX_SIZE_MIB)))
        file = with_promised_end(spec, missing, logged) if missing else spec
        file.write(folder / f"{spec.tag}.vhdx")
    return folder / f"{specs[0].tag}.vhdx"
