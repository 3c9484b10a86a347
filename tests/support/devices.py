"""Loop devices to convert to, and what they hold afterwards."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builder import MIB
from tests.support.peers import run_as_superuser

DEVICE_SIZE = 8 * MIB
OLD_BYTE = b"\xff"
"""What a new device is full of."""


class Devices:
    """Makes loop devices on files; what a device holds is read from the file that backs it."""

    def __init__(self, folder: Path) -> None:
        self.backing = folder / "device.bin"
        self._made: list[str] = []

    def make(self, size: int = DEVICE_SIZE, *options: str) -> Path:
        """Make a device that is full of `OLD_BYTE`."""
        self.backing.write_bytes(OLD_BYTE * size)
        return self.attach(self.backing, *options)

    def attach(self, file: Path, *options: str) -> Path:
        """Make a device on a file."""
        device = run_as_superuser("losetup", "--find", "--show", *options, file)
        self._made.append(device)
        return Path(device)

    def adopt(self, device: str) -> None:
        """Detach a device at the end that was made in another way."""
        self._made.append(device)

    def detach(self) -> None:
        """Detach all that was made."""
        while self._made:
            subprocess.run(["losetup", "--detach", self._made.pop()], check=True)

    def contents(self) -> bytes:
        """Return what is on stable storage."""
        return self.backing.read_bytes()


@contextmanager
def loop_devices(folder: Path) -> Iterator[Devices]:
    """Detach the devices at the end of the context."""
    devices = Devices(folder)
    try:
        yield devices
    finally:
        devices.detach()
