"""Server programs: started on a free port, waited for, and ended again."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.servers.web import HOST

LONGEST_START = 60
PAUSE = 0.02
ATTEMPTS = 5
"""How often to start a program whose port another one was faster to take."""


@contextmanager
def running(command: Callable[[int], Sequence[str | Path]], folder: Path) -> Iterator[int]:
    """Run the program that `command` gives for a port, in a folder; give the port."""
    for attempt in range(ATTEMPTS):
        port = _free_port()
        log = folder / f"server{attempt}.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*map(str, command(port))],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                if _is_answering(process, port):
                    yield port
                    return
            finally:
                process.terminate()
                process.wait()
    raise AssertionError(f"a server does not start: {log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def _is_answering(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + LONGEST_START
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection((HOST, port), timeout=1).close()
            return process.poll() is None
        time.sleep(PAUSE)
    return False
