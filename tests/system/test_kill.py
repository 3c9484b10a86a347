"""SIGKILL at any moment: under the final name lies a perfect image or none, or the old one.

VHDX2RAW_KILLS is the number of kills, half of them while an old file is being replaced.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import TIMEOUT
from tests.support.files import names_in, sha256_of

KILLS = int(os.environ.get("VHDX2RAW_KILLS", "25"))
LOOP = """\
import sys
from itertools import count
from vhdx2raw.cli import main
source, target, *words = sys.argv[1:]
for number in count():
    code = main([*words, source, target.format(number)])
    if code:
        sys.exit(code)
"""
"""Converts again and again: to new names, or to one name if the target has no braces."""
TEMPORARY = re.compile(r"\.out.*\.img\.[0-9a-f]{16}\.part")
LONGEST_WAIT = 0.1

OLD_DISK = ImageSpec(3 * MIB, MIB, {index: Block(content=b"old") for index in range(3)})
NEW_DISK = ImageSpec(6 * MIB, MIB, {index: Block() for index in range(6)})


@dataclass
class Place:
    """A disk, and a folder for what becomes of it."""

    source: Path
    outputs: Path

    def kill_once(self, delay: float, target: str, *words: str) -> None:
        """Start to convert again and again, and kill that `delay` seconds after it began."""
        command = [sys.executable, "-c", LOOP, str(self.source), str(self.outputs / target), *words]
        known = set(names_in(self.outputs))
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + TIMEOUT
            while set(names_in(self.outputs)) == known:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(delay)
            process.kill()
            assert process.stderr
            assert process.stderr.read() == b""
        assert process.returncode == -signal.SIGKILL

    def take_leftovers(self) -> int:
        """Remove the temporary file that a kill left, of which there is one at most."""
        leftovers = [name for name in names_in(self.outputs) if name.startswith(".")]
        assert len(leftovers) <= 1
        for name in leftovers:
            assert TEMPORARY.fullmatch(name)
            (self.outputs / name).unlink()
        return len(leftovers)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a disk of nothing but data, and an empty folder."""
    place = Place(tmp_path / "disk.vhdx", tmp_path / "outputs")
    place.outputs.mkdir()
    NEW_DISK.write(place.source)
    return place


def test_killed_conversion_leaves_only_perfect_files(place: Place) -> None:
    chance = random.Random("new names")
    before = place.source.stat().st_mtime_ns, sha256_of(place.source)
    new = NEW_DISK.expected_sha256()
    found: Counter[str] = Counter()
    for _ in range(-(-KILLS // 2)):
        place.kill_once(chance.uniform(0, LONGEST_WAIT), "out{}.img")
        found["temporary"] += place.take_leftovers()
        for name in names_in(place.outputs):
            assert re.fullmatch(r"out\d+\.img", name)
            assert sha256_of(place.outputs / name) == new
            (place.outputs / name).unlink()
            found["perfect"] += 1
    sys.stdout.write(f"{KILLS} kills in all, of these here: {dict(found)}\n")
    assert found["temporary"], "no kill came in the middle of a conversion"
    assert (place.source.stat().st_mtime_ns, sha256_of(place.source)) == before


def test_killed_replacement_leaves_old_or_new_file(place: Place) -> None:
    chance = random.Random("one name")
    before = place.source.stat().st_mtime_ns, sha256_of(place.source)
    old, new = OLD_DISK.expected_sha256(), NEW_DISK.expected_sha256()
    target = place.outputs / "out.img"
    found: Counter[str] = Counter()
    for _ in range(KILLS // 2):
        target.write_bytes(OLD_DISK.expected_disk(0, OLD_DISK.virtual_disk_size))
        # A moment in the first conversion or the second: mostly, the old file is still there.
        place.kill_once(chance.uniform(0, LONGEST_WAIT / 2), "out.img", "--force")
        found["temporary"] += place.take_leftovers()
        assert names_in(place.outputs) == ["out.img"]
        found[{old: "old", new: "new"}.get(sha256_of(target), "wrong")] += 1
    sys.stdout.write(f"{KILLS} kills in all, of these here: {dict(found)}\n")
    assert not found["wrong"]
    assert found["temporary"], "no kill came in the middle of a conversion"
    assert (place.source.stat().st_mtime_ns, sha256_of(place.source)) == before
