"""Checkpoints to apply: a base, and a child that changes it in every way."""

from __future__ import annotations

from typing import Any

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, same_bytes_guid


def checkpoint(
    parent: ImageSpec,
    number: int,
    blocks: dict[int, Block],
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe the checkpoint of a parent, in a file that is called after its number."""
    fields = {"virtual_disk_size": parent.virtual_disk_size, "tag": f"snap{number}"} | fields
    return child_of(
        parent,
        f".\\{parent.tag}.vhdx",
        block_size=MIB,
        blocks=blocks,
        data_write_guid=same_bytes_guid(number + 1),
        **fields,
    )


BASE = ImageSpec(
    3 * MIB,
    MIB,
    {index: Block() for index in range(3)},
    tag="base",
    data_write_guid=same_bytes_guid(1),
)
CHILD = checkpoint(
    BASE,
    1,
    {
        0: Block(BlockState.PARTIALLY_PRESENT, sector_bits={7, 8, 9, 2047}),
        1: Block(BlockState.ZERO),
        2: Block(BlockState.FULLY_PRESENT, content=0),
        3: Block(BlockState.FULLY_PRESENT),
    },
    virtual_disk_size=4 * MIB,
    tag="child",
)
