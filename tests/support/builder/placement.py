"""Where blocks lie in the file, and the BAT, bitmap and payload bytes that follow from it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .content import content_piece
from .layout import HEADER_SECTION_SIZE, MIB, SECTOR_BITMAP_BLOCK_SIZE, BlockState, round_up

if TYPE_CHECKING:
    from .image import Block, ImageSpec

_PIECE = MIB


@dataclass(frozen=True)
class Placement:
    """File offsets by payload block index and by chunk index, and the end of all structures."""

    blocks: dict[int, int]
    bitmaps: dict[int, int]
    end: int


def place(spec: "ImageSpec") -> Placement:
    """Give bitmaps, then blocks, the next free MiB after all that has a place already."""
    explicit_ends = [
        block.file_offset + spec.block_size
        for block in spec.blocks.values()
        if block.owns_space and block.file_offset is not None
    ]
    chunks = chunks_with_bitmap(spec)
    for chunk in chunks:
        bitmap = spec.bitmaps.get(chunk)
        if bitmap is not None and bitmap.file_offset is not None:
            explicit_ends.append(bitmap.file_offset + SECTOR_BITMAP_BLOCK_SIZE)
    if spec.file_size is not None:
        explicit_ends = [end for end in explicit_ends if end <= spec.file_size]
    cursor = max(
        HEADER_SECTION_SIZE,
        spec.log_offset + spec.log_length,
        spec.metadata_offset + spec.metadata_length,
        spec.bat_offset + spec.resolved_bat_length,
        *explicit_ends,
    )
    bitmaps: dict[int, int] = {}
    for chunk in chunks:
        bitmap = spec.bitmaps.get(chunk)
        if bitmap is None or bitmap.file_offset is None:
            bitmaps[chunk] = round_up(cursor, MIB)
            cursor = bitmaps[chunk] + SECTOR_BITMAP_BLOCK_SIZE
        else:
            bitmaps[chunk] = bitmap.file_offset
    blocks: dict[int, int] = {}
    for index, block in spec.blocks.items():
        if block.file_offset is not None:
            blocks[index] = block.file_offset
        elif block.owns_space:
            blocks[index] = round_up(cursor, MIB)
            cursor = blocks[index] + spec.block_size
    return Placement(blocks, bitmaps, cursor)


def chunks_with_bitmap(spec: "ImageSpec") -> list[int]:
    """Give the chunks that have a sector bitmap block, needed or described."""
    chosen = {chunk for chunk, bitmap in spec.bitmaps.items() if bitmap is not None}
    if spec.is_differencing:
        for index, block in spec.blocks.items():
            if block.state == BlockState.PARTIALLY_PRESENT or block.sector_bits is not None:
                chosen.add(index // spec.geometry.chunk_ratio)
    return sorted(c for c in chosen if not (c in spec.bitmaps and spec.bitmaps[c] is None))


def bat_values(spec: "ImageSpec") -> dict[int, int]:
    """Give the BAT entries that are not zero or were set on purpose, by BAT index."""
    geometry, placement = spec.geometry, spec.placement()
    values: dict[int, int] = {}
    for chunk, file_offset in placement.bitmaps.items():
        bitmap = spec.bitmaps.get(chunk)
        state = BlockState.FULLY_PRESENT if bitmap is None else bitmap.state
        reserved = 0 if bitmap is None else bitmap.reserved_bits
        values[geometry.bitmap_bat_index(chunk)] = _bat_entry(state, reserved, file_offset)
    for index, block in spec.blocks.items():
        file_offset = placement.blocks.get(index, 0)
        entry = _bat_entry(block.state, block.reserved_bits, file_offset)
        values[geometry.payload_bat_index(index)] = entry
    return values | spec.bat_overrides


def _bat_entry(state: int, reserved_bits: int, file_offset: int) -> int:
    if file_offset % MIB or file_offset >= 1 << 64:
        message = f"a BAT entry cannot hold file offset {file_offset:#x}"
        raise ValueError(message)
    return file_offset | (reserved_bits & 0x1FFFF) << 3 | state & 7


def bitmap_pieces(spec: "ImageSpec") -> Iterator[tuple[int, bytes]]:
    """Give (file_offset, bytes) of the sector bitmap blocks, where they are not zero."""
    geometry, placement = spec.geometry, spec.placement()
    for chunk, file_offset in placement.bitmaps.items():
        bitmap = spec.bitmaps.get(chunk)
        if bitmap is not None and bitmap.fill and file_offset >= HEADER_SECTION_SIZE:
            yield file_offset, bytes([bitmap.fill]) * SECTOR_BITMAP_BLOCK_SIZE
    length = geometry.bitmap_bytes_per_block
    for index, block in spec.blocks.items():
        chunk, index_in_chunk = divmod(index, geometry.chunk_ratio)
        file_offset = placement.bitmaps.get(chunk, 0)
        if file_offset < HEADER_SECTION_SIZE:
            continue
        if block.sector_bits is not None:
            yield file_offset + index_in_chunk * length, bits(block.sector_bits, length)
        elif block.state == BlockState.PARTIALLY_PRESENT:
            yield file_offset + index_in_chunk * length, b"\xff" * length


def bits(present: Collection[int], length: int) -> bytes:
    """Give a bitmap of `length` bytes with these bits set, least significant bit first."""
    packed = bytearray(length)
    for bit in present:
        packed[bit // 8] |= 1 << bit % 8
    return bytes(packed)


def payload_pieces(spec: "ImageSpec") -> Iterator[tuple[int, bytes]]:
    """Give (file_offset, bytes) of the payload: stale content first, then what owns its space."""
    placement = spec.placement()
    stored = [index for index in spec.blocks if placement.blocks.get(index, 0) >= MIB]
    for index in sorted(stored, key=lambda index: spec.blocks[index].owns_space):
        block = spec.blocks[index]
        for start in range(0, spec.block_size, _PIECE):
            length = min(_PIECE, spec.block_size - start)
            piece = stored_piece(spec, index, block, start, length)
            if piece is not None:
                yield placement.blocks[index] + start, piece


def stored_piece(
    spec: "ImageSpec", index: int, block: "Block", start: int, length: int
) -> bytes | None:
    """Give a piece of what is stored for a block; None: all zero."""
    return content_piece(block.content, spec.tag, index * spec.block_size, start, length)
