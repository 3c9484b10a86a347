"""Whether an output would overwrite an input: the same file, or a device that shares its bytes."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from vhdx2raw import host
from vhdx2raw.source.base import Identity
from vhdx2raw.source.file import BLOCK_DEVICE, identity_of

LOOP_GET_STATUS64 = 0x4C05
LOOP_STATUS_SIZE = 232
"""Bytes of struct loop_info64, which begins with device and inode of the file, and its own number
if it is a device."""
SYSTEM_DEVICES = "/sys/dev/block"


def is_input(
    status: os.stat_result, inputs: Collection[Identity], path: str | os.PathLike[str]
) -> bool:
    """Return whether to write to a file or device would change what is read.

    Args:
        status: That of the file or device.
        inputs: The files that are read.
        path: A name under which it can be opened.
    """
    if identity_of(status) in inputs:
        return True
    if not inputs or not host.is_linux():  # nothing else would tell
        return False
    if stat.S_ISBLK(status.st_mode):
        return any(identity in inputs for identity in _iter_overwritten(status.st_rdev, path))
    devices = (number for device, number in inputs if device == BLOCK_DEVICE)
    return any(identity_of(status) in _iter_overwritten(number) for number in devices)


def folder_of(number: int) -> Path:
    """Return where the kernel describes a device; a partition lies in the folder of its disk."""
    path = f"{SYSTEM_DEVICES}/{os.major(number)}:{os.minor(number)}"
    return Path(os.path.realpath(path))


def read_system(path: Path) -> str:
    """Return what the kernel says at `path`; nothing if it says nothing there."""
    try:
        return os.fsdecode(path.read_bytes()).rstrip("\n")
    except OSError:
        return ""


def _iter_overwritten(
    number: int, path: str | os.PathLike[str] | None = None
) -> Iterator[Identity]:
    """Yield what shares its bytes with a device.

    Besides itself these are its partitions, the disk that it is a partition of, the devices that
    it is made of (by LVM, RAID or encryption), and the file behind a loop device; and the same of
    all that lies below it.
    """
    names = {number: path}
    waiting, seen = [number], set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        yield BLOCK_DEVICE, number
        folder = folder_of(number)
        for partition in folder.glob("*/partition"):
            yield from _iter_numbered(partition.parent)
        yield from _iter_numbered(folder.parent)
        below = [found for disk in (folder, folder.parent) for found in _iter_below(disk)]
        backing = _backing_of(number, names.get(number) or f"/dev/{folder.name}")
        for device, found in [backing] if backing else below:
            if device == BLOCK_DEVICE:
                waiting.append(found)
            else:
                yield device, found


def _iter_numbered(folder: Path) -> Iterator[Identity]:
    """Yield the device that the kernel describes in a folder, if it does."""
    major, _, minor = read_system(folder / "dev").partition(":")
    if major.isdigit() and minor.isdigit():
        yield BLOCK_DEVICE, os.makedev(int(major), int(minor))


def _iter_below(folder: Path) -> Iterator[Identity]:
    """Yield what the kernel says that a device is made of."""
    with suppress(OSError):
        for slave in folder.glob("slaves/*"):
            yield from _iter_numbered(slave)
    path = read_system(folder / "loop" / "backing_file")
    with suppress(OSError):  # a file that was deleted, or that has no name here
        if path:
            yield identity_of(os.stat(path))  # noqa: PTH116 - no Path is needed


def _backing_of(number: int, path: str | os.PathLike[str]) -> Identity | None:
    """Return what lies behind a loop device, whatever became of its name; None if nobody tells."""
    try:
        descriptor = os.open(path, host.flags("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC"))
    except OSError:
        return None
    answer = array("B", bytes(LOOP_STATUS_SIZE))
    try:
        if os.fstat(descriptor).st_rdev != number:
            return None
        host.ioctl(descriptor, LOOP_GET_STATUS64, answer)
    except OSError:  # another kind of device
        return None
    finally:
        os.close(descriptor)
    device, inode, own_number = array("Q", answer.tobytes()[:24])
    # A file has no number of its own; some kernels repeat that of its file system.
    return (device, inode) if own_number in (0, device) else (BLOCK_DEVICE, own_number)
