"""Damaged disks that the host cannot read: what is lost is as little as possible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block
from tests.support.chains import BASE_NAME
from tests.support.files import write_files
from tests.support.logs import disk_with, entry, mark
from tests.support.raw import break_file, raw_of
from tests.support.salvage import ALL, FIRST, THIRD, Ranges, salvage, with_lost, wrong_sectors
from tests.support.seeded_faults.disks import BAT, child, disk, family
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.disk.walk import iter_extents

Bad = Sequence[tuple[int, int]]
"""(start, end) of what cannot be read of a file."""
BLOCK = 4 * MIB
"""Where the first block of `disk` lies in its file."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("bad", "lost"),
    [
        ([(BLOCK, BLOCK + 1)], [(0, 512)]),
        ([(BLOCK + 511, BLOCK + 513)], [(0, 1024)]),
        ([(BLOCK + 4096, BLOCK + 8192)], [(4096, 4096)]),
        ([(BLOCK + MIB - 1, BLOCK + MIB)], [(MIB - 512, 512)]),
        ([(BLOCK, BLOCK + MIB)], [FIRST]),
        (
            [(BLOCK + 7, BLOCK + 8), (BLOCK + 99999, BLOCK + 100_000), (5 * MIB, 5 * MIB + 600)],
            [(0, 512), (99840, 512), (2 * MIB, 1024)],
        ),
        ([(BLOCK, 6 * MIB)], [FIRST, THIRD]),
    ],
)
def test_only_unreadable_sectors_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Bad, lost: Ranges, workers: int
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    break_file(monkeypatch, path, *bad)
    salvaged = salvage(path, workers=workers)
    assert salvaged.lost == list(lost)
    assert salvaged.damage == []
    assert wrong_sectors(salvaged.data, with_lost(raw_of(disk()), lost)) == []
    with open_disk(path) as opened, pytest.raises(OSError, match="Input/output error"):
        convert(opened, RecordingSink())


def test_unreadable_parent_is_lost_where_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = child()
    path = write_files(tmp_path, family(spec))
    break_file(monkeypatch, tmp_path / BASE_NAME, (BLOCK, BLOCK + 4096))
    lost = [(0, 512), (1536, 4096 - 1536)]
    salvaged = salvage(path)
    assert salvaged.lost == lost
    assert wrong_sectors(salvaged.data, with_lost(raw_of(spec), lost)) == []


@pytest.mark.parametrize(
    ("what", "bad", "rules"),
    [
        ("a header", [(64 * KIB, 65 * KIB)], []),
        ("both headers", [(64 * KIB, 65 * KIB), (128 * KIB, 129 * KIB)], ["R10"]),
        ("a region table", [(192 * KIB, 193 * KIB)], []),
        ("the first sector", [(0, 512)], ["R1"]),
    ],
)
def test_unreadable_header_section_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, bad: Bad, rules: Sequence[str]
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    break_file(monkeypatch, path, *bad)
    salvaged = salvage(path)
    assert (salvaged.damage, salvaged.lost) == (list(rules), [])
    assert wrong_sectors(salvaged.data, raw_of(disk())) == []


def test_blocks_whose_entries_cannot_be_read_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    break_file(monkeypatch, path, (BAT, BAT + 4096))
    salvaged = salvage(path)
    assert (salvaged.damage, salvaged.lost) == (["R52"], ALL)
    assert not any(salvaged.data)
    with pytest.raises(OSError, match="Input/output error"):
        open_chain(path).close()


@pytest.mark.slow
def test_unreadable_bat_sector_loses_only_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 entries in 512 bytes."""
    spec = disk(virtual_disk_size=200 * MIB, blocks={0: Block(), 100: Block(), 199: Block()})
    path = write_files(tmp_path, {"disk.vhdx": spec})
    break_file(monkeypatch, path, (BAT + 512, BAT + 1024))
    salvaged = salvage(path)
    assert (salvaged.damage, salvaged.lost) == (["R52"], [(64 * MIB, 64 * MIB)])


def test_a_block_whose_bitmap_cannot_be_read_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = child()
    path = write_files(tmp_path, family(spec))
    bitmap = spec.placement().bitmaps[0]
    break_file(monkeypatch, path, (bitmap, bitmap + 512))
    salvaged = salvage(path)
    assert salvaged.lost == [FIRST]
    assert wrong_sectors(salvaged.data, with_lost(raw_of(spec), [FIRST])) == []


def test_unreadable_bitmap_is_an_error_without_salvage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = child()
    path = write_files(tmp_path, family(spec))
    bitmap = spec.placement().bitmaps[0]
    with open_chain(path) as chain:
        break_file(monkeypatch, path, (bitmap, bitmap + 512))
        with pytest.raises(OSError, match="Input/output error"):
            list(iter_extents(chain))


def test_a_log_that_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk_with(entry(0, 1, mark(0, 1)))})
    break_file(monkeypatch, path, (MIB, MIB + 4096))
    salvaged = salvage(path)
    assert (salvaged.damage, salvaged.lost) == (["R31"], [])
    assert not any(salvaged.data)


def test_shrinking_file_has_lost_its_end(tmp_path: Path) -> None:
    """The change as such is allowed here."""
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    with open_disk(path, OpenOptions(salvage=True)) as opened:
        os.truncate(path, 5 * MIB + 1024)
        sink = RecordingSink()
        result = convert(opened, sink, allow_changed=True)
    lost = [(2 * MIB + 1024, MIB - 1024)]
    assert list(result.lost_ranges) == lost
    assert [finding.rule for _, finding in result.warnings] == ["R119"]
    assert wrong_sectors(sink.contents(4 * MIB), with_lost(raw_of(disk()), lost)) == []
