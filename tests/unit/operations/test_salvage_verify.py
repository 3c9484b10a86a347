"""A salvaged disk is verified outside of what is lost."""

import errno
import os
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import run
from vhdx2raw.operations.compare import verify
from vhdx2raw.source.file import FileSource

Capture = pytest.CaptureFixture[str]
SPEC = ImageSpec(4 * MIB, MIB, {0: Block(), 1: Block(), 3: Block()})


def write_cut(folder: Path) -> Path:
    """Write a disk whose last block is cut off."""
    path = folder / "disk.vhdx"
    SPEC.write(path)
    os.truncate(path, path.stat().st_size - MIB)
    return path


def test_losses_are_no_failure(tmp_path: Path, capfd: Capture) -> None:
    path = write_cut(tmp_path)
    outcome = run(capfd, "--salvage", "--verify", path, tmp_path / "out.img")
    assert outcome.exit_code == 3
    assert (tmp_path / "out.img").read_bytes()[: 3 * MIB] == SPEC.expected_disk(0, 3 * MIB)


def test_what_is_wrong_elsewhere_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil_and_verify(disk: vhdx2raw.VirtualDisk, path: str, **options: object) -> None:
        with Path(path).open("r+b") as file:
            file.seek(MIB + 5)
            file.write(b"\0spoiled")
        verify(disk, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("vhdx2raw.operations.writing.verify", spoil_and_verify)
    with (
        vhdx2raw.open(write_cut(tmp_path), salvage=True) as disk,
        pytest.raises(vhdx2raw.OutputError, match="is not what was written"),
    ):
        vhdx2raw.convert(disk, tmp_path / "out.img", verify=True)
    assert not (tmp_path / "out.img").exists()


@pytest.mark.parametrize("heals", [False, True])
def test_what_reads_differently_the_next_time_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, heals: bool
) -> None:
    path = tmp_path / "disk.vhdx"
    SPEC.write(path)
    place = SPEC.block_file_offset(1) + 64 * 1024
    real_fill = FileSource._fill
    verifying: list[bool] = []

    def fill(source: FileSource, file_offset: int, buffer: memoryview) -> int:
        is_bad = file_offset <= place < file_offset + len(buffer)
        if source.name == str(path) and is_bad and bool(verifying) != heals:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_fill(source, file_offset, buffer)

    def verify_later(*arguments: object, **options: object) -> None:
        verifying.append(True)
        verify(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FileSource, "_fill", fill)
    monkeypatch.setattr("vhdx2raw.operations.writing.verify", verify_later)
    with vhdx2raw.open(path, salvage=True) as disk:
        result = vhdx2raw.convert(disk, tmp_path / "out.img", verify=True, clone=False)
    assert bool(result.lost_ranges) == heals
    assert (tmp_path / "out.img").read_bytes()[:MIB] == SPEC.expected_disk(0, MIB)
