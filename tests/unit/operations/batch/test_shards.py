"""Parts of a list: each disk in just one, about equally long, the same for everyone."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import GIB, MIB
from vhdx2raw.operations.batch.shards import TASK_SIZE, shard
from vhdx2raw.operations.batch.tasks import Task


def tasks_of(*sizes: int) -> list[Task]:
    return [Task(f"{n}.vhdx", f"{n}.img", file_size=size) for n, size in enumerate(sizes)]


@given(st.lists(st.integers(0, GIB), max_size=40), st.integers(1, 9))
def test_each_disk_is_in_one_part(sizes: list[int], count: int) -> None:
    tasks = tasks_of(*sizes)
    parts = [shard(tasks, index, count) for index in range(count)]
    assert sorted(task for part in parts for task in part) == sorted(tasks)
    for part in parts:
        assert [tasks.index(task) for task in part] == sorted(map(tasks.index, part))


@given(st.lists(st.integers(0, GIB), min_size=1, max_size=40), st.integers(1, 9))
def test_no_part_is_longer_than_another_by_more_than_a_disk(sizes: list[int], count: int) -> None:
    loads = [
        sum(task.file_size + TASK_SIZE for task in shard(tasks_of(*sizes), index, count))
        for index in range(count)
    ]
    assert max(loads) - min(loads) <= max(sizes) + TASK_SIZE


def test_large_disks_are_spread() -> None:
    parts = [shard(tasks_of(9 * GIB, 1, 9 * GIB, 1), index, 2) for index in range(2)]
    assert [[task.source for task in part] for part in parts] == [
        ["0.vhdx", "1.vhdx"],
        ["2.vhdx", "3.vhdx"],
    ]


def test_small_disks_count_too() -> None:
    """A thousand empty disks are work as well, and not all of them one part's."""
    parts = [shard(tasks_of(*[0] * 1000, 3 * MIB), index, 4) for index in range(4)]
    assert [len(part) for part in parts] in ([250, 251, 251, 249], [248, 251, 251, 251])


def test_parts_are_the_same_for_the_same_list() -> None:
    sizes = random.Random(17).choices(range(GIB), k=50)
    assert shard(tasks_of(*sizes), 2, 5) == shard(tasks_of(*sizes), 2, 5)


@pytest.mark.parametrize(("index", "count"), [(4, 4), (-1, 4), (0, 0)])
def test_part_that_does_not_exist(index: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"there is no part {index} of {count}, counted from 0"):
        shard(tasks_of(1), index, count)
