"""Make the workloads, run everything in turn, print a table and write JSON."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.measure import Command, Result, measure
from benchmarks.remote import run_remote
from benchmarks.workloads import (
    MEMORY_FIGURE,
    WALL_FIGURE,
    WORKLOADS,
    Target,
    Workload,
    make_checkpoint,
    make_dense,
    make_many,
    mounted,
)
from tests.support.builder import GIB, MIB

PROGRAM = [str(Path(sys.executable).parent / "vhdx2raw")]
SAMPLE = Path(__file__).parents[1] / "testdata" / "sample.vhdx"
UNSYNCED = "vhdx2raw --no-sync"
SYNCED = "vhdx2raw"
START_UP = "start-up"
APPLY = "apply"
REMOTE = "remote"
FETCHED = Target("bytes fetched / bytes stored", 1.05)
BATCH = "batch"
FULL = "full conversion"
MOUNT = "mount"
PASSTHROUGH = "passthrough"
SHORT_ROUNDS = 4
"""How many times as often to measure what takes a tenth of a second."""
PLAIN = "result.img"
"""The result, for `cp` to make once more, its holes included."""
SYNC_SUFFIX = " + sync"
"""Ends the name of a command that waits for the disk; such are compared with such."""


OWN_TARGETS = {
    START_UP: [Target(WALL_FIGURE, 0.08)],
    APPLY: [Target(FULL, 0.05)],
    REMOTE: [Target("curl", 1.3), Target("curl + sync", 1.3)],
    BATCH: [Target(WALL_FIGURE, 10.0)],
    MOUNT: [Target(PASSTHROUGH, 1 / 0.6)],
}


@dataclass(frozen=True)
class Judgement:
    """A target and what was measured."""

    name: str
    value: float
    limit: float

    def __str__(self) -> str:
        """Format it as a row of a table."""
        verdict = "reached" if self.value <= self.limit else "**missed**"
        return f"| {self.name} | {self.value:.3g} | {self.limit:g} | {verdict} |"


def main() -> None:
    """Parse the options and run."""
    names = [*WORKLOADS, APPLY, BATCH, MOUNT, REMOTE, START_UP]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the full disks (2048)")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each (5)")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder)")
    parser.add_argument("--only", action="append", choices=names, help="run this one; repeat it")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    print(f"{machine()}; full disks of {options.size} MiB, {options.rounds} rounds\n")
    print("| workload | command | wall s | CPU s | peak MiB | wall of ours / this |")
    print("|---|---|---|---|---|---|")
    figures: list[dict[str, object]] = []
    judgements: list[Judgement] = []
    for name in options.only or names:
        if name == REMOTE:
            results, fetched = run_remote(
                PROGRAM, options.size * MIB, options.rounds, options.folder
            )
            label = f"{name}: {FETCHED.figure}"
            judgements.append(Judgement(label, fetched, FETCHED.limit))
        else:
            results = run(name, options.size * MIB, options.rounds, options.folder)
        figures += report(name, results)
        targets = OWN_TARGETS[name] if name in OWN_TARGETS else WORKLOADS[name].targets
        judgements += judge(name, targets, results)
    print("\n| target | measured | at most | |\n|---|---|---|---|")
    print("\n".join(map(str, judgements)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2))


def machine() -> str:
    """Describe where this runs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    cpus = len(os.sched_getaffinity(0))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"Linux {platform.release()}, {cpus} CPUs, {memory} GiB, {python}"


def run(name: str, size: int, rounds: int, folder: Path | None) -> list[Result]:
    """Make one workload, measure it and remove it; no result where it cannot be made."""
    if name == START_UP:
        commands = [Command("vhdx2raw info", [*PROGRAM, "info", str(SAMPLE)])]
        commands += [
            Command(statement, [sys.executable, "-c", statement])
            for statement in ("import typer", "pass")
        ]
        return measure(commands, SHORT_ROUNDS * rounds)
    if name == APPLY:
        return run_apply(size, rounds, folder)
    if name == MOUNT:
        return run_mount(size, rounds, folder)
    if name == BATCH:
        return run_batch(rounds, folder)
    workload = WORKLOADS[name]
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="vhdx2raw-bench-", dir=folder)
        work: Path | None = Path(stack.enter_context(temporary))
        if workload.file_system and work:
            work = stack.enter_context(mounted(work, workload.file_system, 4 * size + GIB))
        if work is None:
            print(f"| {name} | skipped: needs root and mkfs.{workload.file_system} | | | | |")
            return []
        # In a process of its own: a child begins with the memory of its parent, so a parent that
        # has grown would be measured with every command.
        maker = multiprocessing.Process(target=workload.make, args=(work, size))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError(f"the workload {name} could not be made")
        commands = commands_for(workload, work)
        if workload.copied and not workload.opened:
            plain = work / PLAIN
            subprocess.run([*PROGRAM, str(work / workload.source), str(plain)], check=True)
        if workload.cold:
            cold = tuple(work.iterdir())
            commands = [replace(command, cold=cold) for command in commands]
        return measure(commands, rounds)


