"""Whether what is stored in all sources has room where the raw images go."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vhdx2raw import host
from vhdx2raw.operations.batch.tasks import Task


class Shortage(NamedTuple):
    """A file system that is too small, unless images share storage or hold many stored zeros.

    Attributes:
        folder: A folder in it.
        needed: Bytes that are stored in the sources.
        free: Bytes that are free.
    """

    folder: str
    needed: int
    free: int


def stored_size(task: Task) -> int:
    """Return what the files of a disk take up on their host, but not more than the disk has."""
    try:
        stored = sum(host.allocated_size(Path(file).stat()) for file in task.files)
    except (OSError, ValueError):  # reported when it is opened
        stored = task.file_size
    return min(stored, task.virtual_size or stored)


def find_shortages(tasks: Iterable[Task]) -> list[Shortage]:
    """Return the file systems that cannot take all that is stored for them."""
    needed: defaultdict[Path, int] = defaultdict(int)
    for task in tasks:
        needed[Path(task.destination).parent] += stored_size(task)
    by_device: dict[int, tuple[Path, int]] = {}
    for folder, size in needed.items():
        existing = next((place for place in (folder, *folder.parents) if place.exists()), Path())
        device = existing.stat().st_dev
        first, sum_before = by_device.get(device, (existing, 0))
        by_device[device] = first, sum_before + size
    shortages = (
        Shortage(str(place), size, shutil.disk_usage(place).free)
        for place, size in by_device.values()
    )
    return [shortage for shortage in shortages if shortage.needed > shortage.free]
