"""Streams that do not block, as Node.js, ssh and event loops make them: all arrives, in order."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import MODULE, TIMEOUT
from tests.support.maps import fragmented
from vhdx2raw.cli.console import print_message

PIPE_SIZE = 4096
COMMANDS: dict[str, Sequence[str]] = {
    "a disk": ("disk.vhdx", "-"),
    "a disk of which everything is written": ("-S", "0", "disk.vhdx", "-"),
    "a disk and its digest": ("--hash", "md5", "disk.vhdx", "-"),
    "a map": ("map", "fragments.vhdx"),
    "a map as JSON": ("map", "--json", "fragments.vhdx"),
    "a picture": ("map", "--svg=-", "fragments.vhdx"),
    "a report": ("check", "--json", "fragments.vhdx"),
    "help": ("convert", "--help"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ImageSpec(3 * MIB + 512, MIB, {2: Block(), 0: Block()}).write(tmp_path / "disk.vhdx")
    fragmented(300).write(tmp_path / "fragments.vhdx")
    return tmp_path


def nonblocking_pipe() -> tuple[int, int]:
    """Give a small pipe whose end to write to does not block."""
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    os.set_blocking(writer, False)
    return reader, writer


def read_slowly(descriptor: int) -> bytes:
    """Read to the end, such that the pipe is full most of the time."""
    data = bytearray()
    time.sleep(0.2)
    while piece := os.read(descriptor, 3000):
        data += piece
        time.sleep(0.0002)
    os.close(descriptor)
    return bytes(data)


@pytest.mark.parametrize("what", COMMANDS)
def test_everything_comes_through_a_stream_that_does_not_block(folder: Path, what: str) -> None:
    command = [*MODULE, *COMMANDS[what]]
    expected = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    reader, writer = nonblocking_pipe()
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        is_blocking = os.get_blocking(writer)
        os.close(writer)
        data = read_slowly(reader)
        assert process.stderr
        error = process.stderr.read()
    assert (process.returncode, error) == (0, expected.stderr)
    assert data == expected.stdout
    assert not is_blocking


@pytest.mark.parametrize("words", [("disk.vhdx", "-"), ("map", "--json", "fragments.vhdx")])
def test_a_signal_ends_the_wait_for_a_reader(folder: Path, words: Sequence[str]) -> None:
    reader, writer = nonblocking_pipe()
    with subprocess.Popen(
        [*MODULE, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=writer, stderr=-1
    ) as process:
        os.close(writer)
        os.read(reader, 1)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, error) == (130, b"vhdx2raw: interrupted\n")
        os.close(reader)


def test_a_reader_that_ends_is_told(folder: Path) -> None:
    reader, writer = nonblocking_pipe()
    with subprocess.Popen(
        [*MODULE, "disk.vhdx", "-"], cwd=folder, stdin=subprocess.DEVNULL, stdout=writer, stderr=-1
    ) as process:
        os.close(writer)
        os.read(reader, 1)
        time.sleep(0.3)
        os.close(reader)
        _, error = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 7
        assert b"the program that reads the output has ended" in error


def test_no_message_is_lost_on_a_stream_that_does_not_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = nonblocking_pipe()
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(read_slowly(reader)))
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        thread.start()
        for number in range(500):
            print_message(f"message {number} " + "x" * 60)
    thread.join()
    lines = read[0].decode().splitlines()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(500)]