def run_apply(size: int, rounds: int, folder: Path | None) -> list[Result]:
    """Measure a checkpoint that is put onto an image again and again, and its full conversion."""
    with tempfile.TemporaryDirectory(prefix="vhdx2raw-bench-", dir=folder) as name:
        work = Path(name)
        maker = multiprocessing.Process(target=make_checkpoint, args=(work, size))
        maker.start()
        maker.join()
        image, state = work / "disk.img", work / "base.json"
        convert = [*PROGRAM, "--state", str(state), str(work / "base.vhdx"), str(image)]
        subprocess.run(convert, check=True)
        child, saved = str(work / "child.avhdx"), f"{image}.state.json"
        # The image has the changes after the first run; what is written stays the same.
        again = f"cp {shlex.quote(str(state))} {shlex.quote(saved)}"
        apply = shlex.join([*PROGRAM, "apply", "--force", child, str(image)])
        output = work / "output.img"
        commands = [
            Command("vhdx2raw apply", ["sh", "-c", f"{again} && exec {apply}"]),
            Command(FULL, [*PROGRAM, child, str(output)], output),
        ]
        return measure(commands, rounds)


def run_mount(size: int, rounds: int, folder: Path | None) -> list[Result]:
    """Measure reading a mounted disk, and its VHDX file through a folder that is only passed on."""
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="vhdx2raw-bench-", dir=folder)
        work = Path(stack.enter_context(temporary))
        maker = multiprocessing.Process(target=make_dense, args=(work, size))
        maker.start()
        maker.join()
        (source,) = work.iterdir()
        servers = {
            "vhdx2raw mount": ([*PROGRAM, "mount", str(source)], "disk.img"),
            PASSTHROUGH: ([sys.executable, "-m", "benchmarks.passthrough", str(work)], source.name),
        }
        commands = []
        for name, (words, file) in servers.items():
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            subprocess.run([*words, str(place)], check=True)
            stack.callback(subprocess.run, ["fusermount3", "-u", str(place)], check=True)
            read = ["dd", f"if={place / file}", "of=/dev/null", "bs=1M", "status=none"]
            # What the kernel keeps of a mount is not measured.
            commands.append(Command(name, read, cold=(place / file,)))
        return measure(commands, rounds)


def run_batch(rounds: int, folder: Path | None) -> list[Result]:
    """Measure a thousand small disks in a folder, with a line of results for each."""
    with tempfile.TemporaryDirectory(prefix="vhdx2raw-bench-", dir=folder) as name:
        work = Path(name)
        maker = multiprocessing.Process(target=make_many, args=(work / "in",))
        maker.start()
        maker.join()
        output, results = work / "out", work / "results.jsonl"
        anew = shlex.join(["rm", "-rf", str(output), str(results)])
        words = [*PROGRAM, "batch", str(work / "in"), "--output-dir", str(output)]
        batch = shlex.join([*words, "--results", str(results)])
        commands = [
            Command(how, ["sh", "-c", f"{anew} && exec {batch} {options}"])
            for how, options in ((SYNCED, ""), ("--jobs 4", "--jobs 4"), (UNSYNCED, "--no-sync"))
        ]
        return measure(commands, rounds)


def commands_for(workload: Workload, folder: Path) -> list[Command]:
    """List the programs that convert this workload, ours first."""
    output = (workload.output or folder) / "output.img"
    source, target = str(folder / workload.source), str(output)
    sync = ["sync", target]
    if workload.opened:
        return [Command("vhdx2raw info", [*PROGRAM, "info", source])]
    commands = [
        Command(UNSYNCED, [*PROGRAM, "--no-sync", source, target], output),
        Command(SYNCED, [*PROGRAM, source, target], output),
    ]
    if "qemu" in workload.readers and shutil.which("qemu-img"):
        qemu = ["qemu-img", "convert", "-O", "raw", source, target]
        parallel = [*qemu[:-2], "-W", "-m", "16", source, target]
        commands.append(Command("qemu-img", qemu, output))
        commands.append(Command("qemu-img -W -m 16", parallel, output))
        commands.append(Command(f"qemu-img{SYNC_SUFFIX}", qemu, output, sync))
    if workload.copied:
        copy = ["cp", "--reflink=never", str(folder / PLAIN), target]
        commands.append(Command("cp", copy, output))
        commands.append(Command(f"cp{SYNC_SUFFIX}", copy, output, sync))
    if "7z" in workload.readers and shutil.which("7zz"):
        commands.append(Command("7zz to /dev/null", ["7zz", "x", "-so", source]))
    return commands


def report(name: str, results: list[Result]) -> list[dict[str, object]]:
    """Print the rows of one workload and return them as figures."""
    figures: list[dict[str, object]] = []
    for result in results:
        # What waits for the disk is compared with what waits for the disk.
        own = results[1 if result.command.then and len(results) > 1 else 0]
        ratio = own.wall / result.wall
        print(
            f"| {name} | {result.command.name} | {result.wall:.3f} | {result.cpu:.3f}"
            f" | {result.peak_kib / 1024:.0f} | {ratio:.2f} |",
            flush=True,
        )
        runs = [asdict(run) for run in result.runs]
        figures.append({"workload": name, "command": result.command.name, "runs": runs})
    return figures


def judge(name: str, targets: list[Target], results: list[Result]) -> list[Judgement]:
    """Hold the results against the targets."""
    walls = {result.command.name: result.wall for result in results}
    judgements: list[Judgement] = []
    for target in targets if results else []:
        if target.figure == MEMORY_FIGURE:
            value = max(result.peak_kib for result in results[:2]) / 1024
        elif target.figure == WALL_FIGURE:
            value = walls.get(SYNCED, results[0].wall)
        elif target.figure in walls:
            own = walls[SYNCED] if target.figure.endswith(SYNC_SUFFIX) else results[0].wall
            value = own / walls[target.figure]
        else:
            raise RuntimeError(f"{name}: {target.figure} is not installed")
        judgements.append(Judgement(f"{name}: {target.figure}", value, target.limit))
    return judgements


if __name__ == "__main__":
    main()
