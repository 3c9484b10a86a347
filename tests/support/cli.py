"""The command line run as a program or in this process, and a small disk to run it on."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import (
    DEFAULT_LOG_GUID,
    KIB,
    MIB,
    Block,
    BlockState,
    HeaderSpec,
    ImageSpec,
    LogEntrySpec,
    LogSpec,
    ZeroDescriptorSpec,
)
from vhdx2raw.cli import main

MODULE = (sys.executable, "-m", "vhdx2raw")
SCRIPT = (str(Path(sys.executable).with_name("vhdx2raw")),)
TIMEOUT = 60


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: its exit code and what it printed."""

    exit_code: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        """The lines of standard error."""
        return self.err.splitlines()


def small_disk() -> ImageSpec:
    """Describe 5 MiB and one sector: 1.5 MiB of data in three blocks, one of them stored zeros."""
    return ImageSpec(
        5 * MIB + 512,
        MIB,
        {
            4: Block(content=None),
            0: Block(content={4096: b"A" * 8192}),
            2: Block(content=0),
            3: Block(BlockState.ZERO),
        },
    )


def unusual_disk() -> ImageSpec:
    """Describe a disk that is right, with two warnings: R7 (a bad first header), R80 (state 5)."""
    spec = ImageSpec(4 * MIB, MIB, {0: Block(), 1: Block(BlockState.UNMAPPED_V095)})
    spec.headers[0] = HeaderSpec(sequence_number=1, checksum=1)
    return spec


def stored_zeros(size: int, first_content: bytes = b"") -> ImageSpec:
    """Describe a disk of `size` bytes that takes long to read but no space: stored zeros.

    The data begins with `first_content`, so that there is something to find. The rest are zeros of
    the log, since those that are holes of the file would not be read.
    """
    block_size = 256 * MIB
    blocks = {index: Block(content=0) for index in range(size // block_size)}
    blocks[0] = Block(content=first_content)
    spec = ImageSpec(size, block_size, blocks, log_guid=DEFAULT_LOG_GUID)
    start = spec.block_file_offset(0)
    zeros = ZeroDescriptorSpec(start + 4 * KIB, size - 4 * KIB)
    spec.log = LogSpec([LogEntrySpec(0, 1, [zeros])])
    return spec


def run(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Outcome:
    """Run the command line in this process, without a terminal."""
    capfd.readouterr()
    exit_code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return Outcome(exit_code, captured.out, captured.err)


def run_program(
    *arguments: str | Path,
    command: tuple[str, ...] = MODULE,
    **options: Any,  # noqa: ANN401 - those of subprocess
) -> Outcome:
    """Run the program in a process of its own, without a terminal."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        timeout=TIMEOUT,
        check=False,
        text=True,
        **options,
    )
    return Outcome(done.returncode, done.stdout or "", done.stderr or "")


def start_program(
    *arguments: str | Path,
    **options: Any,  # noqa: ANN401 - those of subprocess
) -> subprocess.Popen[bytes]:
    """Start the program in a process of its own, to be ended by a signal."""
    return subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.DEVNULL),
        stderr=subprocess.PIPE,
        **options,
    )


def run_on_terminal(
    *arguments: str | Path,
    streams: Collection[str] = ("stderr",),
    **options: Any,  # noqa: ANN401 - those of subprocess
) -> Outcome:
    """Run the program with some of its streams on one terminal, whose text becomes `err`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown = bytearray()

    def read_terminal() -> None:
        try:
            while data := os.read(master, 65536):
                shown.extend(data)
        except OSError:
            return  # the other side of the terminal was closed

    with subprocess.Popen(
        [*MODULE, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=slave if "stdout" in streams else subprocess.PIPE,
        stderr=slave if "stderr" in streams else subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        os.close(slave)
        reader = threading.Thread(target=read_terminal)
        reader.start()
        out, err = process.communicate(timeout=TIMEOUT)
        reader.join()
    os.close(master)
    text = shown.decode().replace("\r\n", "\n")
    return Outcome(process.returncode, out or "", text + (err or ""))


def drawn_lines(text: str) -> list[str]:
    """Split what a terminal was sent into lines and states of the bar, which clear it first."""
    return [line for line in re.split(r"(?:[\r\n]|\x1b\[J)+", text) if line]


def progress_lines(text: str) -> list[tuple[int, int]]:
    """Read lines of progress; each must be an object with just the two keys."""
    lines: list[tuple[int, int]] = []
    for line in text.splitlines():
        entry = json.loads(line)
        assert list(entry) == ["bytes-done", "bytes-total"]
        assert all(isinstance(value, int) for value in entry.values())
        lines.append((entry["bytes-done"], entry["bytes-total"]))
    return lines
