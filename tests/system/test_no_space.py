"""No space for the output: one line, a hint, exit code 8, and no file."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, ImageSpec
from tests.support.cli import MODULE, run, run_program
from tests.support.files import names_in
from tests.support.peers import run_as_superuser

DISK = ImageSpec(4 * MIB, MIB, {index: Block() for index in (2, 0, 3)})
SPACE = MIB
NO_SPACE = ["cannot be written: No space left on device", "make room, or write to another place"]
TOO_LARGE = [
    "cannot be written: File too large",
    "this file system cannot hold a file of this length; write to another one",
]


def lines_for(name: str | Path, problem: str, hint: str) -> list[str]:
    return [f"vhdx2raw: {name}: {problem}", f"vhdx2raw: hint: {hint}"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.vhdx"
    DISK.write(path)
    return path


@pytest.fixture
def small_place(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with space for 1 MiB: a file system of its own, which takes the superuser."""
    folder = tmp_path / "small"
    folder.mkdir()
    run_as_superuser("mount", "-t", "tmpfs", "-o", f"size={SPACE // KIB}k", "none", folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("words", [[], ["-S", "0"]], ids=["sparse", "everything"])
def test_full_file_system_is_reported_once(
    disk: Path, small_place: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    outcome = run(capfd, *words, disk, small_place / "out.img")
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err_lines == lines_for(small_place / "out.img", *NO_SPACE)
    assert names_in(small_place) == []
    assert os.statvfs(small_place).f_bavail * os.statvfs(small_place).f_frsize == SPACE


def test_full_file_system_keeps_the_old_file(
    disk: Path, small_place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (small_place / "out.img").write_bytes(b"precious")
    assert run(capfd, "--force", disk, small_place / "out.img").exit_code == 8
    assert names_in(small_place) == ["out.img"]
    assert (small_place / "out.img").read_bytes() == b"precious"


def test_holes_need_no_space(
    tmp_path: Path, small_place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A disk four times as large as the place fits if what it stores does."""
    spec = ImageSpec(4 * MIB, MIB, {0: Block(content={KIB: b"data"}), 2: Block(content=0)})
    spec.write(tmp_path / "sparse.vhdx")
    outcome = run(capfd, tmp_path / "sparse.vhdx", small_place / "out.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert (small_place / "out.img").stat().st_size == 4 * MIB


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Give a function that limits the length of files that this process can write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_too_large_for_file_system_is_refused(
    disk: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The final length is set first, so that this does not come after hours of work."""

    def write_nothing(*_arguments: object) -> int:
        raise AssertionError("the work has begun")

    folder = tmp_path / "output"
    folder.mkdir()
    monkeypatch.setattr(os, "pwrite", write_nothing)
    limited(SPACE)
    outcome = run(capfd, disk, folder / "out.img")
    limited(resource.RLIM_INFINITY)
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err_lines == lines_for(folder / "out.img", *TOO_LARGE)
    assert names_in(folder) == []


def test_size_limit_met_midway_keeps_nothing(
    disk: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    real_ftruncate = os.ftruncate

    def set_length_and_limit(descriptor: int, length: int) -> None:
        real_ftruncate(descriptor, length)
        limited(SPACE)

    monkeypatch.setattr(os, "ftruncate", set_length_and_limit)
    outcome = run(capfd, disk, folder / "out.img")
    limited(resource.RLIM_INFINITY)
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err_lines == lines_for(folder / "out.img", *TOO_LARGE)
    assert names_in(folder) == []


def test_stream_over_size_limit_is_reported_once(disk: Path, tmp_path: Path) -> None:
    """In a process of its own, as a shell with `ulimit -f` would start it."""
    limit = ("sh", "-c", 'ulimit -f 1024; exec "$@"', "sh")
    with (tmp_path / "out.img").open("wb") as stream:
        outcome = run_program(disk, "-", command=(*limit, *MODULE), stdout=stream)
    assert outcome.exit_code == 8
    assert outcome.err_lines == lines_for("standard output", *TOO_LARGE)
