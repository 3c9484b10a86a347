"""The disks that are converted, and the targets that each must reach."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tests.support.builder import GIB, KIB, MIB, TIB, Block, BlockState, ImageSpec, child_of

TMPFS = Path("/dev/shm")  # noqa: S108 - the one place that is in memory on every Linux
PATTERN_SIZE = 64 * MIB


@dataclass(frozen=True)
class Target:
    """A promise: the ratio to a rival, or a figure by itself, is at most `limit`."""

    figure: str
    limit: float


@dataclass
class Workload:
    """A disk to be converted.

    Attributes:
        make: Writes the VHDX file (and more) into a folder, for disks of so many bytes.
        source: The name of that file.
        copied: Whether to compare with `cp` of the result, which keeps its holes.
        readers: Other programs that can read this disk: ``qemu``, ``7z``.
        targets: What must be reached.
        file_system: The file system to work on, made for this purpose.
        output: The folder for the output, if it is not that of the source.
        cold: Whether nothing that is read is in memory before.
        opened: Whether it is only opened, because its table takes long to check.
    """

    make: Callable[[Path, int], None]
    source: str
    copied: bool = True
    readers: tuple[str, ...] = ()
    targets: list[Target] = field(default_factory=list)
    file_system: str = ""
    output: Path | None = None
    cold: bool = False
    opened: bool = False


def random_piece(seed: int) -> Callable[[int, int], bytes]:
    """Return a source of bytes without runs of zeros, different for each offset, and fast."""
    pattern = random.Random(seed).randbytes(PATTERN_SIZE + 4096)  # noqa: S311

    def content(virtual_offset: int, length: int) -> bytes:
        start = virtual_offset // 512 % 4096
        piece = bytearray(pattern[start : start + length])
        for place in range(0, length, 4096):
            piece[place : place + 8] = (virtual_offset + place + 1).to_bytes(8, "little")
        return bytes(piece)

    return content


def make_dense(folder: Path, size: int) -> None:
    """Write a full dynamic disk of 1 MiB blocks."""
    block = Block(content=random_piece(1))
    ImageSpec(size, MIB, dict.fromkeys(range(size // MIB), block)).write(folder / "dense.vhdx")


def make_checkpoint(folder: Path, size: int) -> None:
    """Write a full disk, and a checkpoint of it that changes one hundredth of its blocks."""
    content = random_piece(1)
    blocks = {index: Block(content=content) for index in range(size // MIB)}
    base = ImageSpec(size, MIB, blocks)
    base.write(folder / "base.vhdx")
    block = Block(BlockState.FULLY_PRESENT, content=random_piece(4))
    child_of(
        base,
        ".\\base.vhdx",
        block_size=MIB,
        blocks=dict.fromkeys(range(50, size // MIB, 100), block),
        file_write_guid=UUID(int=1),
        data_write_guid=UUID(int=1),
    ).write(folder / "child.avhdx")


def make_many(folder: Path) -> None:
    """Write a thousand disks of 1 MiB into ten folders."""
    disk = ImageSpec(MIB, MIB, {0: Block(content={0: b"data"})})
    for number in range(1000):
        home = folder / str(number % 10)
        home.mkdir(parents=True, exist_ok=True)
        disk.write(home / f"disk{number}.vhdx")


def make_shuffled(folder: Path, size: int) -> None:
    """Write a full dynamic disk whose blocks lie in random order."""
    content = random_piece(1)
    order = list(range(size // MIB))
    random.Random(7).shuffle(order)  # noqa: S311
    blocks = {index: Block(content=content) for index in order}
    ImageSpec(size, MIB, blocks).write(folder / "shuffled.vhdx")


def make_sparse(folder: Path, _size: int) -> None:
    """Write a disk of 100 GiB with half a GiB in five places."""
    block = Block(content=random_piece(2))
    places = (20 * 1024 * place + index for place in range(5) for index in range(102))
    ImageSpec(100 * GIB, MIB, dict.fromkeys(places, block)).write(folder / "sparse.vhdx")


def make_mostly_zero(folder: Path, size: int) -> None:
    """Write a disk whose blocks are all stored, with 4 KiB of data in each MiB."""
    block = Block(content={0: b"\xa5" * 4096})
    spec = ImageSpec(size, MIB, dict.fromkeys(range(size // MIB), block))
    spec.write(folder / "zeros.vhdx")
    # Stored zeros, not holes: the zeros of a real disk take space in the file.
    with (folder / "zeros.vhdx").open("r+b") as file:
        for index in range(size // MIB):
            file.seek(spec.block_file_offset(index) + 4096)
            file.write(bytes(MIB - 4096))


def make_nearly_empty(folder: Path, _size: int) -> None:
    """Write a disk of 64 TiB with 1 MiB blocks, four of them stored."""
    blocks = {index: Block() for index in (0, 5000, 40_000_000, 64 * 1024 * 1024 - 1)}
    ImageSpec(64 * TIB, MIB, blocks).write(folder / "empty.vhdx")


def make_source_holes(folder: Path, size: int) -> None:
    """Write a disk of twice the size, all blocks stored, nine tenths of them holes of the file."""
    block = Block(content={0: random_piece(5)(0, 100 * KIB)})
    path = folder / "holes.vhdx"
    ImageSpec(2 * size, MIB, dict.fromkeys(range(2 * size // MIB), block)).write(path)
    # The builder has written the zeros as well.
    subprocess.run(["fallocate", "--dig-holes", str(path)], check=True)


def make_fragments(step: int) -> Callable[[Path, int], None]:
    """Return what writes a child that has every second piece of `step` bytes of a full parent."""

    def make(folder: Path, size: int) -> None:
        count = size // (2 * MIB)
        full = Block(content=random_piece(3))
        parent = ImageSpec(size, 2 * MIB, dict.fromkeys(range(count), full))
        parent.write(folder / "parent.vhdx")
        bits = {sector for sector in range(4096) if sector * 512 // step % 2}
        block = Block(BlockState.PARTIALLY_PRESENT, random_piece(4), sector_bits=bits)
        child = child_of(
            parent,
            ".\\parent.vhdx",
            block_size=2 * MIB,
            blocks=dict.fromkeys(range(count), block),
            file_write_guid=UUID(int=1),
            data_write_guid=UUID(int=1),
        )
        child.write(folder / "child.vhdx")

    return make


def make_random_order(folder: Path, _size: int) -> None:
    """Write a disk of a TiB, whose 1 MiB blocks lie in random order; all of them are holes."""
    count = TIB // MIB
    order = list(range(count))
    random.Random(1).shuffle(order)  # noqa: S311
    write_table(folder / "random.vhdx", TIB, order)


def make_in_order(folder: Path, _size: int) -> None:
    """Write a disk of 15 TiB, near the most that ext4 has in a file, its blocks in order."""
    write_table(folder / "order.vhdx", 15 * TIB, range(15 * TIB // MIB))


def write_table(path: Path, size: int, order: Sequence[int]) -> None:
    """Write a disk of 1 MiB blocks that lie in this order, the table without a builder's blocks."""
    spec = ImageSpec(size, MIB, {0: Block(content=0)})
    spec.write(path)
    ratio, table = 4096, spec.bat_offset
    first = spec.block_file_offset(0)
    with path.open("r+b") as file:
        file.truncate(first + len(order) * MIB)
        file.seek(table)
        for chunk in range(0, len(order), ratio):
            places = (first + index * MIB | 6 for index in order[chunk : chunk + ratio])
            file.write(array("Q", [*places, 0]).tobytes())


