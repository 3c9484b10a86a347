"""A conversion of a base warns of checkpoints beside it, and names the newest one (R123)."""

import os
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.builder import ImageSpec, child_of
from tests.support.chains import base_disk
from tests.support.cli import run
from vhdx2raw.disk import checkpoints

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which has a base."""
    monkeypatch.chdir(tmp_path)
    base_disk().write(tmp_path / "vm.vhdx")
    return tmp_path


def write_child(parent: ImageSpec, parent_name: str, path: str, number: int) -> ImageSpec:
    """Write a checkpoint whose times rise with its number."""
    child = child_of(parent, f".\\{parent_name}", data_write_guid=UUID(int=number))
    child.write(path)
    os.utime(path, (number, number))
    return child


def warnings_of(capfd: Capture, name: str, *words: str) -> list[str]:
    outcome = run(capfd, *words, name, "null:")
    assert outcome.exit_code == 0
    return outcome.err_lines


@pytest.mark.slow
def test_a_base_alone_has_no_warning(folder: Path, capfd: Capture) -> None:
    assert warnings_of(capfd, "vm.vhdx") == []


def test_the_newest_of_a_chain_is_named(folder: Path, capfd: Capture) -> None:
    first = write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 1)
    write_child(first, "vm_1.avhdx", "vm_2.avhdx", 2)
    (warning,) = warnings_of(capfd, "vm.vhdx")
    assert warning == (
        "vhdx2raw: vm.vhdx: warning: file: is not the newest state: checkpoints in the same folder"
        " were made from it; the newest one is vm_2.avhdx"
    )
    assert "newest one is vm_2.avhdx" in warnings_of(capfd, "vm_1.avhdx")[0]
    assert warnings_of(capfd, "vm_2.avhdx") == []
    assert warnings_of(capfd, "vm.vhdx", "-q") == []


def test_of_two_branches_the_newer_one_is_named(folder: Path, capfd: Capture) -> None:
    write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 5)
    write_child(base_disk(), "vm.vhdx", "vm_2.avhdx", 4)
    assert "newest one is vm_1.avhdx" in warnings_of(capfd, "vm.vhdx")[0]


def test_strict_refuses_an_old_state(folder: Path, capfd: Capture) -> None:
    write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 1)
    assert run(capfd, "--strict", "vm.vhdx", "null:").exit_code == 5


def test_what_is_no_checkpoint_of_it_is_passed_over(folder: Path, capfd: Capture) -> None:
    other = base_disk()
    other.data_write_guid = UUID(int=77)
    write_child(other, "other.vhdx", "other_1.avhdx", 1)
    (folder / "text.avhdx").write_text("text")
    (folder / "folder.avhdx").mkdir()
    os.mkfifo("fifo.avhdx")
    write_child(base_disk(), "vm.vhdx", "disk-of-its-own.vhdx", 1)
    assert warnings_of(capfd, "vm.vhdx") == []


def test_two_files_that_name_each_other_end_the_search(folder: Path, capfd: Capture) -> None:
    first = write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 1)
    write_child(first, "vm_2.avhdx", "vm_2.avhdx", 2)
    assert "newest one is vm_2.avhdx" in warnings_of(capfd, "vm.vhdx")[0]


def test_no_more_files_than_a_bound_are_read(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_CHECKPOINTS", 2)
    for number in range(4):
        (folder / f"a{number}.avhdx").write_text("text")
    write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 1)
    assert "newest one is vm_1.avhdx" in warnings_of(capfd, "vm.vhdx")[0]


def test_a_folder_that_cannot_be_listed_is_no_failure(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    write_child(base_disk(), "vm.vhdx", "vm_1.avhdx", 1)
    monkeypatch.setattr(os, "scandir", refuse)
    assert warnings_of(capfd, "vm.vhdx") == []
