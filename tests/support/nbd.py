"""Network block devices: the server that is looked for, its clients, and what they must find."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import gcd
from pathlib import Path

from tests.support.builder import BlockState, ImageSpec
from tests.support.cli import TIMEOUT, start_program
from tests.support.peers import needs_program, skip_unless_ci

READER = Path(__file__).with_name("nbd_reader.py")
LIBNBD_PYTHON = "/usr/bin/python3"
"""The Python that has libnbd, if any has."""


def needs_server() -> None:
    """Go on only where nbdkit and its Python plugin are."""
    nbdkit = needs_program("nbdkit")
    if not _has_python(nbdkit):
        skip_unless_ci("nbdkit has no plugin for Python: install nbdkit-plugin-python")


@cache
def _has_python(nbdkit: str) -> bool:
    asked = [nbdkit, "python", "--dump-plugin"]
    return subprocess.run(asked, check=False, capture_output=True).returncode == 0


def needs_reader() -> None:
    """Go on only where a Python has libnbd."""
    asked = [LIBNBD_PYTHON, "-c", "import nbd"]
    if not Path(LIBNBD_PYTHON).exists() or subprocess.run(asked, check=False).returncode:
        skip_unless_ci("no Python has libnbd: install python3-libnbd")


def reader_words(uri: str, plan: Sequence[tuple[int, int]], threads: int) -> list[str]:
    """Give the command that reads a plan with several threads."""
    # -I: the folder of the program has a module of the same name as that of libnbd.
    return [LIBNBD_PYTHON, "-I", str(READER), uri, json.dumps(plan), str(threads)]


# -- a server beside the test -------------------------------------------------------------------


@dataclass
class Server:
    """A running `vhdx2raw serve`, and where it listens."""

    process: subprocess.Popen[bytes]
    uri: str

    @property
    def nbdkit(self) -> int:
        """The number of its nbdkit."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (number,) = children.read_text().split()
        return int(number)

    @property
    def folder(self) -> Path:
        """Its private folder."""
        return Path(self.uri.partition("socket=")[2]).parent

    def end(self) -> tuple[int, str]:
        """End it; give the exit code, and what it has printed to stderr."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, err.decode()


@contextmanager
def server_of(*arguments: str | Path) -> Iterator[Server]:
    """Start a server, which is ready from the beginning of the context on."""
    needs_server()
    process = start_program("serve", *arguments, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout
            uri = process.stdout.readline().decode().strip()
            if not uri:
                assert process.stderr
                raise AssertionError(process.stderr.read().decode())
            yield Server(process, uri)
        finally:
            if process.poll() is None:
                process.terminate()


# -- what there is to find ----------------------------------------------------------------------

Map = list[tuple[int, int, bool]]
"""(offset, length, whether it is data), such that neighbours differ."""


def stored_map(spec: ImageSpec) -> Map:
    """Give what the description of a disk calls stored, in any image of the chain."""
    step = _unit_of(spec)
    places = range(0, spec.virtual_disk_size, step)
    found: Map = []
    for is_data, run in groupby(places, lambda offset: is_stored(spec, offset)):
        first, *more = run
        end = min((more or [first])[-1] + step, spec.virtual_disk_size)
        found.append((first, end - first, is_data))
    return found


def _unit_of(spec: ImageSpec) -> int:
    """Give bytes within which nothing changes."""
    is_mixed = any(block.sector_bits is not None for block in spec.blocks.values())
    unit = spec.logical_sector_size if is_mixed else spec.block_size
    if isinstance(spec.parent, ImageSpec):
        unit = gcd(unit, spec.parent.virtual_disk_size, _unit_of(spec.parent))
    return unit


def is_stored(spec: ImageSpec, offset: int) -> bool:
    """Return whether the bytes at an offset are stored; the rules are R85 to R90 and R107."""
    if offset >= spec.virtual_disk_size:
        return False
    index, start = divmod(offset, spec.block_size)
    block = spec.blocks.get(index)
    is_here = block is not None and block.state != BlockState.NOT_PRESENT
    if is_here and block and block.sector_bits is not None and spec.is_differencing:
        in_part = block.state == BlockState.PARTIALLY_PRESENT
        is_here = not in_part or start // spec.logical_sector_size in block.sector_bits
    if is_here and block:
        return block.owns_space
    return isinstance(spec.parent, ImageSpec) and is_stored(spec.parent, offset)


def map_of(text: str) -> Map:
    """Read the output of `nbdinfo --map --json`; what is no data must be a hole of zeros."""
    entries = json.loads(text)
    assert {(entry["type"], entry["description"]) for entry in entries} <= {
        (0, "data"),
        (3, "hole,zero"),
    }
    return [(entry["offset"], entry["length"], entry["type"] == 0) for entry in entries]
