"""The virtual disk as a file: every way to read it gives the bytes of the description."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vhdx2raw
from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.files import open_files
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk

SIZE = 5 * MIB + 1536


def disk_spec() -> ImageSpec:
    """Describe a child with data of its own, of its parent, and zeros."""
    base = ImageSpec(SIZE, MIB, {4: Block(), 0: Block(), 2: Block(), 5: Block()})
    blocks = {
        2: Block(BlockState.ZERO),
        0: Block(BlockState.PARTIALLY_PRESENT, sector_bits={0, 3, 2047}),
        3: Block(),
    }
    return child_of(base, ".\\base.vhdx", blocks=blocks)


SPEC = disk_spec()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    assert isinstance(SPEC.parent, ImageSpec)
    SPEC.parent.write(folder / "base.vhdx")
    SPEC.write(folder / "child.vhdx")
    return folder / "child.vhdx"


@pytest.fixture
def disk(path: Path) -> Iterator[VirtualDisk]:
    with vhdx2raw.open(path) as opened:
        yield opened


def test_it_reads_as_a_whole(disk: VirtualDisk) -> None:
    assert disk.size == SIZE
    assert disk.read() == SPEC.expected_disk(0, SIZE)
    assert disk.read() == b""


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, SIZE + MIB), length=st.integers(0, 2 * MIB))
def test_pread_returns_any_range_up_to_the_end(path: Path, offset: int, length: int) -> None:
    with vhdx2raw.open(path) as disk:
        expected = SPEC.expected_disk(offset, min(length, SIZE - offset)) if offset < SIZE else b""
        assert disk.pread(length, offset) == expected


def test_pread_does_not_move_the_position(disk: VirtualDisk) -> None:
    disk.seek(512)
    disk.pread(10, 4096)
    assert disk.tell() == 512


def test_threads_read_without_disturbing_each_other(disk: VirtualDisk) -> None:
    places = [(index * 70_001 % SIZE, 90_000) for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda place: disk.pread(place[1], place[0]), places))
    for (offset, length), piece in zip(places, pieces, strict=True):
        assert piece == SPEC.expected_disk(offset, min(length, SIZE - offset))


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_negative_numbers_are_refused(disk: VirtualDisk, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="size and offset must not be negative"):
        disk.pread(length, offset)


def test_it_seeks_like_a_file(disk: VirtualDisk) -> None:
    assert disk.readable()
    assert disk.seekable()
    assert not disk.writable()
    assert disk.seek(-512, os.SEEK_END) == SIZE - 512
    assert disk.read(4096) == SPEC.expected_disk(SIZE - 512, 512)
    assert disk.seek(1024) == 1024
    assert disk.seek(1000, os.SEEK_CUR) == disk.tell() == 2024
    assert disk.read(3) == SPEC.expected_disk(2024, 3)
    assert disk.seek(2 * SIZE) == 2 * SIZE
    assert disk.read(1) == b""


def test_impossible_positions_are_refused(disk: VirtualDisk) -> None:
    with pytest.raises(ValueError, match="negative seek position -1"):
        disk.seek(-1)
    with pytest.raises(ValueError, match=r"invalid whence \(9\)"):
        disk.seek(0, 9)


def test_it_works_below_a_buffer(path: Path) -> None:
    with io.BufferedReader(vhdx2raw.open(path), 1000) as buffered:
        buffered.seek(MIB - 7)
        assert buffered.read(2000) == SPEC.expected_disk(MIB - 7, 2000)


def test_it_fills_buffers_of_other_items_than_bytes(disk: VirtualDisk) -> None:
    words = memoryview(bytearray(4096)).cast("Q")
    assert disk.readinto(words) == 4096
    assert words.tobytes() == SPEC.expected_disk(0, 4096)


def test_disk_shows_metadata_and_extents(disk: VirtualDisk) -> None:
    assert disk.metadata.has_parent
    assert disk.warnings == ()
    extents = list(disk.extents())
    assert sum(extent.length for extent in extents) == SIZE
    assert {extent.kind for extent in extents} == {ExtentKind.DATA, ExtentKind.ZERO}
    assert disk.chain.child.source.name.endswith("child.vhdx")


def test_closed_disk_is_not_watched(path: Path) -> None:
    disk = vhdx2raw.open(path)
    disk.close()
    for ask in (disk.watch, disk.require_unchanged):
        with pytest.raises(ValueError, match="the disk is closed"):
            ask()


def test_closed_disk_refuses_to_read(path: Path) -> None:
    before = open_files()
    disk = vhdx2raw.open(path)
    disk.close()
    disk.close()
    assert open_files() == before
    for read in (disk.tell, lambda: disk.seek(0), lambda: disk.pread(1, 0), disk.extents):
        with pytest.raises(ValueError, match="the disk is closed"):
            read()


def test_a_parent_can_be_named(path: Path, tmp_path: Path) -> None:
    child = tmp_path / "alone.vhdx"
    child.write_bytes(path.read_bytes())
    with pytest.raises(vhdx2raw.ParentNotFoundError, match="its parent cannot be used"):
        vhdx2raw.open(child)
    with vhdx2raw.open(child, parents=[path.parent / "base.vhdx"]) as disk:
        assert disk.pread(512, MIB) == SPEC.expected_disk(MIB, 512)
    with vhdx2raw.open(child, parent_dirs=[path.parent]) as disk:
        assert disk.pread(512, MIB) == SPEC.expected_disk(MIB, 512)


def test_nothing_can_be_written_to_a_disk(path: Path) -> None:
    with vhdx2raw.open(path) as disk:
        assert not disk.writable()
        with pytest.raises(io.UnsupportedOperation, match="only read"):
            disk.write(b"data")
