"""The state file of a converted image: where it may lie, what it replaces, when it is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec, make_dirty
from tests.support.files import names_in
from tests.support.partitions import gpt_disk
from vhdx2raw import LogPolicy, NullSink, OutputError, convert
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.operations import convert as conversion
from vhdx2raw.operations.state import read_state

DISK = ImageSpec(2 * MIB, MIB, {0: Block()})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    DISK.write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


@pytest.mark.slow
def test_state_replaces_an_older_one(source: Path, tmp_path: Path) -> None:
    for _ in range(2):
        convert(source, tmp_path / "x.img", state=tmp_path / "state.json", force=True)
    state = read_state(str(tmp_path / "state.json"))
    assert state.holds.data_write_guid == str(DISK.data_write_guid)
    assert state.program.startswith("vhdx2raw ")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("disk.vhdx", "is the input itself"),
        ("notes.txt", "exists already, and is no state file"),
        ("x.img", "is the image itself"),
        ("missing/state.json", "cannot be written: No such file"),
        (".", "is a directory"),
    ],
)
def test_place_that_cannot_take_a_state_is_refused_before_the_work(
    source: Path, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / "notes.txt").write_text("important")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=problem):
        convert(source, tmp_path / "x.img", state=f"{tmp_path}/{name}")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_state_that_cannot_be_kept_leaves_a_complete_image(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: str, _state: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(conversion, "write_state", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        convert(source, tmp_path / "x.img", state=tmp_path / "state.json")
    assert "is complete, but there is no state file" in caught.value.__notes__[0]
    is_right = (tmp_path / "x.img").read_bytes() == DISK.expected_disk(0, 2 * MIB)
    assert is_right


def test_a_partition_has_no_state(tmp_path: Path) -> None:
    gpt_disk().write(tmp_path / "disk.vhdx")
    with (
        open_disk(tmp_path / "disk.vhdx") as disk,
        pytest.raises(ValueError, match="a partition is no version of a disk"),
    ):
        convert(disk.partition(1), tmp_path / "x.img", state=tmp_path / "state.json")
    assert names_in(tmp_path) == ["disk.vhdx"]


@pytest.mark.parametrize("options", [{"salvage": True}, {"log_policy": LogPolicy.IGNORE}], ids=str)
def test_what_is_no_version_has_no_state(tmp_path: Path, options: dict[str, Any]) -> None:
    make_dirty(ImageSpec(2 * MIB, MIB), DISK).write(tmp_path / "disk.vhdx")
    with (
        open_disk(tmp_path / "disk.vhdx", OpenOptions(**options)) as disk,
        pytest.raises(ValueError, match="is no version of a disk"),
    ):
        convert(disk, tmp_path / "x.img", state=tmp_path / "state.json")
    assert names_in(tmp_path) == ["disk.vhdx"]


def test_source_that_may_change_has_no_state(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need one version of a disk"):
        convert(source, tmp_path / "x.img", state=tmp_path / "state.json", allow_changed=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"state": "state.json"}, "has no state"), ({"update": True}, "needs the path")],
)
def test_sink_that_cannot_be_read_has_no_state(
    source: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        convert(source, NullSink(), **options)


def test_image_is_on_stable_storage_before_its_state(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    convert(source, tmp_path / "x.img", sync=False, state=tmp_path / "state.json")
    assert any("x.img" in name for name in synced)
