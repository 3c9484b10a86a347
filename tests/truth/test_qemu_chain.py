"""7-Zip as the second truth for chains, and qemu-img for dirty logs.

7-Zip replays no log, gives less data where a child is larger than its parent, does not open a disk
of an odd number of sectors, and takes files of the same size and FileWriteGuid for one. qemu-img
replays a log only into the file, so it gets a copy, and it reads no child at all.
"""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builder import (
    GOLDEN_RAW_SHA256,
    MIB,
    Block,
    BlockState,
    ImageSpec,
    child_of,
    golden_g2,
    make_dirty,
    same_bytes_guid,
)
from tests.support.chains import Row as ChainRow
from tests.support.chains import read_chain, table_7_4
from tests.support.files import sha256_of, write_files
from tests.support.logs import Refusal, table_7_3
from tests.support.logs import Row as LogRow
from tests.support.peers import convert_repaired_copy, needs_program
from vhdx2raw.errors import ImageError
from vhdx2raw.vhdx.image import open_image

PAGE = 4096
CHILD_STATES = [0, 1, 2, 3, 6, 7, 7, 7]
ROOT_STATES = [0, 2, 3, 6, 6, 6]


@pytest.fixture
def seven_zip() -> Callable[[Path], bytes]:
    """Give what reads a whole disk by 7-Zip."""
    needs_program("7zz")

    def read(path: Path) -> bytes:
        command = ["7zz", "x", "-so", "-tvhdx", str(path)]
        done = subprocess.run(command, check=False, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    return read


def assert_same(ours: bytes, theirs: bytes) -> None:
    # Not in one assert: pytest would print the difference of megabytes.
    assert len(ours) == len(theirs)
    is_same = ours == theirs
    assert is_same


# -- 7-Zip -----------------------------------------------------------------------------------


def readable_by_both() -> list[ChainRow]:
    """Give the lines of table 7.4 that this package and 7-Zip both have to read."""
    return [row for row in table_7_4() if row.seven_zip == "ok" and row.refusal is None]


def test_most_lines_of_table_7_4_can_be_compared() -> None:
    assert len(readable_by_both()) == 12


@pytest.mark.parametrize("row", readable_by_both(), ids=lambda row: row.case)
def test_7_zip_agrees_on_table_7_4(
    row: ChainRow, seven_zip: Callable[[Path], bytes], tmp_path: Path
) -> None:
    path = write_files(tmp_path, row.files)
    assert_same(read_chain(path), seven_zip(path))


def some_sectors(choose: random.Random, count: int) -> list[int]:
    """Choose the present sectors of a block: a few, or stretches of them."""
    if choose.random() < 0.5:
        return choose.sample(range(count), choose.randint(0, 40))
    borders = sorted(choose.sample(range(count), 8))
    return [
        n for low, high in zip(borders[::2], borders[1::2], strict=True) for n in range(low, high)
    ]


def random_family(number: int) -> dict[str, ImageSpec]:
    """Describe two to four layers by a seed, none larger than the one below it."""
    choose = random.Random(number)
    sector_size = choose.choice([512, 4096])
    size = choose.randint(300, 750) * 2 * PAGE
    family: dict[str, ImageSpec] = {}
    parent: ImageSpec | None = None
    for layer in range(choose.randint(2, 4)):
        block_size = choose.choice([1, 2, 4]) * MIB
        indexes = list(range(-(-size // block_size)))
        choose.shuffle(indexes)
        blocks = {k: Block(choose.choice(CHILD_STATES if parent else ROOT_STATES)) for k in indexes}
        for block in blocks.values():
            if block.state == BlockState.PARTIALLY_PRESENT:
                block.sector_bits = some_sectors(choose, block_size // sector_size)
        if parent is None:
            spec = ImageSpec(size, block_size, blocks, logical_sector_size=sector_size)
        else:
            spec = child_of(
                parent,
                f".\\{layer - 1}.vhdx",
                virtual_disk_size=size,
                block_size=block_size,
                blocks=blocks,
                tag=f"layer{layer}",
                data_write_guid=same_bytes_guid(layer),
            )
        spec.file_write_guid = same_bytes_guid(0xA0 + layer)
        family[f"{layer}.vhdx"] = parent = spec
        size -= choose.choice([0, 0, 100]) * PAGE
    return dict(reversed(family.items()))


@pytest.mark.parametrize("number", range(20), ids=lambda number: f"seed {number}")
def test_7_zip_agrees_on_random_chains(
    number: int, seven_zip: Callable[[Path], bytes], tmp_path: Path
) -> None:
    family = random_family(number)
    path = write_files(tmp_path, family)
    ours = read_chain(path)
    assert_same(ours, seven_zip(path))
    top = next(iter(family.values()))
    assert_same(ours, top.expected_disk(0, top.virtual_disk_size))


# -- qemu-img --------------------------------------------------------------------------------


def where_qemu_agrees() -> list[LogRow]:
    return [row for row in table_7_3() if row.qemu_agrees]


def test_many_lines_of_table_7_3_can_be_compared() -> None:
    assert len(where_qemu_agrees()) == 13


@pytest.mark.parametrize("row", where_qemu_agrees(), ids=lambda row: row.case)
def test_qemu_img_agrees_on_table_7_3(row: LogRow, tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    row.spec.write(path)
    theirs = convert_repaired_copy(path, tmp_path)
    if isinstance(row.outcome, Refusal):
        assert theirs is None
        with pytest.raises(ImageError) as caught:
            open_image(path)
        assert caught.value.finding.rule == row.outcome.rule
    else:
        assert theirs is not None
        assert_same(read_chain(path), theirs.read_bytes())


def test_qemu_img_agrees_on_golden_g2(tmp_path: Path) -> None:
    path = tmp_path / "g2.vhdx"
    golden_g2().write(path)
    theirs = convert_repaired_copy(path, tmp_path)
    assert theirs is not None
    assert_same(read_chain(path), theirs.read_bytes())
    assert sha256_of(theirs) == GOLDEN_RAW_SHA256["g2"]


@pytest.mark.parametrize("number", range(12), ids=lambda number: f"seed {number}")
def test_qemu_img_agrees_on_random_dirty_disks(number: int, tmp_path: Path) -> None:
    """Entries are not wrapped between each other, which qemu-img gets wrong."""
    choose = random.Random(number)
    block_size = choose.choice([1, 2, 8]) * MIB
    size = choose.randint(1, 4 * block_size // PAGE) * PAGE
    indexes = list(range(-(-size // block_size)))
    choose.shuffle(indexes)
    before, after = (
        ImageSpec(size, block_size, {k: Block(choose.choice(ROOT_STATES)) for k in indexes})
        for _ in range(2)
    )
    after.metadata.items.reverse()
    dirty = make_dirty(
        before,
        after,
        entry_count=choose.randint(1, 2),
        position=choose.randint(0, 240) * PAGE,
        sequence_number=choose.randint(1, 1 << 60),
    )
    path = tmp_path / "disk.vhdx"
    dirty.write(path)
    ours = read_chain(path)
    theirs = convert_repaired_copy(path, tmp_path)
    assert theirs is not None
    assert_same(ours, theirs.read_bytes())
    assert_same(ours, after.expected_disk(0, size))
