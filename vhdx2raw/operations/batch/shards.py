"""One of several equal parts of a list: the same for everyone who is given the same list."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.units import MIB

TASK_SIZE = MIB
"""Bytes that take as long as what every disk takes besides its bytes."""


def shard(tasks: Sequence[Task], index: int, count: int) -> list[Task]:
    """Return one of `count` parts of a list, in the order of the list.

    The parts take about equally long, by the bytes that are stored; each disk is in just one.

    Args:
        tasks: The list.
        index: Which part, from 0 on.
        count: How many there are.

    Raises:
        ValueError: There is no such part.
    """
    if not 0 <= index < count:
        raise ValueError(f"there is no part {index} of {count}, counted from 0")
    loads = [(0, number) for number in range(count)]
    own: list[int] = []
    largest_first = sorted(range(len(tasks)), key=lambda place: (-tasks[place].file_size, place))
    for place in largest_first:
        load, number = loads[0]
        heapq.heapreplace(loads, (load + tasks[place].file_size + TASK_SIZE, number))
        own += [place] if number == index else []
    return [tasks[place] for place in sorted(own)]
