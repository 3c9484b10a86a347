"""The images that are spoiled: small, sparse, and one of every kind that a reader treats apart."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fuzz.fields import Field, fields_of
from tests.fuzz.sparse import PAGE, SparseFile
from tests.support.builder import (
    GIB,
    IS_USER,
    KIB,
    MIB,
    Block,
    BlockState,
    Content,
    DataDescriptorSpec,
    Descriptor,
    ImageSpec,
    LogEntrySpec,
    MetadataItemSpec,
    RegionEntrySpec,
    ZeroDescriptorSpec,
    address_pattern,
    append_entries,
    child_of,
    linkage_text,
    make_dirty,
    parent_locator,
    same_bytes_guid,
)

PARTIAL = BlockState.PARTIALLY_PRESENT


@dataclass(frozen=True)
class Member:
    """One file of a base, before anything is spoiled."""

    spec: ImageSpec
    file: SparseFile
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Base:
    """A family of images by their file names, the child first."""

    name: str
    members: Mapping[str, Member]


def spots(index: int, block_size: int, tag: str = "base") -> Content:
    """Give three pages of a block that name their address; the rest is a hole."""
    places = (0, block_size // 2, block_size - PAGE)
    return {at: address_pattern(index * block_size + at, PAGE, tag) for at in places}


def blocks_with(
    states: Mapping[int, int], block_size: int = MIB, tag: str = "base"
) -> dict[int, Block]:
    """Give blocks in these states, by their index."""
    return {
        index: Block(state, spots(index, block_size, tag)) if state > 5 else Block(state)
        for index, state in states.items()
    }


def small_root(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a dynamic disk with blocks in several states and a short last block."""
    blocks = blocks_with({2: 6, 0: 6, 1: 0, 3: 3, 4: 6})
    sizes = {"virtual_disk_size": 4 * MIB + KIB, "block_size": MIB}
    return ImageSpec(**(sizes | fields), blocks=blocks)


def fixed() -> dict[str, ImageSpec]:
    blocks = blocks_with(dict.fromkeys(range(3), 6))
    return {"disk.vhdx": ImageSpec(3 * MIB, MIB, blocks, leave_block_allocated=True)}


def dirty_root() -> ImageSpec:
    """Describe a root whose tables and some of whose payload stand in a log that wraps."""
    after = small_root()
    before = deepcopy(after)
    del before.blocks[2], before.blocks[3]
    dirty = make_dirty(before, after, entry_count=2, position=254 * PAGE, sequence_number=9)
    place = after.block_file_offset(0)
    stale = address_pattern(0, PAGE, "stale")
    dirty.patches[place + PAGE] = stale
    dirty.patches[place] = stale
    updates: list[Descriptor] = [
        ZeroDescriptorSpec(place + PAGE, 3 * PAGE),
        DataDescriptorSpec(place, address_pattern(0, PAGE)),
    ]
    append_entries(dirty.log, [updates, []], padding_sectors=1)
    return dirty


def dirty() -> dict[str, ImageSpec]:
    return {"disk.vhdx": dirty_root()}


def grown() -> dict[str, ImageSpec]:
    """Give a disk whose log moves the metadata and grows the file, beside stale entries."""
    before = small_root(log_length=2 * MIB, metadata_offset=4 * MIB, bat_offset=5 * MIB)
    after = deepcopy(before)
    after.metadata_offset = 3 * MIB
    dirty = make_dirty(before, after, sequence_number=(1 << 32) - 1, position=100 * PAGE)
    dirty.log.entries.insert(0, LogEntrySpec(20 * PAGE, 7, [ZeroDescriptorSpec(4 * MIB, PAGE)]))
    end = dirty.resolved_file_size
    for entry in dirty.log.entries[1:]:
        entry.last_file_offset = end + 4 * MIB
    return {"disk.vhdx": dirty}


def differencing() -> dict[str, ImageSpec]:
    base = small_root()
    return {"child.vhdx": child_disk(base), "base.vhdx": base}


