"""The dirty disk and the child among the real images, where a folder of them lies beside us."""

import io
import os
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.builder import GIB, MIB, Block, ImageSpec
from tests.support.cli import run
from tests.support.files import ZEROS, assert_same_disk, data_of, sha256_of
from tests.support.naive_reader import NaiveDisk
from tests.support.peers import convert_repaired_copy, needs_program
from tests.support.real_images import (
    CHILD,
    DIRTY,
    REAL_IMAGES,
    needs_real_images,
    unpack_real_image,
)
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.errors import ParentNotFoundError
from vhdx2raw.vhdx.image import open_image
from vhdx2raw.vhdx.layout import PayloadBlockState
from vhdx2raw.vhdx.log import LogState

PARENT_GUID = UUID("ff34003b-11ed-4cf8-a166-b2be05e20b80")
PARENT_NAME = "Generation 1_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx"
CHILD_BLOCK_SIZE = 2 * MIB

Capture = pytest.CaptureFixture[str]

pytestmark = needs_real_images


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_real_image(CHILD, tmp_path_factory.mktemp("child"))


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_real_image(DIRTY, tmp_path_factory.mktemp("dirty"))


# -- the dirty disk --------------------------------------------------------------------------


def test_dirty_disk_has_known_hash_and_stays_unchanged(
    dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    size, expected = REAL_IMAGES[DIRTY]
    flags: list[int] = []
    real_open = os.open

    def recording_open(path: str, flag: int, *rest: int, **more: int) -> int:
        if os.fspath(path) == str(dirty):
            flags.append(flag)
        return real_open(path, flag, *rest, **more)

    before = (sha256_of(dirty), dirty.stat().st_mtime_ns)
    monkeypatch.setattr(os, "open", recording_open)
    outcome = run(capfd, dirty, tmp_path / "disk.img")
    monkeypatch.undo()
    assert outcome.exit_code == 0
    [warning] = outcome.err_lines  # two blocks whose writer crashed before the BAT had them
    assert warning.startswith(f"vhdx2raw: {dirty}: warning: file at file offset 0xa00000: holds ")
    assert warning.endswith(": found 8 MiB")
    assert flags
    assert not any(flag & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) for flag in flags)
    assert (sha256_of(dirty), dirty.stat().st_mtime_ns) == before
    assert (tmp_path / "disk.img").stat().st_size == size
    assert sha256_of(tmp_path / "disk.img") == expected


def test_dirty_disk_holds_one_entry_among_stale_ones(dirty: Path) -> None:
    """Section 4.5: seven entries, one of this session, which adds the last of 18 blocks."""
    with open_chain(dirty) as chain:
        assert chain.child.log.state is LogState.REPLAYED
        assert chain.child.log.entry_count == 1
        present = sum(
            run.block_count
            for run in chain.child.bat.iter_runs(0, chain.child.geometry.payload_block_count)
            if run.state == PayloadBlockState.FULLY_PRESENT
        )
        assert present == 18


def test_qemu_img_agrees_on_the_dirty_disk(dirty: Path, tmp_path: Path, capfd: Capture) -> None:
    ours, theirs = tmp_path / "ours", convert_repaired_copy(dirty, tmp_path)
    assert theirs is not None
    assert run(capfd, dirty, ours).exit_code == 0
    assert_same_disk(ours, theirs)


# -- the child -------------------------------------------------------------------------------


def built_parent(child: Path) -> ImageSpec:
    """Describe a disk that the child takes for its parent: data below its blocks and beside."""
    blocks = {k: Block() for k in (0, 1, 100, 8191)}
    for start in present_blocks(child)[:12]:
        blocks[start // MIB] = Block()
    return ImageSpec(8 * GIB, MIB, blocks, tag="parent", data_write_guid=PARENT_GUID)


def present_blocks(child: Path) -> list[int]:
    """Give the virtual offsets of the partially present blocks of the child."""
    with open_image(child) as image:
        return [
            block * CHILD_BLOCK_SIZE
            for run in image.bat.iter_runs(0, image.geometry.payload_block_count)
            if run.state == PayloadBlockState.PARTIALLY_PRESENT
            for block in range(run.first_block, run.end_block)
        ]


def test_child_without_parent_names_the_parent(child: Path) -> None:
    with pytest.raises(ParentNotFoundError) as caught, open_chain(child):
        pass
    assert caught.value.path == str(child)
    message = caught.value.message
    assert message.startswith(f"its parent cannot be used: expected .\\{PARENT_NAME} or ")
    assert f"with the DataWriteGuid {PARENT_GUID}; tried " in message
    assert message.endswith(f"; tried {child.parent / PARENT_NAME}: does not exist")


def test_child_without_its_parent_ends_with_code_6(
    child: Path, tmp_path: Path, capfd: Capture
) -> None:
    outcome = run(capfd, child, tmp_path / "disk.img")
    assert outcome.exit_code == 6
    assert outcome.err_lines[0].startswith(
        f"vhdx2raw: {child}: its parent cannot be used: expected "
    )
    assert outcome.err_lines[1] == (
        "vhdx2raw: hint: name the parent with --parent FILE, or its folder with --parent-dir DIR"
    )
    assert not (tmp_path / "disk.img").exists()


def test_child_with_built_parent_reads_as_two_others(
    child: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Found beside it by the expected name, and again when it is named."""
    needs_program("7zz")
    parent = tmp_path / "vm" / PARENT_NAME
    parent.parent.mkdir()
    built_parent(child).write(parent)
    beside = parent.parent / child.name
    beside.symlink_to(child)
    found, named = tmp_path / "found.img", tmp_path / "named.img"
    assert run(capfd, beside, found).exit_code == 0
    assert run(capfd, "--parent", parent, child, named).exit_code == 0
    assert_same_disk(found, named)
    assert_equals_naive_disk(found, child, parent)
    assert_equals_7_zip(found, beside)


def assert_equals_naive_disk(raw: Path, child: Path, parent: Path) -> None:
    """Compare around the borders of every block of the child, and some sectors within."""
    disk = NaiveDisk([child, parent])
    assert raw.stat().st_size == disk.size
    compared = 0
    with raw.open("rb") as file:
        for start in present_blocks(child):
            for place in (start - 700, start + 77_777, start + CHILD_BLOCK_SIZE - 3000):
                offset = max(0, place)
                length = min(6000, disk.size - offset)
                is_same = os.pread(file.fileno(), length, offset) == disk.read(offset, length)
                assert is_same, hex(offset)
                compared += 1
    assert compared == 96


def assert_equals_7_zip(raw: Path, source: Path) -> None:
    """Compare every byte with what 7-Zip writes to a pipe.

    Gigabytes of zeros take seconds if the holes of `raw` are not read, the pipe is large, and no
    buffer is made anew.
    """
    data = dict(data_of(raw))
    command = ["7zz", "x", "-so", "-tvhdx", str(source)]
    theirs = bytearray(MIB)
    size = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pipesize=MIB // 4
    ) as program:
        assert isinstance(program.stdout, io.BufferedReader)
        assert program.stderr is not None
        while count := program.stdout.readinto(theirs):
            ours = data.pop(size, ZEROS)[:count]
            is_same = theirs.startswith(ours) and len(ours) == count
            assert is_same, f"in the MiB from {size:#x} on"
            size += count
        assert program.stderr.read() == b""
    assert program.returncode == 0
    assert size == raw.stat().st_size
    assert data == {}
