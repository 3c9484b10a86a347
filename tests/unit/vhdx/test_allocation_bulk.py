"""Entries that are looked at together: the same counts and findings as one by one."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from vhdx2raw.findings import Findings
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx import allocation
from vhdx2raw.vhdx.image import read_image
from vhdx2raw.vhdx.layout import PayloadBlockState
from vhdx2raw.vhdx.log import LogPolicy
from vhdx2raw.vhdx.space import PAGE_BITS, SpaceMap

BLOCKS = 96
FIRST = 4
"""MiB of the file that the header, the log and the tables take."""


def write_disk(path: Path, entries: list[int], block_size: int = MIB) -> None:
    """Write a disk whose BAT holds `entries`, in a file that has space for all its blocks."""
    spec = ImageSpec(BLOCKS * block_size, block_size, {0: Block(content=0)})
    spec.write(path)
    place = spec.block_file_offset(0)
    assert place == FIRST * MIB
    with path.open("r+b") as file:
        file.truncate(place + 2 * BLOCKS * block_size)
        at = file.read(FIRST * MIB).index(struct.pack("<Q", place | 6))
        file.seek(at)
        file.write(struct.pack(f"<{BLOCKS}Q", *entries))


def read(path: Path) -> tuple[dict[PayloadBlockState, int], list[str]]:
    findings = Findings(lenient=True)
    with FileSource(path) as source:
        image = read_image(source, LogPolicy.REPLAY, findings)
        return image.allocation.block_counts, [str(found) for _, found in findings.reported]


def shuffled(seed: int, block_size: int = MIB) -> list[int]:
    places = [FIRST * MIB + index * block_size for index in range(BLOCKS)]
    random.Random(seed).shuffle(places)
    return [place | 6 for place in places]


def spoil(entries: list[int], seed: int) -> list[int]:
    chosen = random.Random(seed)
    for _ in range(chosen.randrange(4)):
        index = chosen.randrange(BLOCKS)
        entries[index] = chosen.choice(
            [
                0,
                1,
                2,
                5,
                4,
                6,
                entries[index] | 1 << chosen.randrange(3, 20),
                entries[chosen.randrange(BLOCKS)],
                (1 << 40) | 6,
                (MIB * chosen.randrange(1, 8)) | 6,
            ]
        )
    return entries


@pytest.mark.parametrize("block_size", [MIB, 2 * MIB])
@pytest.mark.parametrize("seed", range(12))
def test_findings_are_the_same_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, block_size: int
) -> None:
    path = tmp_path / "disk.vhdx"
    write_disk(path, spoil(shuffled(seed, block_size), seed), block_size)
    together = read(path)
    monkeypatch.setattr(allocation, "MIN_BULK_COUNT", 1000)
    assert together == read(path)
    assert sum(together[0].values()) == BLOCKS


def test_blocks_in_random_order_are_checked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk.vhdx"
    write_disk(path, shuffled(1))
    checked: list[Any] = []
    monkeypatch.setattr(allocation._Walk, "_check_run", lambda _, run: checked.append(run))
    assert read(path) == ({PayloadBlockState.FULLY_PRESENT: BLOCKS}, [])
    assert checked == []


def test_two_blocks_in_one_place_are_found_among_many(tmp_path: Path) -> None:
    entries = shuffled(2)
    entries[90] = entries[10]
    path = tmp_path / "disk.vhdx"
    write_disk(path, entries)
    counts, [problem] = read(path)
    assert counts == {PayloadBlockState.FULLY_PRESENT: BLOCKS}
    assert "payload block 90" in problem
    assert "payload block 10 lies" in problem


def test_single_units_are_claimed_up_to_one_that_is_taken() -> None:
    space = SpaceMap()
    assert space.claim_each([5, 3, PAGE_BITS, PAGE_BITS + 7, 9]) == 5
    assert space.claim_each([4, 3 * PAGE_BITS, PAGE_BITS + 7, 11]) == 2
    assert space.claim(11, 1), "what comes after a taken one is left alone"
    assert not space.claim(4, 1)
    assert not space.claim(3, 1)
