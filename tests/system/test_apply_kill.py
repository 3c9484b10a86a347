"""`apply` is killed at every step that changes something; the same command then ends right.

VHDX2RAW_KILLS is the number of kills at random moments.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.checkpoints import BASE, CHILD
from tests.support.cli import TIMEOUT
from vhdx2raw import convert
from vhdx2raw.operations.apply import apply_checkpoint
from vhdx2raw.operations.state import default_state_path

KILLS = int(os.environ.get("VHDX2RAW_KILLS", "10"))
KILLED = 9
DIE_AT_STEP = """\
import os, sys
from pathlib import Path
from threading import Lock
from vhdx2raw import host
from vhdx2raw.cli import main

child, image, number = sys.argv[1:]
left = int(number)
counting = Lock()

def dying(real):
    def call(*arguments, **options):
        global left
        with counting:
            left -= 1
            is_last = left == 0
        result = real(*arguments, **options)
        if is_last:
            os._exit(9)
        return result
    return call

for place, names in (
    (os, ("fsync", "ftruncate", "link", "pwrite", "rename", "replace", "unlink")),
    (Path, ("rename", "replace", "unlink")),
    (host, ("punch_hole",)),
):
    for name in names:
        setattr(place, name, dying(getattr(place, name)))
sys.exit(main(["apply", child, image]))
"""
"""Ends at once after the step of that number, as a lost machine does."""


class Place:
    """A base, its child and the image of the base."""

    def __init__(self, folder: Path) -> None:
        self.base, self.child = folder / "base.vhdx", folder / "child.vhdx"
        self.image = folder / "disk.img"
        BASE.write(self.base)
        CHILD.write(self.child)
        self.expected = CHILD.expected_disk(0, CHILD.virtual_disk_size)

    def convert_base(self) -> None:
        state = default_state_path(self.image)
        convert(self.base, self.image, force=True, sync=False, state=state)

    def assert_ends_right(self) -> None:
        """Run the same command again, which gives the child, whatever happened before."""
        apply_checkpoint(self.child, self.image)
        is_right = self.image.read_bytes() == self.expected
        assert is_right


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_killed_at_any_step_ends_right_again(place: Place) -> None:
    for number in range(1, 200):
        place.convert_base()
        command = [sys.executable, "-c", DIE_AT_STEP, str(place.child), str(place.image)]
        done = subprocess.run([*command, str(number)], check=False, timeout=TIMEOUT)
        place.assert_ends_right()
        if done.returncode == 0:
            assert number > 10  # so many steps there are at least
            return
        assert done.returncode == KILLED
    pytest.fail("more steps than were tried")


def test_killed_at_random_moments_ends_right_again(place: Place) -> None:
    chance = random.Random("moments")
    in_the_middle = 0
    for _ in range(KILLS):
        place.convert_base()
        state = Path(default_state_path(place.image))
        before = state.read_bytes()
        command = [sys.executable, "-m", "vhdx2raw", "apply", str(place.child), str(place.image)]
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + TIMEOUT
            while state.read_bytes() == before and time.monotonic() < deadline:
                if process.poll() is not None:
                    break
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        in_the_middle += b'"applying": null' not in state.read_bytes()
        place.assert_ends_right()
    sys.stdout.write(f"{KILLS} kills, {in_the_middle} of them in the middle\n")
