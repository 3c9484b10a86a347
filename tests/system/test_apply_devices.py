"""`apply` and `convert --update` on a block device, and on a file system that is full."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, same_bytes_guid
from tests.support.checkpoints import BASE, CHILD
from tests.support.cli import run
from tests.support.devices import OLD_BYTE, Devices
from tests.support.files import names_in
from tests.support.peers import run_as_superuser

Capture = pytest.CaptureFixture[str]
OTHER = ImageSpec(
    3 * MIB, MIB, {1: Block(), 2: Block(content=0x11)}, data_write_guid=same_bytes_guid(3)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with a chain and another disk."""
    monkeypatch.chdir(tmp_path)
    BASE.write("base.vhdx")
    CHILD.write("child.avhdx")
    OTHER.write("other.vhdx")
    return tmp_path


@pytest.fixture
def device(folder: Path, devices: Devices, capfd: Capture) -> Path:
    """Give a device that holds the base."""
    device = devices.make()
    done = run(capfd, "-q", "--force", "--state", "state.json", "base.vhdx", device)
    assert (done.exit_code, done.err) == (0, "")
    return device


@pytest.mark.parametrize("words", [[], ["--verify"]], ids=str)
def test_device_holds_the_checkpoint(
    device: Path, devices: Devices, capfd: Capture, words: list[str]
) -> None:
    done = run(capfd, "apply", *words, "--state", "state.json", "child.avhdx", device)
    assert (done.exit_code, done.err) == (0, "")
    is_right = devices.contents()[: 4 * MIB] == CHILD.expected_disk(0, 4 * MIB)
    assert is_right
    assert set(devices.contents()[4 * MIB :]) == set(OLD_BYTE)


def test_device_needs_a_named_state(device: Path, capfd: Capture) -> None:
    for words in (["apply", "child.avhdx"], ["--force", "--save-state", "base.vhdx"]):
        done = run(capfd, *words, device)
        assert done.exit_code == 7
        assert "is a block device, beside which no state is kept" in done.err
        assert "--state" in done.err


def test_device_that_was_written_to_is_noticed(
    device: Path, devices: Devices, capfd: Capture
) -> None:
    with device.open("r+b") as file:
        file.write(bytes(512))
        os.fsync(file.fileno())
    before = devices.contents()
    done = run(capfd, "apply", "--state", "state.json", "child.avhdx", device)
    assert done.exit_code == 7
    assert "was changed after state.json was written" in done.err
    assert devices.contents() == before


def test_device_that_is_too_small_stays_as_it_is(
    folder: Path, devices: Devices, capfd: Capture
) -> None:
    device = devices.make(3 * MIB)
    run(capfd, "--force", "--state", "state.json", "base.vhdx", device)
    before = devices.contents(), Path("state.json").read_bytes()
    done = run(capfd, "apply", "--state", "state.json", "child.avhdx", device)
    assert done.exit_code == 7
    assert "is too small: it has 3145728 bytes, the disk 4194304" in done.err
    assert (devices.contents(), Path("state.json").read_bytes()) == before


@pytest.mark.parametrize("words", [[], ["--verify"]], ids=str)
def test_device_is_updated(
    device: Path, devices: Devices, capfd: Capture, words: list[str]
) -> None:
    done = run(capfd, "--update", "--json", *words, "--state", "state.json", "other.vhdx", device)
    assert (done.exit_code, done.err) == (0, "")
    assert json.loads(done.out)["written-size"] == 2 * MIB  # of three, one is the same in both
    is_right = devices.contents()[: 3 * MIB] == OTHER.expected_disk(0, 3 * MIB)
    assert is_right


# -- no space -------------------------------------------------------------------------------------


@pytest.fixture
def small_place(folder: Path) -> Iterator[Path]:
    """Give a folder with just enough space for the base."""
    place = folder / "small"
    place.mkdir()
    run_as_superuser("mount", "-t", "tmpfs", "-o", "size=3136k", "none", place)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(place: Path) -> None:
    run_as_superuser("mount", "-o", "remount,size=16m", place)


@pytest.mark.parametrize(
    ("words", "spec"),
    [(["apply", "child.avhdx"], CHILD), (["--update", "big.vhdx"], None)],
    ids=["apply", "update"],
)
def test_same_command_goes_on_when_there_is_room_again(
    small_place: Path, capfd: Capture, words: list[str], spec: ImageSpec | None
) -> None:
    full = ImageSpec(4 * MIB, MIB, {index: Block() for index in range(4)})
    full.write("big.vhdx")
    image = small_place / "disk.img"
    assert run(capfd, "--save-state", "base.vhdx", image).exit_code == 0
    if spec is CHILD:
        # The checkpoint would free more than it takes.
        fill(small_place)
    done = run(capfd, *words, image)
    assert done.exit_code == 8
    assert "No space left on device" in done.err
    assert ".part" not in "".join(names_in(small_place))
    remount(small_place)
    done = run(capfd, *words, image)
    assert (done.exit_code, done.err) == (0, "")
    expected = spec or full
    is_right = image.read_bytes() == expected.expected_disk(0, expected.virtual_disk_size)
    assert is_right


def fill(place: Path) -> None:
    """Take what space there is, so that not even a state file can be written."""
    with (place / "other").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
