"""What can be salvaged of a damaged disk, and what is lost of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB
from tests.support.files import open_files
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.operations.convert import ConversionResult

Ranges = Sequence[tuple[int, int]]
"""(offset, length) each, in order."""
ALL = [(0, 4 * MIB)]
FIRST, SECOND, THIRD, FOURTH = ((index * MIB, MIB) for index in range(4))
"""The blocks of `disk`; the first and the third are stored, at 4 and 5 MiB of the file."""


@dataclass(frozen=True)
class Salvaged:
    """What was salvaged, and the rules that the damage breaks."""

    data: bytes
    result: ConversionResult
    damage: list[str]

    @property
    def lost(self) -> list[tuple[int, int]]:
        return list(self.result.lost_ranges)


def salvage(path: Path, *, workers: int = 1, sequential: bool = False, **options: Any) -> Salvaged:  # noqa: ANN401
    """Salvage a disk."""
    before = open_files()
    with open_disk(path, OpenOptions(salvage=True, **options)) as disk:
        damage = [str(finding.rule) for _, finding in disk.chain.damage]
        sink = RecordingSink(sequential=sequential, makes_holes=not sequential)
        result = convert(disk, sink, workers=workers)
        data = sink.contents(disk.size)
    assert open_files() == before
    return Salvaged(data, result, damage)


def with_lost(data: bytes | bytearray, lost: Ranges) -> bytearray:
    """Give a disk with zeros in some ranges."""
    expected = bytearray(data)
    for offset, length in lost:
        expected[offset : offset + length] = bytes(length)
    return expected


def wrong_sectors(data: bytes, expected: bytes | bytearray) -> list[int]:
    assert len(data) == len(expected)
    if data == expected:
        return []
    return [at for at in range(0, len(data), 512) if data[at:][:512] != expected[at:][:512]]


def assert_salvaged(
    path: Path, expected: bytes | bytearray, lost: Ranges, rules: Sequence[str]
) -> None:
    """Salvage a disk that a strict reader refuses, in every way, and see what becomes of it."""
    with pytest.raises(Vhdx2rawError):
        open_chain(path).close()
    salvaged = salvage(path)
    assert salvaged.damage == list(rules)
    assert salvaged.lost == list(lost)
    assert salvaged.result.lost_bytes == sum(length for _, length in lost)
    assert wrong_sectors(salvaged.data, with_lost(expected, lost)) == []
    for other in (salvage(path, workers=4), salvage(path, sequential=True)):
        assert other.lost == salvaged.lost
        assert other.data == salvaged.data
    with open_disk(path, OpenOptions(salvage=True)) as opened:
        assert opened.read() == salvaged.data
        extents = [extent for extent in opened.extents() if extent.kind is ExtentKind.LOST]
    assert [(extent.virtual_offset, extent.length) for extent in extents] == salvaged.lost
