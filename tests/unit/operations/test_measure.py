"""What a raw image needs: known of crafted disks, and never less than a conversion takes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.builder import KIB, MIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import PARTIAL, RELATIVE, base_disk
from tests.support.cli import small_disk
from tests.support.files import write_files
from tests.support.random_chains import RandomChain, chains, write_chain
from tests.support.raw import break_file
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.operations.measure import Measurement, measure

FINE = range(0, 2048, 9)
"""Sectors of a block; every page of it but a few has one, and no more than two."""


def pages_of(sectors: range, sector_size: int = 512) -> int:
    return len({sector * sector_size // 4096 for sector in sectors})


def measured(path: Path, *, salvage: bool = False) -> Measurement:
    with open_chain(path, OpenOptions(salvage=salvage)) as chain:
        return measure(chain)


@pytest.mark.parametrize("size", [512, MIB, 5 * MIB + 512])
def test_an_empty_disk_needs_its_length_and_no_space(tmp_path: Path, size: int) -> None:
    ImageSpec(size, MIB).write(tmp_path / "disk.vhdx")
    assert measured(tmp_path / "disk.vhdx") == (size, size, 0)


def test_only_stored_blocks_take_up_space(tmp_path: Path) -> None:
    """Not those that are known to be zeros."""
    states = [BlockState.ZERO, BlockState.UNMAPPED, BlockState.UNDEFINED]
    blocks = {1: Block()} | {index: Block(state) for index, state in enumerate(states, 2)}
    ImageSpec(8 * MIB, MIB, blocks).write(tmp_path / "disk.vhdx")
    assert measured(tmp_path / "disk.vhdx") == (8 * MIB, 8 * MIB, MIB)


def test_the_last_page_may_be_a_part_of_one(tmp_path: Path) -> None:
    ImageSpec(MIB + 512, MIB, {0: Block(), 1: Block()}).write(tmp_path / "disk.vhdx")
    assert measured(tmp_path / "disk.vhdx").sparse == MIB + 4 * KIB


def test_holes_of_the_file_take_up_no_space(tmp_path: Path) -> None:
    """As most of a fixed disk has."""
    ImageSpec(8 * MIB, MIB, {n: Block(content=0) for n in range(8)}).write(tmp_path / "disk.vhdx")
    assert measured(tmp_path / "disk.vhdx") == (8 * MIB, 8 * MIB, 0)


@pytest.mark.parametrize("sectors", [range(8, 16), range(7, 17), range(1), range(2047, 2048)])
def test_sectors_of_a_child_take_up_whole_pages(tmp_path: Path, sectors: range) -> None:
    base = base_disk(blocks={})
    child = child_of(base, RELATIVE, blocks={2: Block(PARTIAL, sector_bits=sectors)})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    assert measured(path).sparse == pages_of(sectors) * 4 * KIB


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_scattered_sectors_take_up_whole_pages(tmp_path: Path, sector_size: int) -> None:
    base = base_disk(blocks={}, logical_sector_size=sector_size)
    fine = range(0, MIB // sector_size, 9)
    child = child_of(base, RELATIVE, blocks={2: Block(PARTIAL, sector_bits=fine)})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    assert measured(path).sparse == pages_of(fine, sector_size) * 4 * KIB


def test_what_child_and_parent_share_is_counted_once(tmp_path: Path) -> None:
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={2: Block(PARTIAL, sector_bits=FINE)})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    assert measured(path).sparse == 4 * MIB


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(chain=chains())
def test_no_conversion_takes_up_more(chain: RandomChain) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = write_chain(chain, folder)[0]
        needed = measured(path)
        result = convert(path, folder / "disk.img", clone=False)
        assert needed.required == needed.fully_allocated == (folder / "disk.img").stat().st_size
        assert result.written_bytes <= needed.sparse <= needed.required + 4 * KIB
        convert(path, folder / "full.img", sparse_size=0)
        assert (folder / "full.img").stat().st_size == needed.fully_allocated


def test_no_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = small_disk()
    disk.write(tmp_path / "disk.vhdx")
    places = [disk.block_file_offset(index) for index in (0, 2, 4)]
    break_file(monkeypatch, tmp_path / "disk.vhdx", *((place, place + MIB) for place in places))
    assert measured(tmp_path / "disk.vhdx").required == disk.virtual_disk_size


def test_what_a_damaged_disk_lost_takes_up_no_space(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    ImageSpec(4 * MIB, MIB, {0: Block(), 1: Block()}).write(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - MIB)
    assert measured(path, salvage=True) == (4 * MIB, 4 * MIB, MIB)
