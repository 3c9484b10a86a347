"""What a folder of a mounted disk answers, without FUSE: names, sizes, bytes, holes, failures."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vhdx2raw
from tests.support.builder import MIB, Block, BlockState, ImageSpec
from tests.support.partitions import PLACES, disk_with, fragmented_child, gpt_disk
from tests.support.raw import break_file
from vhdx2raw.operations import mount
from vhdx2raw.operations.mount import _File, _Files, _files_of, mount_disk

BASE = gpt_disk()
CHILD = fragmented_child(BASE)
HOLES = ImageSpec(9 * MIB + 512, MIB, {9: Block(), 2: Block(), 3: Block(BlockState.FULLY_PRESENT)})
DATA = [(2 * MIB, 4 * MIB), (9 * MIB, 9 * MIB + 512)]


class Folder:
    """A disk as a folder, and what it has reported."""

    def __init__(self, path: Path, **options: Any) -> None:  # noqa: ANN401 - those of `open`
        self.disk = vhdx2raw.open(path, **options)
        self.reports: list[tuple[str, str]] = []
        self.files = _Files(_files_of(self.disk), lambda: None, self.report)

    def report(self, problem: str, error: Exception | None) -> None:
        self.reports.append((problem, str(error or "")))

    def read(self, name: str, offset: int, size: int) -> bytes:
        index = self.files.open(f"/{name}", os.O_RDONLY)
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.files.read(index, offset, buffer)])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    BASE.write(tmp_path / "base.vhdx")
    CHILD.write(tmp_path / "child.vhdx")
    folder = Folder(tmp_path / "child.vhdx")
    yield folder
    folder.disk.close()


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("holes") / "disk.vhdx"
    HOLES.write(path)
    return path


def test_the_disk_and_its_partitions_are_files(folder: Folder) -> None:
    names = ["disk.img", "disk.p1.img", "disk.p2.img", "disk.p3.img"]
    assert folder.files.readdir("/", 0) == [".", "..", *names]
    sizes = [folder.files.getattr(f"/{name}")["st_size"] for name in names]
    assert sizes == [8 * MIB, *((end - first) * 512 for first, end in PLACES.values())]


def test_what_cannot_be_a_partition_is_no_file(tmp_path: Path) -> None:
    disk_with({}).write(tmp_path / "disk.vhdx")
    assert Folder(tmp_path / "disk.vhdx").files.readdir("/", 0) == [".", "..", "disk.img"]


def test_other_names_are_not_there(folder: Folder) -> None:
    for call in (folder.files.getattr, lambda path: folder.files.open(path, 0)):
        with pytest.raises(OSError, match="No such file") as error:
            call("/disk.p9.img")
        assert error.value.errno == errno.ENOENT


@settings(max_examples=50, deadline=None)
@given(offset=st.integers(0, 10 * MIB), size=st.integers(1, MIB))
def test_reads_end_with_the_file(holes: Path, offset: int, size: int) -> None:
    folder = Folder(holes)
    size = min(size, max(0, HOLES.virtual_disk_size - offset))
    expected = HOLES.expected_disk(offset, size) if size else b""
    assert folder.read("disk.img", offset, size) == expected
    folder.disk.close()


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(-1, 10 * MIB), hole=st.booleans())
def test_holes_are_found_from_anywhere(holes: Path, offset: int, *, hole: bool) -> None:
    with vhdx2raw.open(holes) as disk:
        found = _File("disk.img", disk).find(offset, hole=hole)
    size = HOLES.virtual_disk_size
    is_data = [start <= offset < end for start, end in DATA]
    if not 0 <= offset < size:
        expected = None
    elif hole:
        expected = DATA[is_data.index(True)][1] if any(is_data) else offset
    else:
        expected = next((max(start, offset) for start, end in DATA if offset < end), None)
    assert found == expected


def test_a_hole_that_is_not_there_is_refused(holes: Path) -> None:
    files = Folder(holes).files
    with pytest.raises(OSError, match="No such device or address") as error:
        files.lseek(0, HOLES.virtual_disk_size, os.SEEK_HOLE)
    assert error.value.errno == errno.ENXIO


def test_what_is_stored_is_counted(holes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = sum(end - start for start, end in DATA)
    assert Folder(holes).files.getattr("/disk.img")["st_blocks"] * 512 == stored
    monkeypatch.setattr(mount, "COUNT_SECONDS", -1)  # enough for the first hole
    rest = HOLES.virtual_disk_size - DATA[0][0]
    assert Folder(holes).files.getattr("/disk.img")["st_blocks"] * 512 == rest


def test_failure_of_the_source_is_an_error_and_a_report(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = BASE.block_file_offset(2)
    break_file(monkeypatch, Path(folder.disk.files[1]), (place, place + MIB))
    with pytest.raises(OSError, match="Input/output error") as error:
        folder.read("disk.p2.img", MIB, 4096)
    assert error.value.errno == errno.EIO
    ((problem, reason),) = folder.reports
    assert problem == "disk.p2.img: 4096 bytes at 0x100000 cannot be read"
    assert "Input/output error" in reason


def test_fault_of_the_program_is_an_error_and_a_report(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(_File, "read_into", fail)
    with pytest.raises(OSError, match="Input/output error"):
        folder.read("disk.img", 0, 512)
    assert folder.reports == [("disk.img: 512 bytes at 0x0 cannot be read", "a fault")]


def test_tables_that_cannot_be_read_count_as_stored(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "no table")

    monkeypatch.setattr(vhdx2raw.VirtualDisk, "stretches", fail)
    assert folder.files.getattr("/disk.img")["st_blocks"] * 512 == 8 * MIB


def test_change_is_reported_once_and_lasts(folder: Folder) -> None:
    path = Path(folder.disk.files[0])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 512)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            folder.read("disk.img", 0, 512)
    ((problem, reason),) = folder.reports
    assert problem == "nothing more can be read"
    assert "child.vhdx: file: was changed while it was read" in reason


def test_no_device_is_a_failure_of_the_host(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "DEVICE", str(tmp_path / "none"))
    with pytest.raises(
        vhdx2raw.MountError, match="FUSE is not in the kernel: there is no"
    ) as error:
        mount_disk(folder.disk, tmp_path, mounted=lambda: None, report=folder.report)
    assert "modprobe fuse" in error.value.hint
