"""What a virtual disk must hold, by the description and the rules of reading alone."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

from .layout import MIB, BlockState
from .placement import stored_piece

if TYPE_CHECKING:
    from .image import Block, ImageSpec

Parent = Union["ImageSpec", Callable[[int, int], bytes], None]


def zero_disk(_offset: int, length: int) -> bytes:
    """Be a parent that holds nothing but zeros."""
    return bytes(length)


def expected_bytes(spec: "ImageSpec", offset: int, length: int, parent: Parent) -> bytes:
    """Give `length` bytes of the disk; beyond its end zeros, which also hides all below it."""
    inside = max(0, min(length, spec.virtual_disk_size - offset))
    pieces: list[bytes] = []
    position = offset
    while position < offset + inside:
        start = position % spec.block_size
        count = min(spec.block_size - start, offset + inside - position)
        pieces.append(_block_bytes(spec, position, count, parent))
        position += count
    pieces.append(bytes(length - inside))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def expected_sha256(spec: "ImageSpec", parent: Parent) -> str:
    """Give the SHA-256 of the whole disk."""
    digest = hashlib.sha256()
    step = 4 * MIB
    for offset in range(0, spec.virtual_disk_size, step):
        length = min(step, spec.virtual_disk_size - offset)
        digest.update(expected_bytes(spec, offset, length, parent))
    return digest.hexdigest()


def _block_bytes(spec: "ImageSpec", offset: int, length: int, parent: Parent) -> bytes:
    """Give a range that lies within one block."""
    index, start = divmod(offset, spec.block_size)
    block = spec.blocks.get(index)
    if block is None or block.state == BlockState.NOT_PRESENT:
        return _below(spec, offset, length, parent)
    if not block.owns_space:
        return bytes(length)
    own = stored_piece(spec, index, block, start, length)
    own = bytes(length) if own is None else own
    if block.state == BlockState.FULLY_PRESENT or not spec.is_differencing:
        return own
    if block.sector_bits is None:
        return own
    return _mixed(spec, block, offset, own, _below(spec, offset, length, parent))


def _mixed(spec: "ImageSpec", block: "Block", offset: int, own: bytes, below: bytes) -> bytes:
    """Take the sectors whose bit is set from `own`, the others from `below`."""
    sector_size = spec.logical_sector_size
    present = set(block.sector_bits or ())
    mixed = bytearray(below)
    start = offset % spec.block_size
    for sector in range(start // sector_size, -(-(start + len(own)) // sector_size)):
        if sector in present:
            low = max(0, sector * sector_size - start)
            high = min(len(own), (sector + 1) * sector_size - start)
            mixed[low:high] = own[low:high]
    return bytes(mixed)


def _below(spec: "ImageSpec", offset: int, length: int, parent: Parent) -> bytes:
    """Give what shows through where the image itself has nothing."""
    if not spec.is_differencing:
        return bytes(length)
    if parent is None:
        message = "the image shows its parent here: give one, or zero_disk"
        raise ValueError(message)
    if callable(parent):
        return parent(offset, length)
    return parent.expected_disk(offset, length)
