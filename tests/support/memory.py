"""The memory that some work takes, in this process or in one of its own."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from tests.support.builder import KIB, MIB
from tests.support.cli import TIMEOUT

MAX_RESIDENT = 80 * MIB
"""The most that a run of the program may take, however large its disk is."""

# Peak memory of the process itself: that of a child, as its parent sees it, can be that of the
# parent before the new program was loaded.
RUN_AND_MEASURE = """
import re, sys
from vhdx2raw.cli import main
code = main(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print("exit", code, "peak", peak)
"""


def peak_memory(work: Callable[[], object]) -> int:
    """Give the most bytes that Python has allocated at any moment of `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def run_and_measure(*arguments: str | Path) -> tuple[int, int, str]:
    """Run the program in a process; return its exit code, its peak memory and its stdout.

    If it succeeds, it must print nothing to stderr.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0
    summary, _, last = done.stdout.rstrip("\n").rpartition("\n")
    _, code, _, kilobytes = last.split()
    assert code != "0" or done.stderr == ""
    return int(code), int(kilobytes) * KIB, summary
