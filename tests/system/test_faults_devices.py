"""Devices and file systems that really fail: no call is faked here. Takes the superuser."""

import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, ImageSpec
from tests.support.cli import run, run_program
from tests.support.faults import Host
from tests.support.files import has_expected_bytes, names_in
from tests.support.peers import needs_mounts, run_as_superuser

DISK = ImageSpec(8 * MIB, MIB, {index: Block() for index in range(8)})
BAD_BLOCK = 5
Capture = pytest.CaptureFixture[str]
Step = Callable[..., str]


@pytest.fixture
def step() -> Step:
    """Give a function that runs what only the superuser can do."""
    needs_mounts()
    return run_as_superuser


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    """Give a stack of what has to be undone, last things first."""
    with ExitStack() as stack:
        yield stack


def mount(step: Step, undo: ExitStack, *arguments: str | Path) -> Path:
    """Mount something; the last argument is the folder, which is made."""
    folder = Path(arguments[-1])
    folder.mkdir(exist_ok=True)
    step("mount", *arguments)
    undo.callback(subprocess.run, ["umount", str(folder)], check=True)
    return folder


# -- the source ----------------------------------------------------------------------------------


def test_device_that_loses_its_end_fails_clearly(
    tmp_path: Path, capfd: Capture, step: Step, undo: ExitStack
) -> None:
    """A loop device keeps its length when its backing file is cut; what is gone gives EIO."""
    backing = tmp_path / "backing.vhdx"
    DISK.write(backing)
    device = step("losetup", "--find", "--show", "--read-only", backing)
    undo.callback(subprocess.run, ["losetup", "--detach", device], check=True)
    os.truncate(backing, DISK.block_file_offset(BAD_BLOCK))
    assert int(step("blockdev", "--getsize64", device)) == backing.stat().st_size + 3 * MIB
    outcome = run(capfd, device, tmp_path / "out.img")
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == f"vhdx2raw: {device}: Input/output error\n"
    assert names_in(tmp_path) == ["backing.vhdx"]


@pytest.fixture
def worn(tmp_path: Path, step: Step, undo: ExitStack) -> Path:
    """Give an image on a file system that finds a wrong checksum in one block of its data."""
    device, folder = tmp_path / "btrfs", tmp_path / "mounted"
    with device.open("wb") as file:
        file.truncate(128 * MIB)
    step("mkfs.btrfs", "-q", device)
    with ExitStack() as mounted:
        DISK.write(mount(step, mounted, "-o", "loop", device, folder) / "disk.vhdx")
    marker = DISK.expected_disk(BAD_BLOCK * MIB + 64 * KIB, 512)
    with device.open("r+b") as backing, mmap.mmap(backing.fileno(), 0) as contents:
        place = contents.find(marker)
        assert place > 0
        contents[place] ^= 0xFF
    return mount(step, undo, "-o", "loop", device, folder) / "disk.vhdx"


@pytest.mark.parametrize("words", [[], ["--force"], ["-S", "0"]], ids=["plain", "force", "all"])
def test_bad_block_of_source_fails_clearly(
    worn: Path, tmp_path: Path, capfd: Capture, words: list[str]
) -> None:
    target = tmp_path / "outputs" / "out.img"
    target.parent.mkdir()
    if words == ["--force"]:
        target.write_bytes(b"precious")
    before = names_in(target.parent)
    with pytest.raises(OSError, match="Input/output error"):
        worn.read_bytes()
    outcome = run(capfd, *words, worn, target)
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == f"vhdx2raw: {worn}: Input/output error\n"
    assert names_in(target.parent) == before
    assert not before or target.read_bytes() == b"precious"


def test_bad_block_of_source_ends_stream(worn: Path, tmp_path: Path) -> None:
    with (tmp_path / "out.bin").open("wb") as stream:
        outcome = run_program(worn, "-", stdout=stream)
    assert outcome.exit_code == 8
    assert outcome.err == f"vhdx2raw: {worn}: Input/output error\n"
    sent = (tmp_path / "out.bin").read_bytes()
    assert len(sent) <= BAD_BLOCK * MIB
    assert DISK.expected_disk(0, len(sent)) == sent


# -- the output ----------------------------------------------------------------------------------


@pytest.fixture
def hollow(tmp_path: Path, step: Step, undo: ExitStack) -> Path:
    """Give a file system that promises more space than the device under it has."""
    memory = mount(step, undo, "-t", "tmpfs", "-o", "size=4m", "none", tmp_path / "memory")
    device = memory / "ext4"
    with device.open("wb") as file:
        file.truncate(64 * MIB)
    features = ("-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1")
    step("mkfs.ext4", "-q", *features, device)
    return mount(step, undo, "-o", "loop", device, tmp_path / "mounted")


def test_disk_that_fails_at_sync_fails_clearly(
    hollow: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Every write succeeds, into memory. Only fsync reports that it never reached the disk."""
    DISK.write(tmp_path / "disk.vhdx")
    status = os.statvfs(hollow)
    assert status.f_bavail * status.f_frsize > DISK.virtual_disk_size
    target = hollow / "out.img"
    with Host().installed() as host:
        outcome = run(capfd, tmp_path / "disk.vhdx", target)
    after_fsync = host.calls[host.calls.index("fsync temporary") + 1 :]
    assert [call for call in after_fsync if "source" not in call] == [
        "close temporary",
        "unlink temporary",
    ]
    assert outcome.exit_code in (7, 8)  # by the errno, which is a choice of the kernel
    assert outcome.err_lines[0].startswith(f"vhdx2raw: {target}: ")
    assert len(outcome.err_lines) <= 2
    assert "out.img" not in names_in(hollow)
    assert not [name for name in names_in(hollow) if name.endswith(".part")]


def test_output_on_read_only_mount_fails_clearly(
    tmp_path: Path, capfd: Capture, step: Step, undo: ExitStack
) -> None:
    DISK.write(tmp_path / "disk.vhdx")
    folder = mount(step, undo, "-t", "tmpfs", "-o", "ro", "none", tmp_path / "mounted")
    outcome = run(capfd, tmp_path / "disk.vhdx", folder / "out.img")
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == f"vhdx2raw: {folder / 'out.img'}: Read-only file system\n"
    assert names_in(folder) == []


def test_stream_into_full_file_system_fails_clearly(
    tmp_path: Path, step: Step, undo: ExitStack
) -> None:
    DISK.write(tmp_path / "disk.vhdx")
    folder = mount(step, undo, "-t", "tmpfs", "-o", "size=1m", "none", tmp_path / "mounted")
    with (folder / "out.bin").open("wb") as stream:
        outcome = run_program(tmp_path / "disk.vhdx", "-", stdout=stream)
    assert outcome.exit_code == 8
    assert outcome.err_lines == [
        "vhdx2raw: standard output: cannot be written: No space left on device",
        "vhdx2raw: hint: make room, or write to another place",
    ]
    assert (folder / "out.bin").stat().st_size == MIB


def test_source_on_read_only_mount_is_converted(
    tmp_path: Path, capfd: Capture, step: Step, undo: ExitStack
) -> None:
    folder = mount(step, undo, "-t", "tmpfs", "none", tmp_path / "mounted")
    DISK.write(folder / "disk.vhdx")
    step("mount", "-o", "remount,ro", folder)
    outcome = run(capfd, folder / "disk.vhdx", tmp_path / "out.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(tmp_path / "out.img", DISK)
