"""The images that every tool is given: one for each row of the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support.builder import (
    GIB,
    IS_REQUIRED,
    KIB,
    MIB,
    BitmapSpec,
    Block,
    BlockState,
    HeaderSpec,
    ImageSpec,
    MetadataItemSpec,
    child_of,
    locator_of,
    make_dirty,
    same_bytes_guid,
)

DISK = "disk.vhdx"
"""The file that is opened; its parents lie beside it."""
BASE = "base.vhdx"
MIDDLE = "middle.vhdx"
SIZE = 4 * MIB
UNKNOWN_ITEM = UUID("11111111-2222-3333-4444-555555555555")
SECTOR_OF_FILE = 512
HEADER_2 = 128 * KIB
REGION_TABLE_1 = 192 * KIB


@dataclass(frozen=True)
class Case:
    """A row: an image, and what is known without running of the tool that is only read.

    Attributes:
        row: What is tried, as the table names it.
        write: Writes the files into a folder and gives the description of the disk.
        discutils: What follows from its source.
        must_refuse: Whether nothing certain can be read, so that a failure is the right result.
        read_size: Bytes that a library is asked for at a time.
    """

    row: str
    write: Callable[[Path], ImageSpec]
    discutils: str
    must_refuse: bool = False
    read_size: int = MIB


def _written(folder: Path, spec: ImageSpec) -> ImageSpec:
    spec.write(folder / DISK)
    return spec


def _single(**fields: Any) -> Callable[[Path], ImageSpec]:  # noqa: ANN401 - those of ImageSpec
    defaults: dict[str, Any] = {
        "virtual_disk_size": SIZE,
        "block_size": MIB,
        "blocks": {0: Block(), 2: Block()},
    }
    return lambda folder: _written(folder, ImageSpec(**(defaults | fields)))


def _fixed(folder: Path) -> ImageSpec:
    blocks = {index: Block() for index in range(SIZE // MIB)}
    return _written(folder, ImageSpec(SIZE, MIB, blocks, leave_block_allocated=True))


def _fixed_beyond_a_chunk(folder: Path) -> ImageSpec:
    size, block_size = 4 * GIB + 256 * MIB, 256 * MIB
    blocks = {index: Block(content=0) for index in range(size // block_size)}
    for index in (0, 15, 16):
        blocks[index] = Block(content={0: bytes([index + 1]) * MIB})
    return _written(folder, ImageSpec(size, block_size, blocks, leave_block_allocated=True))


def _unknown_item(flags: int) -> Callable[[Path], ImageSpec]:
    def write(folder: Path) -> ImageSpec:
        spec = ImageSpec(SIZE, MIB, {0: Block(), 2: Block()})
        spec.metadata.items.append(MetadataItemSpec(UNKNOWN_ITEM, bytes(16), flags))
        return _written(folder, spec)

    return write


def _truncated(folder: Path) -> ImageSpec:
    spec = ImageSpec(SIZE, MIB, {0: Block(), 2: Block(), 3: Block()})
    spec.write(folder / DISK)
    with (folder / DISK).open("r+b") as file:
        file.truncate(spec.block_file_offset(3))
    return spec


def _dirty(folder: Path) -> ImageSpec:
    after = ImageSpec(SIZE, MIB, {0: Block(), 2: Block()})
    return _written(folder, make_dirty(ImageSpec(SIZE, MIB, {0: Block()}), after))


def _full_base(size: int = SIZE, block_size: int = MIB) -> ImageSpec:
    blocks = {index: Block() for index in range(-(-size // block_size))}
    guid = same_bytes_guid(0x55)
    return ImageSpec(size, block_size, blocks, tag="parent", data_write_guid=guid)


def _differencing(
    parent: ImageSpec,
    parent_name: str,
    guid_byte: int,
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe a child as Windows makes them: GUIDs of its own, and two paths to its parent."""
    paths = {"absolute_win32_path": f"C:\\vm\\{parent_name}"}
    guid = same_bytes_guid(guid_byte)
    return child_of(
        parent,
        f".\\{parent_name}",
        locator=locator_of(parent, f".\\{parent_name}", **paths),
        file_write_guid=guid,
        data_write_guid=guid,
        **fields,
    )


