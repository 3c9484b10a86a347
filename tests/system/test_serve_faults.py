"""A server that dies or whose source does, while eight threads read: they get errors, soon.

A reader that waits for ever would end the test by its time limit.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, ImageSpec
from tests.support.cli import TIMEOUT
from tests.support.files import write_files
from tests.support.nbd import Server, needs_reader, reader_words, server_of

SIZE = 32 * MIB
THREADS = 8
PLAN = [(offset, 300 * KIB) for offset in range(0, SIZE - MIB, 700 * KIB)]
DISCONNECTED = {"ENOTCONN", "ESHUTDOWN", "ECONNRESET", "EPIPE", "None"}
"""How libnbd words that there is no server any more, depending on where a read was."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    needs_reader()
    blocks = {index: Block(content=0xA5) for index in range(SIZE // MIB)}
    return write_files(tmp_path, {"disk.vhdx": ImageSpec(SIZE, MIB, blocks)})


@contextmanager
def readers(server: Server) -> Iterator[subprocess.Popen[str]]:
    """Let eight threads read on and on, and begin when each has read something."""
    words = [*reader_words(server.uri, PLAN, THREADS), "--endless"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert [process.stdout.readline() for _ in range(THREADS)] == ["begun\n"] * THREADS
            yield process
        finally:
            process.kill()


def errors_of(process: subprocess.Popen[str]) -> list[str]:
    """Give the error of each thread."""
    out, _ = process.communicate(timeout=TIMEOUT)
    errors: list[str] = json.loads(out)
    assert len(errors) == THREADS
    return errors


def read_once(server: Server) -> subprocess.CompletedProcess[str]:
    """Read a little over a new connection."""
    words = reader_words(server.uri, [(0, 512)], 1)
    return subprocess.run(words, capture_output=True, check=False, text=True, timeout=TIMEOUT)


def kill_nbdkit(server: Server) -> None:
    os.kill(server.nbdkit, signal.SIGKILL)


def kill_the_program(server: Server) -> None:
    server.process.kill()


def end_the_program(server: Server) -> None:
    server.process.terminate()


@pytest.mark.parametrize(
    ("kill", "exit_code", "message"),
    [
        (kill_nbdkit, 8, "vhdx2raw: nbdkit: has ended with exit code -9\n"),
        (kill_the_program, -signal.SIGKILL, ""),
        (end_the_program, 143, "vhdx2raw: ended by SIGTERM\n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_readers_of_a_killed_server_end(
    path: Path, kill: Callable[[Server], None], exit_code: int, message: str
) -> None:
    with server_of(path) as server, readers(server) as process:
        nbdkit, folder = server.nbdkit, server.folder
        kill(server)
        assert set(errors_of(process)) <= DISCONNECTED
        assert server.wait() == (exit_code, message)
    assert not Path(f"/proc/{nbdkit}/exe").exists()
    assert folder.exists() is (exit_code == -signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def cut_off(path: Path) -> None:
    os.truncate(path, 8 * MIB)


def write_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"other bytes")


@pytest.mark.parametrize(
    ("change", "message"),
    [(cut_off, "its size is another one|ends too early"), (write_to, "it was written to")],
)
def test_a_source_that_changes_is_an_input_output_error(
    path: Path, change: Callable[[Path], None], message: str
) -> None:
    with server_of(path) as server:
        with readers(server) as process:
            change(path)
            assert errors_of(process) == ["EIO"] * THREADS
        again = read_once(server)
        assert again.returncode == 1
        assert "Input/output error (EIO)" in again.stderr
        exit_code, log = server.end()
    assert exit_code == 143
    *lines, last = log.splitlines()
    assert last == "vhdx2raw: ended by SIGTERM"
    assert len(lines) == THREADS + 1
    for line in lines:
        assert f"pread: error: {path}: file" in line
    assert any(pattern in lines[-1] for pattern in message.split("|"))


def test_an_idle_client_does_not_hinder_the_end(path: Path) -> None:
    with server_of(path) as server:
        words = [*reader_words(server.uri, [(0, 512)], 1), "--endless"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as idle:
            assert idle.stdout
            idle.stdout.readline()
            idle.send_signal(signal.SIGSTOP)
            try:
                assert server.end()[0] == 143
            finally:
                idle.kill()
