"""Lists of what is lost of a disk, and the map file that ddrescue reads."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import MIB, TIB
from tests.support.peers import needs_program
from tests.support.salvage import Ranges
from vhdx2raw.disk.salvage import LostRanges, iter_mapfile


def test_lost_ranges_are_merged_in_order(tmp_path: Path) -> None:
    lost = LostRanges()
    for start, length in ((4096, 512), (4608, 512), (0, 512), (512, 1), (9000, 100), (9050, 20)):
        lost.add(start, length)
    assert lost.merged() == ((0, 513), (4096, 1024), (9000, 100))
    assert LostRanges().merged() == ()


def parse_mapfile(lines: Sequence[str], size: int) -> list[tuple[int, int, str]]:
    """Read a map file as strictly as its format allows, which has to be finished and complete."""
    fields = [line.split() for line in lines if not line.startswith("#")]
    position, status, current_pass = fields[0]
    assert (int(position, 0), status, int(current_pass)) == (size, "+", 1)
    blocks: list[tuple[int, int, str]] = []
    end = 0
    for start, length, kind in fields[1:]:
        assert int(start, 0) == end, "a gap, or an overlap"
        assert start.startswith("0x")
        assert length.startswith("0x")
        assert int(length, 0) > 0
        assert kind in ("+", "-")
        assert not blocks or blocks[-1][2] != kind, "two blocks that could be one"
        blocks.append((end, int(length, 0), kind))
        end += int(length, 0)
    assert end == size
    return blocks


MAPS: Sequence[tuple[Ranges, int, list[tuple[int, int, str]]]] = [
    ([], 4096, [(0, 4096, "+")]),
    ([(0, 4096)], 4096, [(0, 4096, "-")]),
    ([(512, 512)], 4096, [(0, 512, "+"), (512, 512, "-"), (1024, 3072, "+")]),
    ([(0, 512), (3584, 512)], 4096, [(0, 512, "-"), (512, 3072, "+"), (3584, 512, "-")]),
    (
        [(63 * TIB, MIB)],
        64 * TIB,
        [(0, 63 * TIB, "+"), (63 * TIB, MIB, "-"), (63 * TIB + MIB, TIB - MIB, "+")],
    ),
]


@pytest.mark.parametrize(("lost", "size", "blocks"), MAPS)
def test_map_file_lists_all_ranges(
    lost: Ranges, size: int, blocks: list[tuple[int, int, str]]
) -> None:
    assert parse_mapfile(list(iter_mapfile(lost, size)), size) == blocks


@pytest.mark.parametrize(("lost", "size", "blocks"), MAPS)
def test_ddrescue_understands_a_map_file(
    tmp_path: Path, lost: Ranges, size: int, blocks: list[tuple[int, int, str]]
) -> None:
    program = needs_program("ddrescuelog")
    path = tmp_path / "disk.map"
    path.write_text("".join(f"{line}\n" for line in iter_mapfile(lost, size)))

    def ddrescuelog(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [program, *map(str, arguments), str(path)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    shown = ddrescuelog("-t")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ddrescuelog("--done-status").returncode == (1 if lost else 0)
    listed = ddrescuelog("--block-size=512", "--list-blocks=-").stdout.split()
    sectors = [str(n) for at, length in lost for n in range(at // 512, (at + length) // 512)]
    assert listed == sectors
