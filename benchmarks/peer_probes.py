"""Ways to find out what a tool can do, each with small images in an empty folder.

Each takes the name of a tool, and gives the cell of the table: None where this machine cannot
try it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peer_tools import (
    DISSECT,
    LIBVHDI,
    OURS,
    PROGRAM,
    QEMU,
    SEVEN_ZIP,
    TIMEOUT,
    convert_command,
    python_with_libraries,
)
from benchmarks.workloads import mounted
from tests.support.builder import GIB, MIB, Block, ImageSpec
from tests.support.cli import stored_zeros

YES, NO = "yes", "no"
SMALL = ImageSpec(16 * MIB, MIB, {0: Block(), 3: Block(content=0), 9: Block()})
LONG_SIZE = 256 * GIB
EMPTY_SIZE = 64 * GIB
ENDED_BY_SIGTERM = (-signal.SIGTERM, 128 + signal.SIGTERM, 255)
"""Exit codes: the signal itself, that of a program which cleans up, and that of 7-Zip."""


def run(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, whatever that is."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )


def converting(tool: str, source: Path, target: Path, *options: str) -> list[str]:
    """Give the command that converts, with options; 7-Zip chooses the last part of the name."""
    if tool == SEVEN_ZIP:
        return ["7zz", "x", "-y", "-tVHDX", *options, f"-o{target.parent}", str(source)]
    return [*convert_command(tool), *options, str(source), str(target)]


def _yes_if(condition: bool) -> str:  # noqa: FBT001 - the one thing that it is about
    return YES if condition else NO


def _write(folder: Path, spec: ImageSpec = SMALL, name: str = "disk") -> tuple[Path, Path]:
    spec.write(folder / f"{name}.vhdx")
    (folder / "out").mkdir(exist_ok=True)
    return folder / f"{name}.vhdx", folder / "out" / f"{name}.img"


def _takes_long(tool: str) -> ImageSpec:
    """Describe stored zeros, which take no space: ours passes over what are holes of the file."""
    if tool == OURS:
        return stored_zeros(LONG_SIZE)
    return ImageSpec(LONG_SIZE, 256 * MIB, {n: Block(content=0) for n in range(1024)})


def _is_small_disk(path: Path) -> bool:
    expected = SMALL.expected_disk(0, SMALL.virtual_disk_size)
    return path.exists() and path.read_bytes() == expected


def _makes_holes(spec: ImageSpec, tool: str, folder: Path) -> str:
    source, target = _write(folder, spec)
    # Stored zeros, not holes of the source: what a tool must look for.
    for index, block in spec.blocks.items():
        if block.content == 0:
            with source.open("r+b") as file:
                file.seek(spec.block_file_offset(index))
                file.write(bytes(spec.block_size))
    run(converting(tool, source, target)).check_returncode()
    return _yes_if(target.stat().st_blocks * 512 < spec.virtual_disk_size // 2)


def sparse_output(tool: str, folder: Path) -> str:
    """Convert a disk that is mostly absent."""
    return _makes_holes(SMALL, tool, folder)


def zeros_become_holes(tool: str, folder: Path) -> str:
    """Convert a disk that is mostly stored zeros."""
    stored = {n: Block(content=0) for n in range(1, 16)}
    return _makes_holes(ImageSpec(16 * MIB, MIB, {0: Block(), **stored}), tool, folder)


def standard_output(tool: str, folder: Path) -> str:
    """Convert into a pipe."""
    source, _ = _write(folder)
    target = {OURS: "-", QEMU: "/dev/stdout"}.get(tool, "")
    words = ["7zz", "x", "-so", "-tVHDX", str(source)]
    done = run(words if tool == SEVEN_ZIP else [*convert_command(tool), str(source), target])
    return _yes_if(done.stdout == SMALL.expected_disk(0, SMALL.virtual_disk_size))


def block_device(tool: str, folder: Path) -> str | None:
    """Convert to a loop device that is full of other bytes."""
    if os.geteuid():
        return None
    source, _ = _write(folder)
    backing = folder / "device"
    backing.write_bytes(b"\xa5" * SMALL.virtual_disk_size)
    found = run(["losetup", "--find", "--show", str(backing)])
    if found.returncode:
        return None
    device = found.stdout.decode().strip()
    option = "-n" if tool == QEMU else "--force"
    try:
        run(converting(tool, source, Path(device), option))
    finally:
        run(["losetup", "--detach", device])
    return _yes_if(_is_small_disk(backing))


def reflink(tool: str, folder: Path) -> str | None:
    """Convert on Btrfs and look for shared blocks."""
    options = ("-C",) if tool == QEMU else ()
    with mounted(folder, "btrfs", 256 * MIB) as mount:
        if mount is None or not shutil.which("filefrag"):
            return None
        source, target = _write(mount)
        run(converting(tool, source, target, *options)).check_returncode()
        run(["sync", "--file-system", str(target)])
        return _yes_if(b"shared" in run(["filefrag", "-v", str(target)]).stdout)


def progress(tool: str, folder: Path) -> str:
    """Ask for progress, where no terminal is."""
    source, target = _write(folder)
    options = {OURS: ("--progress", "json"), QEMU: ("-p",), SEVEN_ZIP: ("-bsp1", "-bb0")}
    done = run(converting(tool, source, target, *options[tool]))
    return _yes_if(any(mark in done.stdout + done.stderr for mark in (b"%", b'"bytes-done"')))


def json_info(tool: str, folder: Path) -> str:
    """Ask for the size of the disk as JSON."""
    source, _ = _write(folder)
    words = {OURS: [*PROGRAM, "info", "--json"], QEMU: ["qemu-img", "info", "--output=json"]}
    facts = json.loads(run([*words[tool], str(source)]).stdout)
    return _yes_if(facts["virtual-size"] == SMALL.virtual_disk_size)


def block_map(tool: str, folder: Path) -> str:
    """Ask where the disk is stored, as JSON."""
    source, _ = _write(folder)
    words = {OURS: [*PROGRAM, "map", "--json"], QEMU: ["qemu-img", "map", "--output=json"]}
    done = run([*words[tool], str(source)])
    offset = SMALL.block_file_offset(9)
    return _yes_if(done.returncode == 0 and str(offset).encode() in done.stdout)


def check(tool: str, folder: Path) -> str:
    """Check a sound image, and one with its end cut off."""
    source, _ = _write(folder)
    words = {
        OURS: [*PROGRAM, "check", str(source)],
        QEMU: ["qemu-img", "check", str(source)],
        SEVEN_ZIP: ["7zz", "t", "-tVHDX", str(source)],
    }
    is_sound = run(words[tool]).returncode == 0
    os.truncate(source, SMALL.block_file_offset(9))
    return _yes_if(is_sound and run(words[tool]).returncode != 0)


def compare(tool: str, folder: Path) -> str:
    """Compare with a raw image of the same bytes, and with one of others."""
    source, _ = _write(folder)
    raw = folder / "same.img"
    raw.write_bytes(SMALL.expected_disk(0, SMALL.virtual_disk_size))
    words = {
        OURS: [*PROGRAM, "compare", str(source), str(raw)],
        QEMU: ["qemu-img", "compare", "-f", "vhdx", "-F", "raw", str(source), str(raw)],
    }
    is_same = run(words[tool]).returncode == 0
    with raw.open("r+b") as file:
        file.seek(9 * MIB + 100)
        file.write(b"\0")
    return _yes_if(is_same and run(words[tool]).returncode == 1)


def digest(tool: str, folder: Path) -> str:
    """Ask for the SHA-256 of the disk."""
    source, _ = _write(folder)
    words = {OURS: [*PROGRAM, "hash"], SEVEN_ZIP: ["7zz", "t", "-tVHDX", "-scrcSHA256"]}
    done = run([*words[tool], str(source)])
    expected = hashlib.sha256(SMALL.expected_disk(0, SMALL.virtual_disk_size)).hexdigest()
    return _yes_if(expected.encode() in done.stdout)


def read_back(tool: str, folder: Path) -> str:
    """Convert and verify in one command."""
    source, target = _write(folder)
    return _yes_if(run(converting(tool, source, target, "--verify")).returncode == 0)


def nothing_left(tool: str, folder: Path) -> str:
    """End a conversion early by SIGTERM, and look for an output that seems to be whole."""
    source, target = _write(folder, _takes_long(tool))
    with subprocess.Popen(
        converting(tool, source, target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(1000):
            if any(target.parent.iterdir()):
                break
            time.sleep(0.01)
        else:
            raise RuntimeError(f"{tool} wrote nothing into {target.parent}")
        process.send_signal(signal.SIGTERM)
        if process.wait(TIMEOUT) not in ENDED_BY_SIGTERM:
            raise RuntimeError(f"{tool} was not ended by the signal")
    return _yes_if(not any(target.parent.iterdir()))


def several_inputs(tool: str, folder: Path) -> str:
    """Convert two images in one command, each to an output of its own."""
    sources = [_write(folder, name=name)[0] for name in ("a", "b")]
    out = folder / "out"
    names = list(map(str, sources))
    words = {
        OURS: [*PROGRAM, "batch", "--no-sync", "--output-dir", str(out), *names],
        QEMU: [*convert_command(QEMU), *names, str(out / "a.img")],
        SEVEN_ZIP: ["7zz", "x", "-y", "-tVHDX", f"-o{out}", str(folder / "*.vhdx")],
    }
    run(words[tool])
    return _yes_if(_is_small_disk(out / "a.img") and _is_small_disk(out / "b.img"))


def salvage(tool: str, folder: Path) -> str:
    """Convert a truncated image, taking what is there, with a list of what is not."""
    source, target = _write(folder)
    os.truncate(source, SMALL.block_file_offset(9))
    losses = folder / "losses.map"
    options = {
        OURS: ("--salvage", "--mapfile", str(losses)),
        QEMU: ("--salvage",),
        SEVEN_ZIP: (),
    }
    run(converting(tool, source, target, *options[tool]))
    if not target.exists() or target.read_bytes()[:MIB] != SMALL.expected_disk(0, MIB):
        return NO
    return YES if losses.exists() else "no list"


def python_api(tool: str, folder: Path) -> str:
    """Read a sector from Python."""
    source, _ = _write(folder)
    words = {
        OURS: "import sys, vhdx2raw; vhdx2raw.open(sys.argv[1]).pread(512, 0)",
        LIBVHDI: "import sys, pyvhdi; f = pyvhdi.file(); f.open(sys.argv[1]); f.read_buffer(512)",
        DISSECT: "import sys; from dissect.hypervisor.disk.vhdx import VHDX;"
        " VHDX(open(sys.argv[1], 'rb')).read(512)",
    }
    python = sys.executable if tool == OURS else python_with_libraries()
    return _yes_if(run([python, "-c", words[tool], str(source)]).returncode == 0)


def seconds_of_an_empty_disk(tool: str, folder: Path) -> str:
    """Convert an empty disk; 7-Zip to nowhere, because it would write every byte."""
    source, target = _write(folder, ImageSpec(EMPTY_SIZE, 32 * MIB))
    words = converting(tool, source, target)
    if tool == SEVEN_ZIP:
        words = ["7zz", "x", "-so", "-tVHDX", str(source)]
    start = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, timeout=TIMEOUT)
    return f"{time.perf_counter() - start:.1f} s"
