"""The disks that are converted, and the targets that each must reach."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tests.support.builder import GIB, MIB, TIB, Block, BlockState, ImageSpec, child_of

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
        plain: The name of a raw file of the same number of bytes, for `cp`.
        readers: Other programs that can read this disk: ``qemu``, ``7z``.
        targets: What must be reached.
        compare_synced: Whether to compare also with waiting for the disk.
        file_system: The file system to work on, made for this purpose.
        output: The folder for the output, if it is not that of the source.
    """

    make: Callable[[Path, int], None]
    source: str
    plain: str = ""
    readers: tuple[str, ...] = ()
    targets: list[Target] = field(default_factory=list)
    compare_synced: bool = False
    file_system: str = ""
    output: Path | None = None


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
    """Write a full dynamic disk of 1 MiB blocks, and the same bytes as a raw file."""
    content = random_piece(1)
    blocks = {index: Block(content=content) for index in range(size // MIB)}
    ImageSpec(size, MIB, blocks).write(folder / "dense.vhdx")
    with (folder / "dense.raw").open("wb") as file:
        for start in range(0, size, MIB):
            file.write(content(start, MIB))


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


def make_chain(folder: Path, size: int) -> None:
    """Write a chain of three images; the upper two hold every second run of sectors."""
    count = size // (2 * MIB)
    block = Block(content=random_piece(3))
    layer = ImageSpec(size, 2 * MIB, dict.fromkeys(range(count), block))
    layer.write(folder / "layer0.vhdx")
    for number in (1, 2):
        bits = {sector for sector in range(4096) if sector // (16 * number) % 2}
        block = Block(BlockState.PARTIALLY_PRESENT, random_piece(3 + number), sector_bits=bits)
        layer = child_of(
            layer,
            f".\\layer{number - 1}.vhdx",
            block_size=2 * MIB,
            blocks=dict.fromkeys(range(0, count, 2), block),
            file_write_guid=UUID(int=number),
            data_write_guid=UUID(int=number),
        )
        layer.write(folder / f"layer{number}.vhdx")


MEMORY_FIGURE = "peak MiB"
WALL_FIGURE = "wall s"
MEMORY = Target(MEMORY_FIGURE, 64)
SHARED = [Target("cp", 0.3), Target("cp + sync", 0.3), MEMORY]

WORKLOADS = {
    "dense": Workload(
        make_dense,
        "dense.vhdx",
        plain="dense.raw",
        readers=("qemu", "7z"),
        targets=[
            Target("cp", 0.9),
            Target("cp + sync", 0.9),
            Target("qemu-img", 0.75),
            Target("qemu-img + sync", 0.75),
            MEMORY,
        ],
        compare_synced=True,
    ),
    "shuffled": Workload(
        make_shuffled,
        "shuffled.vhdx",
        readers=("qemu", "7z"),
        targets=[Target("qemu-img", 0.85), MEMORY],
    ),
    "xfs": Workload(
        make_dense,
        "dense.vhdx",
        plain="dense.raw",
        targets=SHARED,
        compare_synced=True,
        file_system="xfs",
    ),
    "btrfs": Workload(
        make_dense,
        "dense.vhdx",
        plain="dense.raw",
        targets=SHARED,
        compare_synced=True,
        file_system="btrfs",
    ),
    "sparse": Workload(
        make_sparse,
        "sparse.vhdx",
        readers=("qemu",),
        targets=[Target("qemu-img", 0.08), MEMORY],
    ),
    "zeros": Workload(
        make_mostly_zero,
        "zeros.vhdx",
        readers=("qemu", "7z"),
        targets=[Target("qemu-img", 0.6), MEMORY],
    ),
    "empty": Workload(
        make_nearly_empty, "empty.vhdx", targets=[Target(WALL_FIGURE, 2), MEMORY], output=TMPFS
    ),
    "chain": Workload(make_chain, "layer2.vhdx", readers=("7z",), targets=[MEMORY]),
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