def child_disk(base: ImageSpec, **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe a child with sectors of its own in every pattern."""
    keys = {
        "parent_linkage": linkage_text(base.data_write_guid),
        "parent_linkage2": linkage_text(same_bytes_guid(0)),
        "relative_path": ".\\base.vhdx",
        "volume_path": "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx",
        "absolute_win32_path": "C:\\disks\\base.vhdx",
    }
    bits: dict[int, Any] = {0: {0, 7, 8, 2047}, 2: range(0, 200, 3), 4: {1}}
    blocks = {i: Block(PARTIAL, spots(i, MIB, "child"), sector_bits=b) for i, b in bits.items()}
    blocks |= {1: Block(content=spots(1, MIB, "child")), 3: Block(2)}
    return child_of(base, "", **({"locator": parent_locator(keys), "blocks": blocks} | fields))


def chain_of_three() -> dict[str, ImageSpec]:
    """Give a dirty child of a child with other block sizes, of a dirty root."""
    root = dirty_root()
    middle = child_of(
        root,
        ".\\root.vhdx",
        block_size=2 * MIB,
        data_write_guid=same_bytes_guid(0x77),
        blocks={1: Block(PARTIAL, spots(1, 2 * MIB, "mid"), sector_bits=range(2000, 2300, 7))},
        virtual_disk_size=5 * MIB,
    )
    after = child_of(
        middle,
        ".\\middle.vhdx",
        block_size=4 * MIB,
        blocks={0: Block(PARTIAL, spots(0, 4 * MIB, "top"), sector_bits=range(3901, 4300, 2))},
        virtual_disk_size=6 * MIB,
    )
    before = deepcopy(after)
    before.blocks.clear()
    top = make_dirty(before, after)
    return {"top.vhdx": top, "middle.vhdx": middle, "root.vhdx": root}


def large_sectors() -> dict[str, ImageSpec]:
    base = ImageSpec(
        4 * MIB + 4096, 2 * MIB, blocks_with({1: 6, 0: 1, 2: 6}, 2 * MIB), logical_sector_size=4096
    )
    bits = range(0, 512, 5)
    child = child_of(
        base, ".\\base.vhdx", blocks={1: Block(PARTIAL, spots(1, 2 * MIB), sector_bits=bits)}
    )
    return {"child.vhdx": child, "base.vhdx": base}


def several_chunks() -> dict[str, ImageSpec]:
    """Give a child of 9 GiB with blocks on both sides of the chunk borders."""
    size = 9 * GIB + 512
    base = ImageSpec(size, MIB, blocks_with({0: 6, 4095: 6, 4096: 6, 8191: 2, 9216: 6}))
    some = {0, 5, 2047}
    blocks = {
        4095: Block(PARTIAL, spots(4095, MIB, "child"), sector_bits=some),
        4096: Block(PARTIAL, spots(4096, MIB, "child"), sector_bits=some),
        8192: Block(content=spots(8192, MIB, "child")),
    }
    return {"child.vhdx": child_of(base, ".\\base.vhdx", blocks=blocks), "base.vhdx": base}


def large_blocks() -> dict[str, ImageSpec]:
    size = 256 * MIB
    blocks = {0: Block(content=spots(0, size)), 1: Block(content=spots(1, size))}
    return {"disk.vhdx": ImageSpec(300 * MIB, size, blocks)}


def optional_things() -> dict[str, ImageSpec]:
    """Give a disk with unknown but optional regions and items, and items of users."""
    spec = small_root()
    spec.metadata.items += [
        MetadataItemSpec(same_bytes_guid(0xA1), b"unknown", flags=0),
        MetadataItemSpec(same_bytes_guid(0xA2), b"of a user", flags=IS_USER),
        MetadataItemSpec(same_bytes_guid(0xA3), b"", flags=IS_USER),
    ]
    for table in spec.region_tables:
        table.entries.append(RegionEntrySpec(same_bytes_guid(0xB1), 40 * MIB, MIB, required=0))
        table.entries.append(RegionEntrySpec(same_bytes_guid(0xB2), 41 * MIB, 9 * MIB, required=0))
    return {"disk.vhdx": spec}


BASES = {
    "dynamic": lambda: {"disk.vhdx": small_root()},
    "fixed": fixed,
    "dirty": dirty,
    "grown": grown,
    "differencing": differencing,
    "chain of three": chain_of_three,
    "large sectors": large_sectors,
    "several chunks": several_chunks,
    "large blocks": large_blocks,
    "optional things": optional_things,
}


@cache
def base(name: str) -> Base:
    """Build one of `BASES`; the files are shared, so copy what is to be changed."""
    members: dict[str, Member] = {}
    with TemporaryDirectory() as folder:
        for file_name, spec in BASES[name]().items():
            path = Path(folder, file_name)
            spec.write(path)
            members[file_name] = Member(spec, SparseFile.load(path), tuple(fields_of(spec)))
    return Base(name, members)
