"""What tests need beyond this package: other programs, modules, the superuser, devices, mounts.

Where that is missing, a test is skipped. CI, where the variable CI is set, has all of it: what is
missing there is a failure, so that no test can stop running unnoticed.
"""

import importlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

PACKAGES = {
    "7zz": "7zip",
    "azurite-blob": "azurite, with make azurite",
    "ddrescuelog": "gddrescue",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "bmaptool": "bmap-tools",
    "ewfacquirestream": "ewf-tools",
    "losetup": "mount",
    "fusermount3": "fuse3",
    "man": "man-db",
    "munged": "munge",
    "sbatch": "slurm-wlm",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.ntfs": "ntfs-3g",
    "mkfs.xfs": "xfsprogs",
    "nbdcopy": "libnbd-bin",
    "nbdfuse": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "ntfs-3g": "ntfs-3g",
    "ntfscat": "ntfs-3g",
    "ntfsfix": "ntfs-3g",
    "ntfsls": "ntfs-3g",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "sgdisk": "gdisk",
    "sha256sum": "coreutils",
    "xargs": "findutils",
}
"""What to install for a program, where that has another name."""
SHARED_MEMORY = Path("/dev/shm")
ATTEMPTS = 20
PAUSE = 0.1
TAKEN = re.compile("temporarily unavailable|busy", re.IGNORECASE)
"""The error of a loop device that was free when it was found, and is taken by now."""


def skip_unless_ci(reason: str) -> NoReturn:
    """Skip a test because something is missing; in CI, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: must not be missing in CI", pytrace=False)
    pytest.skip(reason)


# -- programs and modules -----------------------------------------------------------------------


def needs_program(name: str, *, path: str | None = None) -> str:
    """Give the path of a program, which is looked for in `path` or the path of this process."""
    found = shutil.which(name, path=path)
    if found is None:
        skip_unless_ci(f"{name} not found: install {PACKAGES.get(name, name)}")
    return found


def needs_module(name: str) -> ModuleType:
    """Give a module of another package."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        skip_unless_ci(f"{name} cannot be imported: {error}")


def run_peer(*command: str | Path) -> str:
    """Run another program, which has to succeed; return its stdout."""
    needs_program(str(command[0]))
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def convert_repaired_copy(image: Path, folder: Path) -> Path | None:
    """Let qemu-img replay the log of a copy, and convert that; None if it fails."""
    needs_program("qemu-img")
    copy, raw = folder / "copy.vhdx", folder / "copy.raw"
    shutil.copyfile(image, copy)
    for command in (
        ["qemu-img", "check", "-q", "-f", "vhdx", "-r", "all", str(copy)],
        ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", str(copy), str(raw)],
    ):
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
    return raw


# -- abilities ----------------------------------------------------------------------------------


def needs_superuser() -> None:
    """Go on only as the superuser."""
    if os.geteuid():
        skip_unless_ci("only the superuser can do this")


def needs_shared_memory() -> Path:
    """Give a folder where files of 64 TiB can be, in memory: ext4 ends at 16."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    if not any(line.split()[1:3] == [str(SHARED_MEMORY), "tmpfs"] for line in lines):
        skip_unless_ci(f"{SHARED_MEMORY} is no tmpfs, and other file systems end before 64 TiB")
    return SHARED_MEMORY


def needs_mounts() -> None:
    """Go on only where file systems can be mounted, which not every container may."""
    needs_superuser()
    needs_program("mount")
    if why_not := _why_nothing_can_be_mounted():
        skip_unless_ci(f"no file system can be mounted here: {why_not}")


def needs_loop_devices() -> None:
    """Go on only where there are loop devices."""
    needs_superuser()
    needs_program("losetup")
    if why_not := _why_there_is_no_loop_device():
        skip_unless_ci(f"no loop device can be made here: {why_not}")


def run_as_superuser(*command: str | Path) -> str:
    """Run what only the superuser can do, and give its output.

    Whether this machine can make devices and mount them at all is tried once. From then on it has
    to work.
    """
    words = [str(word) for word in command]
    needs_superuser()
    needs_program(words[0])
    if words[0] == "mount":
        needs_mounts()
    if words[0] == "losetup" or "loop" in words:
        needs_loop_devices()
    done = _run(words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout.strip()


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program; again for a while if another process was faster to take a loop device."""
    for _ in range(ATTEMPTS):
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        takes_any = "--find" in words or "loop" in words
        if not (done.returncode and takes_any and TAKEN.search(done.stderr)):
            break
        time.sleep(PAUSE)
    return done


@cache
def _why_nothing_can_be_mounted() -> str:
    """Mount something; give the failure, empty if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        done = _run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", folder])
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return done.stderr.strip() if done.returncode else ""


@cache
def _why_there_is_no_loop_device() -> str:
    """Make a loop device; give the failure, empty if there is none."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        done = _run(["losetup", "--find", "--show", file.name])
        if done.returncode == 0:
            subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)
    return done.stderr.strip() if done.returncode else ""
