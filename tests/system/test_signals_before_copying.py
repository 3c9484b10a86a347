"""A signal is answered while files are opened, and while it is found out what there is to do.

Whatever would take hours here never ends by itself: only the signal ends the program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, same_bytes_guid
from tests.support.cli import TIMEOUT
from tests.support.files import has_expected_bytes, names_in
from tests.support.signals import SIGNAL_MESSAGES
from vhdx2raw.cli import main
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk

BASE = ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()})
CHILD = child_of(
    BASE, ".\\base.vhdx", blocks={1: Block()}, data_write_guid=same_bytes_guid(1), tag="child"
)
TERMINATED = 128 + signal.SIGTERM
WALKS = {
    "to a file": ["base.vhdx", "out/disk.img"],
    "by one thread": ["--workers", "1", "base.vhdx", "out/disk.img"],
    "everything": ["-S", "0", "--no-sync", "base.vhdx", "out/disk.img"],
    "to nothing": ["base.vhdx", "null:"],
    "with a digest": ["--hash", "sha256", "base.vhdx", "out/disk.img"],
    "verified": ["--verify", "base.vhdx", "out/disk.img"],
    "updated": ["--update", "--force", "base.vhdx", "old.img"],
    "as a batch": ["batch", "--output-dir", "out", "--jobs", "2", "base.vhdx", "child.vhdx"],
    "compared": ["compare", "base.vhdx", "base.img"],
    "hashed": ["hash", "base.vhdx"],
    "applied": ["apply", "child.vhdx", "base.img"],
    "tried": ["apply", "--dry-run", "child.vhdx", "base.img"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with two disks and an image of each kind."""
    monkeypatch.chdir(tmp_path)
    BASE.write(tmp_path / "base.vhdx")
    CHILD.write(tmp_path / "child.vhdx")
    (tmp_path / "out").mkdir()
    (tmp_path / "old.img").write_bytes(b"old" * MIB)
    assert main(["--save-state", "base.vhdx", "base.img"]) == 0
    return tmp_path


class EndlessWalk:
    """From a certain walk over a disk on, each is one without an end, and a signal comes."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.walks = 0

    def walk(self, usual: Iterator[Extent], length: int | None) -> Iterator[Extent]:
        self.walks += length is None
        if self.walks < self.first or length is not None:
            yield from usual
            return
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + TIMEOUT
        for extent in chain(usual, repeat(Extent(ExtentKind.ZERO, 4 * MIB, 0))):
            yield extent
            assert time.monotonic() < deadline, "the signal had no effect"

    def method(self, real: Callable[..., Iterator[Extent]]) -> object:
        def walk(disk: VirtualDisk, start: int = 0, length: int | None = None) -> Iterator[Extent]:
            return self.walk(real(disk, start, length), length)

        return walk


@pytest.mark.parametrize("what", WALKS)
def test_a_signal_ends_whatever_goes_over_a_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    """Once for each time that all of a disk is gone over; then the same command succeeds."""
    changed = {"updated": {"old.img"}, "applied": {"base.img", "base.img.state.json"}}
    kept = [path for path in folder.glob("*.*") if path.name not in changed.get(what, ())]
    before = [path.read_bytes() for path in kept]
    for first in count(1):
        endless = EndlessWalk(first)
        with monkeypatch.context() as patch:
            for name in ("stretches", "extents"):
                patch.setattr(VirtualDisk, name, endless.method(getattr(VirtualDisk, name)))
            code = main(WALKS[what])
        if endless.walks < first:
            break
        assert code == TERMINATED
        assert capfd.readouterr().err.endswith(SIGNAL_MESSAGES[signal.SIGTERM])
        for path in (folder / "out").iterdir():
            # The other file of the batch may be complete.
            assert what == "as a batch"
            assert has_expected_bytes(path, BASE if path.stem == "base" else CHILD)
            path.unlink()
        assert [path.read_bytes() for path in kept] == before
    assert code == 0
    assert first > 1


BLOCK = """
import os, signal, sys, threading
from vhdx2raw.cli import main
import vhdx2raw.{module} as module
def block(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
module.{name} = block
sys.exit(main(sys.argv[1:]))
"""
"""Runs the program so that opening a file never ends, as with a share that is gone."""


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("disk.virtual_disk.open_chain", ["base.vhdx", "out/disk.img"]),
        ("operations.apply.open_image", ["apply", "child.vhdx", "base.img"]),
        (
            "disk.virtual_disk.open_chain",
            ["batch", "--output-dir", "out", "base.vhdx", "child.vhdx"],
        ),
        ("disk.virtual_disk.open_chain", WALKS["as a batch"]),
        ("operations.discovery.read_found_image", WALKS["as a batch"]),
    ],
)
def test_a_signal_ends_what_opens_a_file(folder: Path, place: str, words: list[str]) -> None:
    module, _, name = place.rpartition(".")
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(module=module, name=name), *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == TERMINATED
    assert done.stderr.endswith(SIGNAL_MESSAGES[signal.SIGTERM])
    assert names_in(folder / "out") == []
