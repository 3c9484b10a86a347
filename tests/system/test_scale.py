"""The largest disk that the format allows takes seconds, little memory and little space."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.builder import GIB, KIB, MIB, TIB, Block, ImageSpec
from tests.support.cli import stored_zeros
from tests.support.memory import MAX_RESIDENT, run_and_measure
from tests.support.peers import needs_shared_memory

SIZE = 64 * TIB
BLOCK_COUNT = SIZE // MIB
BLOCKS = (BLOCK_COUNT - 1, 0, 12_345_678, 4096)
"""In the order of the file: the last, the first, one in the middle, the first of a chunk."""


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """Give a folder where files of 64 TiB can be: ext4 ends at 16."""
    with TemporaryDirectory(dir=needs_shared_memory()) as folder:
        yield Path(folder)


def assert_right_around(spec: ImageSpec, path: Path, offsets: list[int]) -> None:
    """Compare a little over a MiB at each of these offsets with what the disk must hold."""
    with path.open("rb") as file:
        for offset in offsets:
            start = max(0, offset - 8 * KIB)
            length = min(MIB + 16 * KIB, SIZE - start)
            is_right = os.pread(file.fileno(), length, start) == spec.expected_disk(start, length)
            assert is_right, f"wrong bytes near {offset:#x}"


def test_64_tib_disk_takes_little_time_and_memory(tmp_path: Path, memory_folder: Path) -> None:
    spec = ImageSpec(SIZE, MIB, {index: Block() for index in BLOCKS})
    spec.write(tmp_path / "disk.vhdx")
    target = memory_folder / "out.img"
    code, peak, summary = run_and_measure("--json", tmp_path / "disk.vhdx", target)
    assert code == 0
    assert peak < MAX_RESIDENT
    assert json.loads(summary)["virtual-size"] == SIZE
    assert json.loads(summary)["data-size"] == 4 * MIB
    assert target.stat().st_size == SIZE
    assert target.stat().st_blocks * 512 <= 5 * MIB
    places = [index * MIB for index in BLOCKS]
    samples = [random.Random(64).randrange(SIZE) for _ in range(20)]
    assert_right_around(spec, target, places + samples)


def test_a_long_stretch_of_data_takes_little_memory(tmp_path: Path) -> None:
    """Stored zeros, so that the test needs no space; they are read all the same."""
    spec = stored_zeros(2 * GIB)
    spec.write(tmp_path / "disk.vhdx")
    code, peak, _ = run_and_measure(
        "--json", "--no-clone", tmp_path / "disk.vhdx", tmp_path / "out.img"
    )
    assert code == 0
    assert peak < MAX_RESIDENT
    assert (tmp_path / "out.img").stat().st_blocks == 0
