"""Running commands and measuring them as whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}
"""Of what is measured: an installed Python program finds its modules compiled, and a checkout has
them compiled by the run that is not counted."""
WARM_MEMORY = min(8 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
"""Bytes that are taken and given back before each run that writes. A virtual machine hands free
memory to its host, and getting it back can cost more than the copy: with 3 GiB, two runs of one
program on 2 GiB differed by a factor of three."""


@dataclass(frozen=True)
class Command:
    """One way to do a job.

    Attributes:
        name: How it is called in the table.
        words: What is run, without a shell.
        output: The file that it makes, removed before each run; None if it makes none.
        then: A second command that belongs to the job, such as one that waits for the disk.
        cold: Files that are not in memory when it starts.
    """

    name: str
    words: list[str]
    output: Path | None = None
    then: list[str] | None = None
    cold: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Run:
    """What one run took: seconds of wall time and of all processors, and KiB of memory."""

    wall: float
    cpu: float
    peak_kib: int


@dataclass(frozen=True)
class Result:
    """The runs of one command."""

    command: Command
    runs: list[Run]

    @property
    def wall(self) -> float:
        """Median seconds."""
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """Median seconds of all processors."""
        return median(run.cpu for run in self.runs)

    @property
    def peak_kib(self) -> int:
        """The most memory of any run."""
        return max(run.peak_kib for run in self.runs)


def measure(commands: list[Command], rounds: int) -> list[Result]:
    """Run the commands in turn, `rounds` times after one that is not counted."""
    runs: dict[str, list[Run]] = {command.name: [] for command in commands}
    for number in range(rounds + 1):
        for command in commands:
            run = _run_once(command)
            if number:
                runs[command.name].append(run)
    return [Result(command, runs[command.name]) for command in commands]


def _run_once(command: Command) -> Run:
    if command.output:
        command.output.unlink(missing_ok=True)
    os.sync()  # what an earlier run left to be written must not be charged to this one
    if command.output:
        subprocess.run([sys.executable, "-c", f"b'x' * {WARM_MEMORY}"], check=True)
    for path in command.cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    parts = [_run_process(words) for words in (command.words, command.then) if words]
    wall = time.perf_counter() - start
    if command.output:
        command.output.unlink(missing_ok=True)
    return Run(wall, sum(cpu for cpu, _ in parts), max(peak for _, peak in parts))


def _run_process(words: list[str]) -> tuple[float, int]:
    """Run one process; return its seconds of processor and its peak memory in KiB."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stderr is not None
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {process.returncode}: {stderr!r}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss
