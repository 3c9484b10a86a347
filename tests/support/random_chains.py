"""Random chains of images, small enough that thousands of ranges can be read in a minute."""

import random
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.support.builder import (
    MIB,
    Block,
    BlockState,
    Content,
    DataDescriptorSpec,
    Descriptor,
    ImageSpec,
    ZeroDescriptorSpec,
    append_entries,
    child_of,
    make_dirty,
    same_bytes_guid,
)
from tests.support.builder.placement import stored_piece

MAX_LAYERS = 4
MAX_SIZE_MIB = 6
PAGE = 4096
NAMES = ("top", "second", "third", "fourth")
ROOT_STATES = [6, 6, 6, 6, 0, 1, 2, 3]
CHILD_STATES = [7, 7, 7, 7, 7, 0, 0, 6, 1, 2, 3]


@dataclass(frozen=True)
class RandomChain:
    """A chain to write.

    Attributes:
        specs: What the disks hold, child first.
        files: What is to be written, some of it with a dirty log.
        dirty: Which of them are dirty.
    """

    specs: tuple[ImageSpec, ...]
    files: tuple[ImageSpec, ...]
    dirty: tuple[bool, ...]


def write_chain(chain: RandomChain, folder: Path) -> list[Path]:
    """Write the files of a chain, and give their paths, child first."""
    paths = [folder / f"{spec.tag}.vhdx" for spec in chain.specs]
    for path, file in zip(paths, chain.files, strict=True):
        file.write(path)
    return paths


def numbers(end: int) -> st.SearchStrategy[int]:
    """Give numbers below `end`, all alike: those of Hypothesis itself are mostly small."""
    return st.integers(0, 2**32 - 1).map(lambda number: number * 0x9E3779B1 % 2**40 % end)


