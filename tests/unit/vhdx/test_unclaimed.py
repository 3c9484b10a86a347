"""Space that belongs to nothing though it holds data: what is left of a wiped table (R122)."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import base_disk
from tests.support.cli import run, small_disk
from vhdx2raw.findings import Findings
from vhdx2raw.source.file_object import open_source
from vhdx2raw.vhdx.image import read_image
from vhdx2raw.vhdx.log import LogPolicy

Capture = pytest.CaptureFixture[str]
DATA = b"\xa5" * MIB
BAT = 3 * MIB


def warnings_of(path: Path) -> list[str]:
    """Give what is said of unclaimed space."""
    findings = Findings()
    with open_source(path) as source:
        read_image(source, LogPolicy.REPLAY, findings)
    return [str(finding) for finding in findings.warnings if finding.rule == "R122"]


def wiped(path: Path) -> Path:
    """Write a disk of three blocks, and zeros over its table."""
    small_disk().write(path)
    with path.open("r+b") as file:
        file.seek(BAT)
        file.write(bytes(64 * KIB))
    return path


def extended(path: Path, *pieces: bytes | int) -> Path:
    """Write a sound disk, and after its end data or holes of some bytes."""
    small_disk().write(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(-(-size // MIB) * MIB)
        file.seek(0, os.SEEK_END)
        for piece in pieces:
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                file.seek(piece, os.SEEK_CUR)
        file.truncate()
    return path


def test_a_wiped_table_is_a_warning_with_how_much_is_lost(tmp_path: Path) -> None:
    (warning,) = warnings_of(wiped(tmp_path / "disk.vhdx"))
    assert "holds data that belongs to no block and no structure" in warning
    assert warning.startswith("file at file offset 0x")
    assert "found 2 MiB" in warning


def test_sound_disks_have_none(tmp_path: Path) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    assert warnings_of(tmp_path / "disk.vhdx") == []


@pytest.mark.parametrize("state", [0, 1, 2, 3, 5])
def test_a_block_that_keeps_its_offset_belongs_to_the_table(tmp_path: Path, state: int) -> None:
    path = tmp_path / "disk.vhdx"
    small_disk().write(path)
    with path.open("r+b") as file:
        file.seek(BAT)
        entry = int.from_bytes(file.read(8), "little")
        file.seek(BAT)
        file.write((entry & ~7 | state).to_bytes(8, "little"))
    assert entry & 7 == BlockState.FULLY_PRESENT
    assert warnings_of(path) == []


def test_a_sector_bitmap_that_keeps_its_offset_belongs_to_the_table(tmp_path: Path) -> None:
    path = tmp_path / "child.vhdx"
    child = child_of(base_disk(), "base.vhdx")
    child.blocks[0] = Block(BlockState.PARTIALLY_PRESENT, content=7)
    child.write(path)
    findings = Findings()
    with open_source(path) as source:
        image = read_image(source, LogPolicy.REPLAY, findings)
        index = image.geometry.sector_bitmap_bat_index(0)
        places = [image.bat.entry_file_offset(number) for number in (0, index)]
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            entry = int.from_bytes(file.read(8), "little")
            file.seek(place)
            file.write((entry & ~7).to_bytes(8, "little"))
    assert warnings_of(path) == []


ENDS = {
    "data": ([DATA], 1),
    "less than a MiB": ([DATA[:-1]], 0),
    "a hole": ([4 * MIB], 0),
    "stored zeros": ([bytes(MIB)], 0),
    "data after a hole": ([8 * MIB, DATA], 1),
    "one byte after zeros": ([bytes(2 * MIB), bytes(MIB - 1), b"x"], 1),
}


@pytest.mark.parametrize("name", ENDS)
def test_space_after_the_end_counts_if_it_holds_data(tmp_path: Path, name: str) -> None:
    pieces, count = ENDS[name]
    assert len(warnings_of(extended(tmp_path / "disk.vhdx", *pieces))) == count  # type: ignore[misc]


def test_a_hole_is_not_counted(tmp_path: Path) -> None:
    (warning,) = warnings_of(extended(tmp_path / "disk.vhdx", 64 * MIB, DATA))
    assert "found 1 MiB" in warning


@pytest.mark.slow
def test_of_much_space_only_a_sample_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = extended(tmp_path / "disk.vhdx", 512 * MIB)
    read: list[int] = []
    with open_source(path) as source:
        kept = source.pread

        def pread(file_offset: int, length: int) -> bytes:
            read.append(length if file_offset > 16 * MIB else 0)
            return kept(file_offset, length)

        monkeypatch.setattr(source, "pread", pread)
        monkeypatch.setattr("vhdx2raw.host.find_data", lambda _, start, end: (start, end))
        read_image(source, LogPolicy.REPLAY, Findings())
    assert 32 * MIB <= sum(read) <= 80 * MIB


def test_space_that_cannot_be_read_is_no_failure(tmp_path: Path) -> None:
    path = extended(tmp_path / "disk.vhdx", DATA)
    size = path.stat().st_size
    with open_source(path) as source:
        kept = source.pread

        def pread(file_offset: int, length: int) -> bytes:
            if file_offset >= size - MIB:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return kept(file_offset, length)

        source.pread = pread  # type: ignore[method-assign]
        findings = Findings()
        read_image(source, LogPolicy.REPLAY, findings)
    assert findings.warnings == ()


def test_a_file_object_is_read_as_a_whole(tmp_path: Path) -> None:
    path = wiped(tmp_path / "disk.vhdx")
    with path.open("rb") as file:
        findings = Findings()
        read_image(open_source(file), LogPolicy.REPLAY, findings)
    assert [finding.rule for finding in findings.warnings] == ["R122"]


COMMANDS = {
    "convert": ("disk.vhdx", "null:"),
    "hash": ("hash", "disk.vhdx"),
    "measure": ("measure", "disk.vhdx"),
    "map": ("map", "disk.vhdx"),
    "compare": ("compare", "disk.vhdx", "disk.vhdx"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_warns(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    wiped(tmp_path / "disk.vhdx")
    outcome = run(capfd, *words)
    assert outcome.exit_code == 0
    assert outcome.err_lines[0].startswith("vhdx2raw: disk.vhdx: warning: file at file offset 0x")
    silent = run(capfd, *words, "-q")
    assert (silent.exit_code, silent.err) == (0, "")


@pytest.mark.parametrize("command", ["info", "check"])
def test_an_answer_for_people_has_the_warning(tmp_path: Path, capfd: Capture, command: str) -> None:
    outcome = run(capfd, command, wiped(tmp_path / "disk.vhdx"))
    assert outcome.exit_code == 0
    assert "belongs to no block and no structure" in outcome.out


def test_strict_refuses_it(tmp_path: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--strict", wiped(tmp_path / "disk.vhdx"), "null:")
    assert outcome.exit_code == 5
    assert "belongs to no block" in outcome.err_lines[0]


def test_units_of_a_disk_in_order_are_free_as_a_whole(tmp_path: Path) -> None:
    """A fixed-size file with nothing in its table."""
    spec = ImageSpec(64 * MIB, MIB, {})
    spec.write(tmp_path / "disk.vhdx")
    with (tmp_path / "disk.vhdx").open("r+b") as file:
        file.truncate(128 * MIB)
        file.seek(100 * MIB)
        file.write(DATA)
    (warning,) = warnings_of(tmp_path / "disk.vhdx")
    assert "file at file offset 0x6400000" in warning
