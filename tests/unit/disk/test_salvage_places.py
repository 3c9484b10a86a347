"""A present block without a place in the file is lost, whichever part of it is asked for (R78)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains, ranges
from vhdx2raw import NullSink, convert
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk

Places = set[tuple[int, int]]
"""Which blocks have no place: number of the layer, index of the block."""
SALVAGE = OpenOptions(salvage=True)


def owner_of(specs: tuple[ImageSpec, ...], offset: int) -> tuple[int, int] | None:
    """Give layer and block that hold the sector at an offset, by the description alone."""
    for number, spec in enumerate(specs):
        if offset >= spec.virtual_disk_size:
            return None
        index, start = divmod(offset, spec.block_size)
        block = spec.blocks.get(index, Block(BlockState.NOT_PRESENT))
        sector = start // spec.logical_sector_size
        is_here = block.sector_bits is None or sector in set(block.sector_bits)
        if block.state == BlockState.FULLY_PRESENT or (
            block.state == BlockState.PARTIALLY_PRESENT and is_here
        ):
            return number, index
        if block.state in (BlockState.UNDEFINED, BlockState.ZERO, BlockState.UNMAPPED):
            return None
    return None


def lost_sectors(specs: tuple[ImageSpec, ...], lost: Places) -> list[int]:
    """Give the offsets of the sectors that stand in blocks without a place."""
    top = specs[0]
    return [
        offset
        for offset in range(0, top.virtual_disk_size, top.logical_sector_size)
        if owner_of(specs, offset) in lost
    ]


def write_without_places(specs: tuple[ImageSpec, ...], lost: Places, folder: Path) -> Path:
    """Write a chain in which these blocks keep their state and lose their place."""
    for number, spec in enumerate(specs):
        for index in (block for layer, block in lost if layer == number):
            entry = spec.geometry.payload_bat_index(index)
            spec.bat_overrides[entry] = spec.blocks[index].state
        spec.write(folder / f"{spec.tag}.vhdx")
    return folder / f"{specs[0].tag}.vhdx"


def lost_by_extents(disk: VirtualDisk, start: int, length: int, sector_size: int) -> set[int]:
    return {
        offset - offset % sector_size
        for extent in disk.extents(start, length)
        if extent.kind is ExtentKind.LOST
        for offset in (
            *range(extent.virtual_offset, extent.virtual_end, 512),
            extent.virtual_end - 1,
        )
    }


@pytest.mark.slow
@cases(25)
@given(chain=chains(), data=st.data())
def test_no_range_of_a_block_without_a_place_is_read(
    chain: RandomChain, data: st.DataObject
) -> None:
    specs = chain.specs
    stored = [
        (number, index)
        for number, spec in enumerate(specs)
        for index, block in spec.blocks.items()
        if block.owns_space
    ]
    lost = set(data.draw(st.lists(st.sampled_from(stored), max_size=6))) if stored else set()
    size, sector_size = specs[0].virtual_disk_size, specs[0].logical_sector_size
    expected = bytearray(specs[0].expected_disk(0, size))
    sectors = lost_sectors(specs, lost)
    for offset in sectors:
        expected[offset : offset + sector_size] = bytes(sector_size)
    with (
        TemporaryDirectory() as name,
        open_disk(write_without_places(specs, lost, Path(name)), SALVAGE) as disk,
    ):
        assert {finding.rule for _, finding in disk.chain.damage} == ({"R78"} if lost else set())
        for start, length in [(0, size), *(data.draw(ranges(chain)) for _ in range(12))]:
            is_right = disk.pread(length, start) == expected[start : start + length]
            assert is_right, f"{length} bytes from {start:#x} on"
            inside = [at for at in sectors if start - sector_size < at < start + length and length]
            assert sorted(lost_by_extents(disk, start, length, sector_size)) == inside
        result = convert(disk, NullSink())
        assert result.lost_bytes == len(sectors) * sector_size


@pytest.mark.parametrize("state", [BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT])
def test_child_reads_no_parent_block_without_a_place(tmp_path: Path, state: BlockState) -> None:
    """The ranges that a child of smaller blocks asks for begin in the middle of the parent's."""
    grandparent = ImageSpec(4 * MIB, 4 * MIB, {0: Block(content=0x11)}, tag="c")
    fields = {"block_size": 4 * MIB, "blocks": {0: Block(state)}, "tag": "b"}
    parent = child_of(grandparent, ".\\c.vhdx", **fields)
    child = child_of(parent, ".\\b.vhdx", block_size=MIB, blocks={1: Block(content=7)}, tag="a")
    path = write_without_places((child, parent, grandparent), {(1, 0)}, tmp_path)
    with open_disk(path, SALVAGE) as disk:
        found = [(e.kind, e.virtual_offset, e.length) for e in disk.extents()]
        assert disk.pread(4 * MIB, 0) == bytes(MIB) + b"\7" * MIB + bytes(2 * MIB)
    assert found == [
        (ExtentKind.LOST, 0, MIB),
        (ExtentKind.DATA, MIB, MIB),
        (ExtentKind.LOST, 2 * MIB, 2 * MIB),
    ]
