"""How much memory the program takes."""

import subprocess
import sys
from pathlib import Path

from tests.support.builder import KIB, MIB
from tests.support.cli import TIMEOUT

MAX_RESIDENT = 80 * MIB
"""The most that a run may take, however large its disk is."""

# Peak memory of the process itself: that of a child, as its parent sees it, can be that of the
# parent before the new program was loaded.
RUN_AND_MEASURE = """
import re, sys
from vhdx2raw.cli import main
code = main(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print("exit", code, "peak", peak)
"""


def run_and_measure(*arguments: str | Path) -> tuple[int, int, str]:
    """Run the program in a process; return its exit code, its peak memory and its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary, _, last = done.stdout.rstrip("\n").rpartition("\n")
    _, code, _, kilobytes = last.split()
    return int(code), int(kilobytes) * KIB, summary
