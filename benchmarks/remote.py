"""A disk on a web server that is 30 ms away, against plain downloads of the same bytes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measure import Command, Result, measure
from benchmarks.workloads import make_shuffled
from tests.support.servers.web import WebServer

LATENCY = 0.03
"""Seconds before each reply of the server; once more for each connection."""
NAME = "shuffled.vhdx"
DOWNLOAD = """\
import sys, obstore
from obstore.store import HTTPStore
url, name, target = sys.argv[1:]
store = HTTPStore.from_url(url, client_options={"allow_http": True})
with open(target, "wb") as file:
    for piece in obstore.get(store, name).stream(min_chunk_size=1 << 20):
        file.write(piece)
"""
CURL, OBSTORE = "curl", "obstore"


def _serve(folder: Path, pipe: Connection) -> None:
    with WebServer(folder, latency=LATENCY) as server:
        pipe.send(server.url)
        pipe.recv()


@contextmanager
def distant_server(folder: Path) -> Iterator[str]:
    """Serve a folder from a process of its own; give the address."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(folder, there))
    server.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        server.join()


def run_remote(
    program: list[str], size: int, rounds: int, folder: Path | None
) -> tuple[list[Result], float]:
    """Convert blocks in random order, and download the same file.

    Returns:
        The results, and how many bytes were fetched for each byte that is stored.
    """
    if not shutil.which("curl"):
        raise RuntimeError("remote: curl is not installed")
    with tempfile.TemporaryDirectory(prefix="vhdx2raw-bench-", dir=folder) as name:
        work = Path(name)
        maker = multiprocessing.Process(target=make_shuffled, args=(work, size))
        maker.start()
        maker.join()
        output = work / "output.img"
        sync = ["sync", str(output)]
        with distant_server(work) as url:
            source = f"{url}/{NAME}"
            curl = ["curl", "--silent", "--show-error", "--output", str(output), source]
            download = [sys.executable, "-c", DOWNLOAD, url, NAME, str(output)]
            results = measure(
                [
                    Command(
                        "vhdx2raw --no-sync", [*program, "--no-sync", source, str(output)], output
                    ),
                    Command("vhdx2raw", [*program, source, str(output)], output),
                    Command(CURL, curl, output),
                    Command(f"{CURL} + sync", curl, output, sync),
                    Command(OBSTORE, download, output),
                ],
                rounds,
            )
            told = subprocess.run(
                [*program, "--json", source, "null:"], check=True, capture_output=True
            ).stdout
        return results, json.loads(told)["fetched"]["bytes"] / size
