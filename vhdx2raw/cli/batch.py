"""Many conversions in one run: planned as a whole, and no failure ends the others."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from vhdx2raw.cli.conversion import SALVAGED, Outcome, Wishes
from vhdx2raw.cli.failures import tell_failure, words_of
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.words import answer, say
from vhdx2raw.errors import OutputError, Vhdx2rawError
from vhdx2raw.progress import ProgressCallback
from vhdx2raw.sinks.base import worded

SUFFIX = ".img"


class Task(NamedTuple):
    """A file of the batch and what it becomes."""

    source: str
    destination: str


def plan(sources: list[str], folder: str) -> list[Task]:
    """Return what each file becomes in `folder`, which is made if it does not exist.

    Raises:
        OutputError: Two files would become the same one, or the folder cannot be made.
        OSError: The host cannot make it.
    """
    taken: dict[str, str] = {}
    tasks = []
    for source in sources:
        destination = str(Path(folder, Path(source).stem + SUFFIX))
        # Not every file system tells letters from capitals.
        other = taken.setdefault(destination.casefold(), source)
        tasks.append(Task(source, destination))
        if len(taken) < len(tasks):
            problem = f"would be made of {other} and of {source}"
            raise OutputError(problem, path=destination, hint="convert them to different folders")
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise worded(error, folder) from error
    return tasks


class _Result(NamedTuple):
    """What became of a task."""

    status: str
    exit_code: int


@dataclass(slots=True)
class Batch:
    """How a batch is run."""

    wishes: Wishes
    jobs: int
    skip_existing: bool
    progress: ProgressMode
    as_json: bool
    tells: bool
    _answering: Lock = field(default_factory=Lock)

    def run(self, tasks: list[Task]) -> int:
        """Run all tasks; return the exit code: of the first failure, else 3 if any was salvaged."""
        with show_progress(self.progress) as show, ThreadPoolExecutor(self.jobs) as pool:
            total = _Total(tasks, show)
            futures = [
                pool.submit(self._run_task, task, total.part(index))
                for index, task in enumerate(tasks)
            ]
            try:
                results = [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        counts = Counter(result.status for result in results)
        if self.tells or counts["failed"]:
            words = (f"{counts[status]} {status}" for status in STATUSES if counts[status])
            say(f"vhdx2raw: {', '.join(words)}")
        codes = [result.exit_code for result in results if result.exit_code]
        return next((code for code in codes if code != SALVAGED), max(codes, default=0))

    def _run_task(self, task: Task, show: ProgressCallback) -> _Result:
        facts: dict[str, object] = {"filename": task.source, "destination": task.destination}
        outcome: Outcome | None = None
        exit_code = 0
        show(0, 0)  # until more is known, and for good if there is nothing to do
        if self.skip_existing and os.path.lexists(task.destination):
            status = "skipped"
        else:
            try:
                outcome = self.wishes.convert(*task, show)
            except (Vhdx2rawError, OSError) as error:
                status, exit_code = "failed", tell_failure(error)
                facts["error"] = words_of(error)
            else:
                exit_code = outcome.exit_code
                status = "salvaged" if exit_code else "converted"
                facts = outcome.facts()
                outcome.tell(self.tells)
        with self._answering:
            if self.as_json:
                answer(json.dumps({"status": status, "exit-code": exit_code, **facts}))
            elif outcome:
                outcome.answer_digest()
        return _Result(status, exit_code)


STATUSES = ("converted", "salvaged", "skipped", "failed")


class _Total:
    """The progress of all tasks as one.

    What a file will take is known when it is opened; before, the size of the file stands for it.
    """

    def __init__(self, tasks: list[Task], show: ProgressCallback) -> None:
        self._done = [0] * len(tasks)
        self._totals = [_size_of(task.source) for task in tasks]
        self._show = show
        self._changing = Lock()

    def part(self, index: int) -> ProgressCallback:
        """Return the callback of one task."""

        def tell(done: int, total: int) -> None:
            with self._changing:
                self._done[index], self._totals[index] = done, total
                self._show(sum(self._done), sum(self._totals))

        return tell


def _size_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # told when it is opened
        return 0
