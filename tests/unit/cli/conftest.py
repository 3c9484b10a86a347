"""The folder in which the commands run."""

from pathlib import Path

import pytest

from tests.support.cli import small_disk
from tests.support.files import write_files
from tests.support.maps import family


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def disk(folder: Path) -> str:
    """Give the name of a good image in the current folder: disk.vhdx."""
    small_disk().write("disk.vhdx")
    return "disk.vhdx"


@pytest.fixture
def disks(folder: Path, disk: str) -> Path:
    """Give the current folder, which holds disk.vhdx and the chain top.vhdx."""
    write_files(folder, family())
    return folder