MEMORY_FIGURE = "peak MiB"
WALL_FIGURE = "wall s"
MEMORY = Target(MEMORY_FIGURE, 40)
SHARED = [Target("cp", 0.3), Target("cp + sync", 0.3), MEMORY]

WORKLOADS = {
    "dense": Workload(
        make_dense,
        "dense.vhdx",
        readers=("qemu", "7z"),
        targets=[
            Target("cp", 1.2),
            Target("cp + sync", 0.95),
            Target("qemu-img + sync", 1),
            MEMORY,
        ],
    ),
    "sparse": Workload(
        make_sparse, "sparse.vhdx", readers=("qemu",), targets=[Target("cp + sync", 1.2), MEMORY]
    ),
    "source holes": Workload(
        make_source_holes,
        "holes.vhdx",
        readers=("qemu",),
        targets=[Target("cp + sync", 1.3), MEMORY],
    ),
    "fragments of 4 KiB": Workload(
        make_fragments(4 * KIB), "child.vhdx", targets=[Target("cp", 3), MEMORY]
    ),
    "fragments of 64 KiB": Workload(
        make_fragments(64 * KIB), "child.vhdx", targets=[Target("cp", 1.5), MEMORY]
    ),
    "dense, cold": Workload(
        make_dense, "dense.vhdx", cold=True, targets=[Target("cp + sync", 1.05), MEMORY]
    ),
    "shuffled, cold": Workload(
        make_shuffled, "shuffled.vhdx", cold=True, targets=[Target("cp + sync", 1.25), MEMORY]
    ),
    "zeros": Workload(make_mostly_zero, "zeros.vhdx", readers=("qemu", "7z"), targets=[MEMORY]),
    "xfs": Workload(make_dense, "dense.vhdx", targets=SHARED, file_system="xfs"),
    "btrfs": Workload(make_dense, "dense.vhdx", targets=SHARED, file_system="btrfs"),
    "empty": Workload(
        make_nearly_empty,
        "empty.vhdx",
        copied=False,
        targets=[Target(WALL_FIGURE, 0.5), Target(MEMORY_FIGURE, 32)],
        output=TMPFS,
    ),
    "opening, random order": Workload(
        make_random_order, "random.vhdx", opened=True, targets=[Target(WALL_FIGURE, 1.9), MEMORY]
    ),
    "opening, in order": Workload(
        make_in_order, "order.vhdx", opened=True, targets=[Target(WALL_FIGURE, 0.6), MEMORY]
    ),
}


@contextmanager
def mounted(folder: Path, kind: str, size: int) -> Iterator[Path | None]:
    """Make and mount a file system that can share blocks; None where that cannot be done."""
    mkfs = shutil.which(f"mkfs.{kind}")
    if os.geteuid() or not mkfs:
        yield None
        return
    image, mount = folder / f"{kind}.fs", folder / kind
    mount.mkdir()
    with ExitStack() as stack:
        with image.open("wb") as file:
            file.truncate(size)
        stack.callback(image.unlink)
        subprocess.run([mkfs, "-q", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        stack.callback(subprocess.run, ["umount", str(mount)], check=True)
        yield mount