@st.composite
def sector_sets(draw: st.DrawFn, sector_count: int) -> Collection[int]:
    """Give the sectors of a block that are present: few, many, in stretches or in a pattern."""
    kind = draw(st.sampled_from(["few", "all but few", "stretches", "pattern", "noise", "none"]))
    some = st.sets(numbers(sector_count), max_size=12)
    if kind == "few":
        return draw(some)
    if kind == "all but few":
        return set(range(sector_count)) - draw(some)
    if kind == "stretches":
        borders = sorted(draw(some))
        return {n for a, b in zip(borders[::2], borders[1::2], strict=False) for n in range(a, b)}
    if kind == "pattern":
        step, first = draw(st.integers(2, 17)), draw(st.integers(0, 30))
        return range(min(first, sector_count), sector_count, step)
    if kind == "noise":
        noise = random.Random(draw(st.integers(0, 2**32 - 1)))
        return set(noise.sample(range(sector_count), sector_count // 2))
    return ()


@st.composite
def blocks(draw: st.DrawFn, block_size: int, sector_size: int, *, is_child: bool) -> Block:
    """Give a block in any state; also where no one may look there can be a bitmap."""
    state = draw(st.sampled_from(CHILD_STATES if is_child else ROOT_STATES))
    content: Content = draw(st.sampled_from([None, None, None, 0, 0x5A]))
    block = Block(state, content)
    if is_child and (state == BlockState.PARTIALLY_PRESENT or draw(st.integers(0, 4)) == 0):
        block.sector_bits = draw(sector_sets(block_size // sector_size))
    return block


@st.composite
def images(draw: st.DrawFn, number: int, sector_size: int, parent: ImageSpec | None) -> ImageSpec:
    """Give one layer; the number 0 is the top."""
    block_size = draw(st.sampled_from([MIB, 2 * MIB, 4 * MIB]))
    most = draw(st.integers(1, MAX_SIZE_MIB)) * MIB // sector_size
    missing = draw(st.one_of(numbers(most), st.integers(0, 9)))
    size = max(1, most - missing) * sector_size
    order = draw(st.permutations(range(-(-size // block_size))))
    placed = {
        index: draw(blocks(block_size, sector_size, is_child=parent is not None)) for index in order
    }
    fields = {
        "virtual_disk_size": size,
        "block_size": block_size,
        "blocks": placed,
        "tag": NAMES[number],
        "data_write_guid": same_bytes_guid(number + 1),
        "leave_block_allocated": draw(st.booleans()),
    }
    if parent is None:
        return ImageSpec(logical_sector_size=sector_size, **fields)  # type: ignore[arg-type]
    return child_of(parent, f".\\{parent.tag}.vhdx", **fields)


@st.composite
def chains(draw: st.DrawFn) -> RandomChain:
    """Give a chain of one to four layers."""
    sector_size = draw(st.sampled_from([512, 512, 4096]))
    count = draw(st.integers(1, MAX_LAYERS))
    specs: list[ImageSpec] = []
    for number in reversed(range(count)):
        specs.insert(0, draw(images(number, sector_size, specs[0] if specs else None)))
    dirty = tuple(draw(st.booleans()) for _ in specs)
    files = [
        draw(dirty_images(spec)) if is_dirty else spec
        for spec, is_dirty in zip(specs, dirty, strict=True)
    ]
    return RandomChain(tuple(specs), tuple(files), dirty)


@st.composite
def dirty_images(draw: st.DrawFn, spec: ImageSpec) -> ImageSpec:
    """Give the same disk with some of its tables, and some of its payload, in the log only."""
    before = deepcopy(spec)
    before.parent = spec.parent
    for index in list(before.blocks):
        if draw(st.booleans()):
            del before.blocks[index]
    if draw(st.integers(0, 3)) == 0:
        before.metadata.items.reverse()
    dirty = make_dirty(
        before,
        spec,
        entry_count=draw(st.integers(1, 3)),
        position=draw(st.integers(0, 255)) * PAGE,
        sequence_number=draw(st.integers(1, 1 << 62)),
    )
    stored = [index for index, block in spec.blocks.items() if block.owns_space]
    batches: list[list[Descriptor]] = [
        draw(payload_updates(spec, dirty, draw(st.sampled_from(stored))))
        for _ in range(draw(st.integers(0, 2)) if stored else 0)
    ]
    append_entries(dirty.log, batches, padding_sectors=draw(st.integers(0, 2)))
    return dirty


@st.composite
def payload_updates(
    draw: st.DrawFn, spec: ImageSpec, dirty: ImageSpec, index: int
) -> list[Descriptor]:
    """Spoil some pages of a block in the file, and have the log bring them back."""
    block = spec.blocks[index]
    start = spec.block_file_offset(index)
    updates: list[Descriptor] = []
    pages = draw(st.sets(st.integers(0, spec.block_size // PAGE - 1), min_size=1, max_size=6))
    for page in sorted(pages):
        dirty.patches[start + page * PAGE] = b"\xbd" * PAGE
        right = stored_piece(spec, index, block, page * PAGE, PAGE)
        if right is None:
            updates.append(ZeroDescriptorSpec(start + page * PAGE, PAGE))
        else:
            updates.append(DataDescriptorSpec(start + page * PAGE, right))
    return updates


@st.composite
def ranges(draw: st.DrawFn, chain: RandomChain) -> tuple[int, int]:
    """Give a range of the disk, often with an end near the border of something."""
    size = chain.specs[0].virtual_disk_size
    units = [512, 4096, *(spec.block_size for spec in chain.specs)]
    borders = [spec.virtual_disk_size for spec in chain.specs]
    near = st.builds(
        lambda unit, number, shift: (unit * number + shift) % (size + 1),
        st.sampled_from(units),
        numbers(64),
        st.integers(-1, 1),
    )
    end = st.builds(
        lambda at, shift: (at + shift) % (size + 1),
        st.sampled_from(borders),
        st.integers(-600, 600),
    )
    start = draw(st.one_of(numbers(size), near, end))
    length = draw(st.one_of(numbers(3000), st.sampled_from([1, 512, 4096, 20_000])))
    return start, min(length, size - start)
