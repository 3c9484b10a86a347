"""A host that has no more threads is a failure of the host, whatever was to be done with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import MIB, ImageSpec
from tests.support.cli import run, small_disk
from tests.support.files import names_in
from vhdx2raw.cli.exit_codes import HOST_FAILURE

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
COMMANDS: dict[str, Sequence[str]] = {
    "convert": ("a.vhdx", "out/a.img"),
    "convert in one thread": ("--workers", "1", "a.vhdx", "out/a.img"),
    "--verify": ("--verify", "a.vhdx", "out/a.img"),
    "--hash": ("--hash", "md5", "a.vhdx", "out/a.img"),
    "null:": ("a.vhdx", "null:"),
    "hash": ("hash", "a.vhdx"),
    "hash of two": ("hash", "a.vhdx", "b.vhdx"),
    "compare": ("compare", "a.vhdx", "raw.img"),
    "compare two": ("compare", "--first", "a.vhdx", "b.vhdx"),
    "batch": ("batch", "--output-dir", "out", "a.vhdx", "b.vhdx"),
    "batch of two at a time": ("batch", "--output-dir", "out", "--jobs", "2", "a.vhdx", "b.vhdx"),
    "batch of JSON": ("batch", "--json", "--output-dir", "out", "--verify", "a.vhdx", "b.vhdx"),
}


class Threads:
    """Counts the threads that are started; from a certain one on, none can be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.available: int | None = None
        real_start = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if self.started == self.available:
                raise RuntimeError("can't start new thread")
            self.started += 1
            real_start(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    for name in ("a", "b"):
        small_disk().write(folder / f"{name}.vhdx")
    size = small_disk().virtual_disk_size
    (folder / "raw.img").write_bytes(small_disk().expected_disk(0, size))
    (folder / "out").mkdir()


@pytest.mark.parametrize("what", COMMANDS)
def test_missing_thread_is_a_host_failure(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """For each of the threads that are started."""
    threads = Threads(monkeypatch)
    assert run(capfd, *COMMANDS[what]).exit_code == 0
    needed = threads.started
    assert needed
    before = threading.active_count()
    for threads.available in range(needed):
        for image in (folder / "out").iterdir():
            image.unlink()
        threads.started = 0
        outcome = run(capfd, *COMMANDS[what])
        if threads.started < threads.available:
            continue  # threads of two jobs, which end in any order
        assert outcome.exit_code == HOST_FAILURE
        assert "can't start new thread" in outcome.err
        assert "fault of the program" not in outcome.err
        assert [name for name in names_in(folder / "out") if name.endswith(".part")] == []
        assert threading.active_count() == before


def test_batch_starts_no_more_threads_than_files(folder: Path, capfd: Capture) -> None:
    ImageSpec(MIB, MIB).write(folder / "a.vhdx")
    assert run(capfd, "batch", "--output-dir", "out", "--jobs", "64", "a.vhdx").exit_code == 0