def _child(
    base: ImageSpec | None = None,
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> Callable[[Path], ImageSpec]:
    """Write a child of a full parent; its chunk has a sector bitmap, as Windows makes them."""

    def write(folder: Path) -> ImageSpec:
        parent = base or _full_base()
        parent.write(folder / BASE)
        defaults = {"blocks": {1: Block()}, "bitmaps": {0: BitmapSpec()}}
        return _written(folder, _differencing(parent, BASE, 0x66, **(defaults | fields)))

    return write


def _three_layers(folder: Path) -> ImageSpec:
    base = _full_base()
    base.write(folder / BASE)
    partial = BlockState.PARTIALLY_PRESENT
    blocks = {1: Block(), 2: Block(partial, sector_bits=range(1024))}
    middle = _differencing(base, BASE, 0x77, tag="middle", blocks=blocks)
    middle.write(folder / MIDDLE)
    blocks = {2: Block(partial, sector_bits=range(512)), 3: Block()}
    return _written(folder, _differencing(middle, MIDDLE, 0x66, blocks=blocks))


def _wrong_parent(folder: Path) -> ImageSpec:
    spec = _child()(folder)
    other = _full_base()
    other.data_write_guid = same_bytes_guid(0x99)
    other.write(folder / BASE)
    return spec


SCATTERED_SECTORS = [0, 1, 3, 8, *range(100, 900), 2047]

CASES = [
    Case("dynamic disk", _single(), "right"),
    Case("fixed disk", _fixed, "right"),
    Case("fixed disk larger than a chunk (4.25 GiB)", _fixed_beyond_a_chunk, "right"),
    Case(
        "blocks out of file order, reads across block borders",
        _single(blocks={index: Block() for index in (2, 0, 3, 1)}),
        "right",
        read_size=640 * KIB,
    ),
    Case(
        "4096-byte logical sectors",
        _single(logical_sector_size=4096),
        "right",
    ),
    Case("child with whole blocks", _child(), "right"),
    Case("the same without a sector bitmap", _child(bitmaps={}), "right"),
    Case(
        "child with blocks present in part",
        _child(
            blocks={1: Block(BlockState.PARTIALLY_PRESENT, sector_bits=SCATTERED_SECTORS)},
        ),
        "right",
    ),
    Case(
        "ZERO block in the child over data in the parent",
        _child(blocks={0: Block(), 1: Block(BlockState.ZERO)}),
        "right",
    ),
    Case("three layers", _three_layers, "right"),
    Case(
        "child with smaller blocks than the parent",
        _child(_full_base(block_size=2 * MIB), block_size=MIB),
        "right",
    ),
    Case(
        "child with larger blocks than the parent",
        _child(_full_base(), block_size=2 * MIB),
        "right",
    ),
    Case(
        "child larger than the parent",
        _child(_full_base(), virtual_disk_size=SIZE + 2 * MIB),
        "unknown",
    ),
    Case(
        "child smaller than the parent",
        _child(_full_base(), virtual_disk_size=SIZE - MIB),
        "right",
    ),
    Case(
        "parent of another identity must be refused",
        _wrong_parent,
        "refuses",
        must_refuse=True,
    ),
    Case("updates in the log, source unchanged", _dirty, "right"),
    Case(
        "two identical headers",
        _single(headers=[HeaderSpec(sequence_number=7), HeaderSpec(sequence_number=7)]),
        "right",
    ),
    Case(
        "current header overwritten with zeros",
        _single(patches={HEADER_2: bytes(SECTOR_OF_FILE)}),
        "right",
    ),
    Case(
        "both headers fail their checksum: must be refused",
        _single(
            headers=[
                HeaderSpec(sequence_number=1, checksum=0xDEADBEEF),
                HeaderSpec(sequence_number=2, checksum=0xDEADBEEF),
            ]
        ),
        "refuses",
        must_refuse=True,
    ),
    Case(
        "first region table overwritten with zeros",
        _single(patches={REGION_TABLE_1: bytes(SECTOR_OF_FILE)}),
        "refuses",
    ),
    Case("unknown optional metadata", _unknown_item(0), "right"),
    Case(
        "unknown required metadata must be refused",
        _unknown_item(IS_REQUIRED),
        "accepts",
        must_refuse=True,
    ),
    Case("truncated file must be refused", _truncated, "hangs", must_refuse=True),
    Case(
        "block at file offset 0 must be refused",
        _single(blocks={0: Block(file_offset=0), 2: Block()}),
        "WRONG",
        must_refuse=True,
    ),
    Case(
        "two blocks in one place must be refused",
        _single(
            blocks={
                0: Block(content=0x5A, file_offset=8 * MIB),
                2: Block(content=0x5A, file_offset=8 * MIB),
            }
        ),
        "accepts",
        must_refuse=True,
    ),
]
