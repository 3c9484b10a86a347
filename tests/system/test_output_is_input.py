"""No output goes over a file that is read, whichever device is made of that file.

Most tests need loop devices, which take the superuser.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.support.builder import MIB
from tests.support.chains import BASE_NAME
from tests.support.devices import Devices
from tests.support.files import write_files
from tests.support.peers import needs_program, run_as_superuser, skip_unless_ci
from tests.support.seeded_faults.disks import child, disk, family
from vhdx2raw import StreamSink, convert
from vhdx2raw.cli import main
from vhdx2raw.cli.exit_codes import OUTPUT
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import OutputError
from vhdx2raw.output.in_place import InPlaceSink

IS_INPUT = "is the input itself"
Hide = Callable[[Devices, Path], Path]
"""Makes a device of a file, most of them so that its name no longer leads to it."""


def plain(devices: Devices, file: Path) -> Path:
    return devices.attach(file)


def unlinked(devices: Devices, file: Path) -> Path:
    device = devices.attach(file)
    file.unlink()
    return device


def replaced(devices: Devices, file: Path) -> Path:
    """Put another file at the name that the kernel remembers."""
    device = devices.attach(file)
    other = file.with_name("other")
    other.write_bytes(b"another file")
    other.replace(file)
    return device


def in_another_namespace(devices: Devices, file: Path) -> Path:
    """Attach it where it has a name that means nothing here."""
    needs_program("unshare")
    folder = file.parent / "mnt"
    folder.mkdir()
    script = (
        f'mount --bind "{file.parent}" "{folder}" && losetup --find --show "{folder}/{file.name}"'
    )
    device = run_as_superuser("unshare", "--mount", "sh", "-c", script)
    devices.adopt(device)
    return Path(device)


def a_partition(devices: Devices, file: Path) -> Path:
    device = devices.attach(file, "--partscan")
    run_as_superuser("addpart", device, "1", "2048", "4096")
    partition = Path(f"{device}p1")
    if not partition.exists():
        skip_unless_ci("the nodes of partitions do not appear by themselves here")
    file.unlink()
    return partition


def a_loop_device_on_a_loop_device(devices: Devices, file: Path) -> Path:
    device = devices.attach(devices.attach(file))
    file.unlink()
    return device


HIDDEN: list[Hide] = [
    plain,
    unlinked,
    replaced,
    in_another_namespace,
    a_partition,
    a_loop_device_on_a_loop_device,
]


def overwrite(disk: VirtualDisk, output: Path | IO[bytes]) -> None:
    if isinstance(output, Path):
        convert(disk, output, force=True)
    else:
        StreamSink(output, inputs=disk.chain.identities)


@pytest.mark.parametrize("stream", [False, True], ids=["device", "stream"])
@pytest.mark.parametrize("read", ["child", "parent"])
@pytest.mark.parametrize("hide", HIDDEN)
def test_a_device_on_a_file_that_is_read_is_refused(
    tmp_path: Path, devices: Devices, hide: Hide, read: str, *, stream: bool
) -> None:
    path = write_files(tmp_path, family(child(file_size=9 * MIB), disk(file_size=9 * MIB)))
    file = path if read == "child" else tmp_path / BASE_NAME
    before = file.read_bytes()
    with file.open("rb") as kept, open_disk(path) as opened:
        device = hide(devices, file)
        with (
            device.open("r+b", buffering=0) as output,
            pytest.raises(OutputError, match=IS_INPUT),
        ):
            overwrite(opened, output if stream else device)
        assert kept.read() == before


def test_backing_file_of_input_device_is_not_replaced(
    tmp_path: Path, devices: Devices, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    before = path.read_bytes()
    device = devices.attach(path, "--read-only")
    assert main(["--force", str(device), str(path)]) == OUTPUT
    assert IS_INPUT in capfd.readouterr().err
    assert path.read_bytes() == before


def test_the_file_behind_a_device_that_is_read_is_not_changed_in_place(
    tmp_path: Path, devices: Devices
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    with (
        open_disk(devices.attach(path, "--read-only")) as opened,
        pytest.raises(OutputError, match=IS_INPUT),
    ):
        InPlaceSink(path, opened.size, inputs=opened.chain.identities)


def test_another_device_is_no_input(tmp_path: Path, devices: Devices) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    plain(devices, path)
    target = devices.make()
    with open_disk(path) as opened:
        convert(opened, target, force=True)
    expected = disk().expected_disk(0, disk().virtual_disk_size)
    is_right = Path(target).read_bytes()[: len(expected)] == expected
    assert is_right
