"""The tools that are compared: how each reads a disk, and whether its bytes are right."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO

from benchmarks.peer_cases import DISK, Case
from tests.support.builder import MIB, ImageSpec
from tests.support.files import data_of

OURS, QEMU, SEVEN_ZIP = "vhdx2raw", "qemu-img", "7-Zip"
LIBVHDI, DISSECT, DISCUTILS = "libvhdi", "dissect.hypervisor", "DiscUtils"
TOOLS = (OURS, QEMU, SEVEN_ZIP, LIBVHDI, DISSECT)
"""The tools that are run, in the order of the columns."""
COLUMNS = (*TOOLS, DISCUTILS)
PROGRAM = [sys.executable, "-m", "vhdx2raw"]
LIBRARIES = {LIBVHDI: "libvhdi", DISSECT: "dissect"}
LIBRARY_READER = str(Path(__file__).with_name("library_reader.py"))
TIMEOUT = 120
NUMBER = re.compile(r"\d+(\.\d+)+|\d{8}")


@dataclass(frozen=True)
class Reading:
    """What a tool delivered: whether it failed, and how its bytes compare with the right ones."""

    failed: bool
    is_right: bool
    length: int


def python_with_libraries() -> str:
    """Name the interpreter of the environment that has the libraries."""
    return os.environ.get("PEERS_PYTHON", sys.executable)


@cache
def version_of(tool: str) -> str | None:
    """Ask a tool for its version; None if it is not installed."""
    if tool in LIBRARIES:
        words = [python_with_libraries(), LIBRARY_READER, LIBRARIES[tool], "--version"]
    else:
        words = {OURS: [*PROGRAM, "--version"], QEMU: ["qemu-img", "--version"]}.get(tool, ["7zz"])
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = NUMBER.search(done.stdout.partition("Copyright")[0])
    return found[0] if found and done.returncode == 0 else None


def mark_of(case: Case, tool: str) -> str:
    """Make the image of a case in a temporary folder, run the tool on it and name the result."""
    with tempfile.TemporaryDirectory(prefix="vhdx2raw-peers-") as name:
        folder = Path(name)
        spec = case.write(folder)
        before = _state_of(folder)
        try:
            reading = _read(tool, folder, spec, case.read_size)
        except subprocess.TimeoutExpired:
            return "hangs"
        if _state_of(folder) != before:
            return "changes the source"
    return _judge(reading, spec.virtual_disk_size, must_refuse=case.must_refuse)


def _judge(reading: Reading, size: int, *, must_refuse: bool) -> str:
    if reading.failed:
        return "warns" if reading.is_right and not must_refuse else "refuses"
    if reading.is_right:
        return "accepts" if must_refuse else "right"
    return "short" if reading.length < size else "WRONG"


def _state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Give size and time of the last change of each image in a folder."""
    states = {path.name: path.stat() for path in folder.glob("*.vhdx")}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _read(tool: str, folder: Path, spec: ImageSpec, read_size: int) -> Reading:
    source, target = str(folder / DISK), folder / "disk.img"
    if tool == SEVEN_ZIP:
        words = ["7zz", "x", "-so", "-tVHDX", source]
    elif tool in LIBRARIES:
        words = [python_with_libraries(), LIBRARY_READER, LIBRARIES[tool], source, str(read_size)]
    else:
        done = subprocess.run(
            [*convert_command(tool), source, str(target)],
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        if not target.exists():
            return Reading(done.returncode != 0, is_right=False, length=0)
        return Reading(done.returncode != 0, *_compare(_pieces_of_file(target), spec))
    with _running(words) as process:
        assert process.stdout is not None
        is_right, length = _compare(_pieces_of_stream(process.stdout), spec)
        exit_code = process.wait()
    if exit_code == -signal.SIGKILL:
        raise subprocess.TimeoutExpired(words, TIMEOUT)
    return Reading(exit_code != 0, is_right, length)


def convert_command(tool: str) -> list[str]:
    """Give the command that converts, but for the names of source and target."""
    if tool == QEMU:
        return ["qemu-img", "convert", "-f", "vhdx", "-O", "raw"]
    return [*PROGRAM, "convert", "--no-sync"]


@contextmanager
def _running(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program whose output is read; it is killed if it takes too long."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()


def _pieces_of_stream(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(MIB):
        yield piece


def _pieces_of_file(path: Path) -> Iterator[bytes]:
    """Give the bytes of a raw file without reading its holes, which takes long on large ones."""
    position = 0
    for offset, data in chain(data_of(path), [(path.stat().st_size, b"")]):
        while position < offset:
            length = min(MIB, offset - position)
            yield bytes(length)
            position += length
        yield data
        position += len(data)


def _compare(pieces: Iterable[bytes], spec: ImageSpec) -> tuple[bool, int]:
    """Return whether these bytes are the disk of `spec`, and how many they are."""
    is_right, length = True, 0
    for piece in pieces:
        # Beyond its end the disk of a description is zeros; the length decides.
        is_right = is_right and spec.expected_disk(length, len(piece)) == piece
        length += len(piece)
    return is_right and length == spec.virtual_disk_size, length
