"""Disks that are mounted by the program, and unmounted whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cli import MODULE
from tests.support.peers import needs_module, needs_program, skip_unless_ci

PATIENCE = 60.0
"""Seconds for what takes a moment, on a machine that has other things to do."""
PAUSE = 0.02


def needs_fuse() -> None:
    """Go on only where FUSE can be used."""
    needs_program("fusermount3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip_unless_ci("/dev/fuse is not here, or not for us")
    try:
        needs_module("mfusepy")
    except OSError as error:
        skip_unless_ci(f"the library of FUSE is not here: {error}")


def is_mounted(folder: Path) -> bool:
    """Return whether the kernel has a mount of ours at a folder, alive or not."""
    return folder in mounts()


def mounts() -> list[Path]:
    """Give the places of all mounts of ours."""
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in lines if words[2] == "fuse.vhdx2raw"]


def wait_until(is_so: object, what: str) -> None:
    """Wait until a function returns true."""
    assert callable(is_so)
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"waited too long until {what}"
        time.sleep(PAUSE)


class Mount:
    """A mount that is served by a process in the foreground.

    Attributes:
        folder: Where the files are.
        process: What serves them.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    def end(self, exit_code: int = 0) -> str:
        """Unmount it, and return what was said on standard error."""
        # A loop device that was just taken off may be busy for a moment.
        words = ["fusermount3", "-u", str(self.folder)]
        wait_until(lambda: _succeeds(words), "it can be unmounted")
        return self.wait(exit_code)

    def wait(self, exit_code: int = 0) -> str:
        """Wait until the process has ended, and return what it said on standard error."""
        _, said = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == exit_code, said
        assert not is_mounted(self.folder)
        return said


def _succeeds(words: list[str]) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@contextmanager
def mounted(image: Path | str, folder: Path, *options: str, patch: str = "") -> Iterator[Mount]:
    """Mount an image in a folder that is made; at the end nothing of it is left.

    Args:
        image: The VHDX file, or its URL.
        folder: The folder.
        options: Of the command.
        patch: Python that is run before the program, in its process.
    """
    needs_fuse()
    folder.mkdir(exist_ok=True)
    words = ["mount", "--foreground", *options, str(image), str(folder)]
    with start(words, patch) as process:
        mount = Mount(folder, process)
        try:
            wait_until(lambda: is_mounted(folder) or process.poll() is not None, "it is mounted")
            assert process.poll() is None, process.communicate()
            folder.stat()  # answered by the process
            yield mount
        finally:
            clean_up(folder)


@contextmanager
def start(words: list[str], patch: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start the program, with something changed before it runs, and kill it at the end."""
    command = [*MODULE, *words]
    if patch:
        main = f"{patch}\nimport sys\nfrom vhdx2raw.cli import main\nsys.exit(main({words!r}))"
        command = [sys.executable, "-c", main]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def clean_up(folder: Path) -> None:
    """Leave no mount in a folder or below it, not even one whose process was killed."""
    for place in mounts():
        if place.is_relative_to(folder):
            subprocess.run(["fusermount3", "-uz", place], check=False, stderr=subprocess.DEVNULL)
    assert not any(place.is_relative_to(folder) for place in mounts())


def servers_of(folder: Path) -> list[int]:
    """Give the processes that were asked to mount something in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"mount" in words and str(folder).encode() in words:
            found.append(int(path.parent.name))
    return found


def kill_servers(folder: Path) -> None:
    """Kill what serves a folder, at once."""
    for number in servers_of(folder):
        os.kill(number, signal.SIGKILL)


@contextmanager
def folder_for_mounts(path: Path) -> Iterator[Path]:
    """Make a folder; at the end nothing is mounted there, and nobody serves it."""
    needs_fuse()
    path.mkdir()
    yield path
    kill_servers(path)
    clean_up(path)
