"""`convert --resume` is killed at random moments until it is done; then the bytes are right.

VHDX2RAW_KILLS is the number of kills.
"""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import TIMEOUT
from tests.support.files import has_expected_bytes, names_in

KILLS = int(os.environ.get("VHDX2RAW_KILLS", "15"))
RUN = """\
import sys
from vhdx2raw.cli import main
from vhdx2raw.operations import resume
resume.RENEW_SECONDS = 0
sys.exit(main(sys.argv[1:]))
"""
DISK = ImageSpec(96 * MIB, MIB, {index: Block() for index in range(96) if index % 7})


STRAY_JOURNAL = re.compile(r"\.\.x\.img\.resume\.json\.[0-9a-f]{16}\.part")


def test_killed_at_random_moments_ends_right(tmp_path: Path) -> None:
    DISK.write(tmp_path / "disk.vhdx")
    chance = random.Random("resume")
    words = ["--resume", "--json", "--progress", "always", "--workers", "2", "disk.vhdx", "x.img"]
    command = [sys.executable, "-c", RUN, *words]
    resumed = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + TIMEOUT
            while ".x.img.resume.part" not in names_in(tmp_path) and process.poll() is None:
                assert time.monotonic() < deadline
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
        resumed += ".x.img.resume.json" in names_in(tmp_path)
        if "x.img" in names_in(tmp_path):
            assert has_expected_bytes(tmp_path / "x.img", DISK)
            (tmp_path / "x.img").unlink()
    subprocess.run(command, cwd=tmp_path, check=True, timeout=TIMEOUT, capture_output=True)
    assert has_expected_bytes(tmp_path / "x.img", DISK)
    # As after any SIGKILL, the temporary name of a file that was just being replaced may stay.
    left = [name for name in names_in(tmp_path) if "resume" in name]
    assert [name for name in left if not STRAY_JOURNAL.fullmatch(name)] == []
    sys.stdout.write(f"{KILLS} kills, {resumed} of them with something to go on with\n")
