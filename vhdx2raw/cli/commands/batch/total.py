"""The progress of all disks of a batch as one."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from vhdx2raw.cli.progress import Display, FileOfMany
from vhdx2raw.operations.batch.space import stored_size
from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.source.file_object import name_of


class Total:
    """The bytes of all disks, done and to be done, of which the latter never become fewer.

    What a disk takes is known when it is open; before, the size of its files stands for that. One
    that turns out to take less, or nothing, counts for that size nevertheless.
    """

    def __init__(self, tasks: Sequence[Task], display: Display) -> None:
        self._files = [
            FileOfMany(name_of(task.source), number, len(tasks))
            for number, task in enumerate(tasks, 1)
        ]
        self._sizes = [stored_size(task) for task in tasks]
        self._done = [0] * len(tasks)
        self._all_done, self._all = 0, sum(self._sizes)
        self._display = display
        self._changing = Lock()

    def part(self, index: int) -> ProgressCallback:
        """Return the callback of one disk."""

        def report(done: int, total: int) -> None:
            with self._changing:
                self._grow(index, total)
                self._set_done(index, self._sizes[index] * done // max(1, total))

        return report

    def end(self, index: int) -> None:
        """Count a disk as done, whatever became of it."""
        with self._changing:
            self._set_done(index, self._sizes[index])

    def _grow(self, index: int, size: int) -> None:
        more = max(0, size - self._sizes[index])
        self._sizes[index] += more
        self._all += more

    def _set_done(self, index: int, done: int) -> None:
        done = max(done, self._done[index])
        self._all_done += done - self._done[index]
        self._done[index] = done
        self._display.file = self._files[index]
        self._display(self._all_done, self._all)
