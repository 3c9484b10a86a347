"""A thousand disks, killed twice in the middle and run again: each newest state just once.

VHDX2RAW_DISKS is the number of disks.
"""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest

from tests.support.builder import MIB, ImageSpec, child_of
from tests.support.chains import small_disk
from tests.support.cli import TIMEOUT, Outcome, run_program, start_program
from tests.support.files import has_expected_bytes, names_in
from tests.support.peers import SHARED_MEMORY

DISKS = int(os.environ.get("VHDX2RAW_DISKS", "1000"))
WORDS = ("batch", "in", "--output-dir", "raw", "--no-sync", "--jobs", "2")
AGAIN = (*WORDS, "--results", "done.jsonl", "--skip-done", "--hash", "sha256")


def write_tree(folder: Path) -> tuple[dict[str, ImageSpec], set[str]]:
    """Write disks, each fifth one with two checkpoints; give the newest states and what is broken.

    Each fiftieth is cut off, each other fiftieth lacks its parent.
    """
    tips: dict[str, ImageSpec] = {}
    broken = set()
    for number in range(DISKS):
        home = folder / "in" / f"{number % 7}" / f"{number % 11}"
        home.mkdir(parents=True, exist_ok=True)
        spec = small_disk(data_write_guid=UUID(int=4 * number + 1))
        path = home / f"vm{number}.vhdx"
        spec.write(path)
        for generation in (1, 2) if number % 5 == 0 else ():
            name, path = path.name, home / f"vm{number}-{generation}.avhdx"
            guid = UUID(int=4 * number + 1 + generation)
            spec = child_of(spec, f".\\{name}", data_write_guid=guid)
            spec.write(path)
        if number % 50 == 20:
            (home / f"vm{number}.vhdx").unlink()
            broken.add(str(path.relative_to(folder)))
        elif number % 50 == 7:
            os.truncate(path, path.stat().st_size - 4096)
            broken.add(str(path.relative_to(folder)))
        else:
            below = path.relative_to(folder / "in").with_suffix(".img")
            tips[str("raw" / below)] = spec
    return tips, broken


def results(folder: Path) -> list[dict[str, object]]:
    path = folder / "done.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def count_of_results(folder: Path) -> int:
    path = folder / "done.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def end_in_the_middle(folder: Path, number: signal.Signals, at: int) -> tuple[int, str]:
    """Start the batch, and send a signal when there are so many results."""
    with start_program(*AGAIN, cwd=folder) as process:
        deadline = time.monotonic() + 5 * TIMEOUT
        while count_of_results(folder) < at:
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, text = process.communicate(timeout=TIMEOUT)
    return process.returncode, text.decode()


def files_in(folder: Path) -> set[str]:
    paths = (path for path in (folder / "raw").rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)) for path in paths}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for everything; in memory if it has room, since disks remove files slowly."""
    is_usable = os.access(SHARED_MEMORY, os.W_OK)
    has_room = is_usable and shutil.disk_usage(SHARED_MEMORY).free > DISKS * 4 * MIB
    with TemporaryDirectory(dir=SHARED_MEMORY if has_room else tmp_path) as name:
        yield Path(name)


def test_each_newest_state_once_though_killed_twice(place: Path) -> None:
    tips, broken = write_tree(place)
    clash = place / "in/0/0/VM0-2.vhdx"
    small_disk().write(clash)
    outcome = run_program(*AGAIN, cwd=place)
    assert (outcome.exit_code, names_in(place)) == (7, ["in"])
    clash.unlink()

    code, _ = end_in_the_middle(place, signal.SIGKILL, DISKS // 4)
    assert code == -signal.SIGKILL
    code, text = end_in_the_middle(place, signal.SIGTERM, DISKS // 2)
    assert code == 128 + signal.SIGTERM
    summary, last = text.splitlines()[-2:]
    assert last == "vhdx2raw: ended by SIGTERM"
    assert " converted" in summary
    assert " left" in summary

    final = run_program(*AGAIN, cwd=place)
    assert final.exit_code in (5, 6)
    assert files_in(place) == {*tips}
    digests = {name: spec.expected_sha256() for name, spec in tips.items()}
    assert_complete(place, digests, broken)
    for name, spec in list(tips.items())[:: max(1, DISKS // 50)]:
        assert has_expected_bytes(place / name, spec)
    assert_printed(final, digests)


def assert_complete(place: Path, digests: dict[str, str], broken: set[str]) -> None:
    """Make sure that each tip has one line, and each broken file a failure."""
    lines = results(place)
    converted = Counter(line["destination"] for line in lines if line["status"] == "converted")
    assert converted == dict.fromkeys(digests, 1)
    assert {line["source"] for line in lines if line["status"] == "failed"} == broken
    for line in lines:
        if line["status"] == "converted":
            assert line["digests"] == {"sha256": digests[str(line["destination"])]}


def assert_printed(outcome: Outcome, digests: dict[str, str]) -> None:
    """Make sure that the last run has printed the digests of all, also of those done before."""
    lines = (line.partition("  ") for line in outcome.out.splitlines())
    assert {name: digest for digest, _, name in lines} == digests
