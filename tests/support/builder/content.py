"""What payload blocks hold: bytes that name their own address, fills, sparse pieces."""

import struct
from collections.abc import Callable, Mapping

_STEP = 512
_OFFSET = struct.Struct("<Q")

Content = None | int | bytes | Mapping[int, bytes] | Callable[[int, int], bytes]
"""None: the address pattern; int: that byte everywhere (0: stored, but a hole in the file);
bytes: from the start of the block on, then zeros; mapping: offset in the block to bytes, zeros
elsewhere; callable: (virtual_offset, length) to bytes, asked a piece at a time."""


def address_pattern(virtual_offset: int, length: int, tag: str = "base") -> bytes:
    """Give bytes of which every 512 begin with their virtual offset (u64) and then name the layer.

    But for zeros inside those 8 bytes no byte is zero. Any range can be asked for.
    """
    if length <= 0:
        return b""
    first = virtual_offset - virtual_offset % _STEP
    label = f" layer {tag} ".encode("ascii")
    size = _STEP - _OFFSET.size
    filler = (label * (size // len(label) + 1))[:size]
    end = virtual_offset + length
    pattern = filler.join(map(_OFFSET.pack, range(first, end, _STEP))) + filler
    if first == virtual_offset and len(pattern) == length:
        return pattern
    return pattern[virtual_offset - first : end - first]


def content_piece(
    content: Content, tag: str, block_offset: int, start: int, length: int
) -> bytes | None:
    """Give `length` bytes from `start` in the block at virtual `block_offset`; None: all zero."""
    if content is None:
        return address_pattern(block_offset + start, length, tag)
    if isinstance(content, int):
        return bytes([content]) * length if content else None
    if isinstance(content, bytes):
        return content[start : start + length].ljust(length, b"\0")
    if isinstance(content, Mapping):
        return _mapped_piece(content, start, length)
    return content(block_offset + start, length)


def _mapped_piece(content: Mapping[int, bytes], start: int, length: int) -> bytes | None:
    piece: bytearray | None = None
    for offset, data in content.items():
        low, high = max(start, offset), min(start + length, offset + len(data))
        if low < high:
            piece = bytearray(length) if piece is None else piece
            piece[low - start : high - start] = data[low - offset : high - offset]
    return None if piece is None else bytes(piece)
