"""Images of every kind, each with the disk that it must show: for all that gives out a disk."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.peer_cases import CASES, DISK
from tests.support.builder import MIB, Block, BlockState, ImageSpec, golden_g2
from tests.support.partitions import fragmented_child, gpt_disk
from tests.support.promised import with_promised_end

Write = Callable[[Path], ImageSpec]
"""Writes the image `DISK`, and what it needs, to a folder."""


def _of(spec: ImageSpec) -> Write:
    def write(folder: Path) -> ImageSpec:
        spec.write(folder / DISK)
        return spec

    return write


def _promised(folder: Path) -> ImageSpec:
    spec = ImageSpec(4 * MIB + 1536, MIB, {index: Block() for index in range(5)})
    with_promised_end(spec, MIB).write(folder / DISK)
    spec.blocks[4] = Block(BlockState.ZERO)  # what only a log promises is not stored
    return spec


def _fragmented(folder: Path) -> ImageSpec:
    parent = gpt_disk()
    parent.write(folder / "base.vhdx")
    child = fragmented_child(parent)
    child.write(folder / DISK)
    return child


CORPUS: dict[str, Write] = {
    **{case.row: case.write for case in CASES if not case.must_refuse and "4.25" not in case.row},
    "an odd size": _of(ImageSpec(9 * MIB + 512, MIB, {index: Block() for index in (9, 0, 5)})),
    "a dirty log, wrapped": _of(golden_g2()),
    "a log that promises the end": _promised,
    "a child that owns every third sector": _fragmented,
    "stored zeros": _of(ImageSpec(4 * MIB, 2 * MIB, {1: Block(content=0)})),
}
