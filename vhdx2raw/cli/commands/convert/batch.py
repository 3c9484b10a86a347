"""Many conversions in one run: planned as a whole, and no failure ends the others."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from vhdx2raw.cli.commands.convert.outcome import Converter, Outcome
from vhdx2raw.cli.console import error_facts, print_failure, print_message, print_result
from vhdx2raw.cli.exit_codes import first_failure
from vhdx2raw.cli.options.reporting import VerbosityFlags
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.signals import defer, raise_if_interrupted
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.errors import OutputError, Vhdx2rawError
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.threads import share_work
from vhdx2raw.output.base import IS_INPUT, IS_INPUT_REMEDY, output_error
from vhdx2raw.source.base import Identity
from vhdx2raw.source.file import identity_of
from vhdx2raw.source.raw_file import RawFile

SUFFIX = ".img"


class Task(NamedTuple):
    """A file of the batch and what it becomes."""

    source: str
    destination: str


def plan(sources: list[str], folder: str) -> list[Task]:
    """Return what each file becomes in `folder`, which is made if it does not exist.

    Raises:
        OutputError: Two files would become the same one, one would replace another that is still
            to be read, or the folder cannot be made.
        OSError: The host cannot make it.
    """
    inputs = {_identity_of(source) for source in sources} - {None}
    taken: dict[str, str] = {}
    tasks = []
    for source in sources:
        destination = str(Path(folder, Path(source).stem + SUFFIX))
        # Not every file system distinguishes upper and lower case.
        other = taken.setdefault(destination.casefold(), source)
        tasks.append(Task(source, destination))
        if len(taken) < len(tasks):
            problem = f"would be made of {other} and of {source}"
            raise OutputError(problem, path=destination, remedy="convert them to different folders")
        if _identity_of(destination) in inputs:
            raise OutputError(IS_INPUT, path=destination, remedy=IS_INPUT_REMEDY)
    try:
        Path(folder).mkdir(exist_ok=True)
    except FileExistsError:
        raise OutputError("exists and is not a folder", path=folder) from None
    except OSError as error:
        raise output_error(error, folder) from error
    return tasks


def _identity_of(path: str) -> Identity | None:
    try:
        return identity_of(os.stat(path))  # noqa: PTH116 - no Path is needed
    except (OSError, ValueError):  # reported when it is opened
        return None


class _Result(NamedTuple):
    """What became of a task."""

    status: str
    exit_code: int


@dataclass(slots=True)
class Batch:
    """How a batch is run."""

    converter: Converter
    jobs: int
    skip_existing: bool
    progress: ProgressMode
    as_json: bool
    verbosity: VerbosityFlags
    _printing: Lock = field(default_factory=Lock)

    def run(self, tasks: list[Task]) -> int:
        """Run all tasks; return the exit code: of the first failure, else 3 if any was salvaged."""
        defer()  # the threads notice a signal, and so does this one while it waits for them
        self._check_parents(tasks)
        results: dict[int, _Result] = {}
        jobs = min(self.jobs, len(tasks))
        with show_progress(self.progress) as show:
            total = _Total(tasks, show)

            def run(numbered: tuple[int, Task]) -> None:
                index, task = numbered
                results[index] = self._run_task(task, total, index)

            share_work(enumerate(tasks), lambda: run, jobs, raise_if_interrupted)
        counts = Counter(result.status for result in results.values())
        if self.verbosity.reports or counts["failed"]:
            words = (f"{counts[status]} {status}" for status in STATUSES if counts[status])
            print_message(f"vhdx2raw: {', '.join(words)}")
        return first_failure(results[index].exit_code for index in sorted(results))

    def _check_parents(self, tasks: list[Task]) -> None:
        """Refuse to replace a file that another one of the batch needs as a parent.

        Raises:
            OutputError: A file would be replaced that is still to be read.
        """
        if not self.converter.options.force or self.skip_existing:
            return  # nothing is replaced
        endangered = {
            _identity_of(task.destination): task.destination
            for task in tasks
            if self._may_be_parent(task.destination)
        }
        for task in tasks if endangered else ():
            raise_if_interrupted()
            try:
                with open_chain(task.source, self.converter.opening, partial=True) as chain:
                    lost = [endangered[i] for i in chain.identities if i in endangered]
            except (Vhdx2rawError, OSError):  # reported when it is its turn
                continue
            if lost:
                problem = f"is a parent of {task.source}, and would be replaced"
                raise OutputError(problem, path=lost[0], remedy=IS_INPUT_REMEDY)

    def _may_be_parent(self, destination: str) -> bool:
        """Return whether a file is a VHDX, or may be a damaged one that is salvaged."""
        if self.converter.opening.salvage:
            return os.path.lexists(destination)
        try:
            with RawFile(destination) as file:
                return file.begins_like_a_vhdx()
        except (Vhdx2rawError, OSError):  # which is no parent either
            return False

    def _run_task(self, task: Task, total: _Total, index: int) -> _Result:
        raise_if_interrupted()  # as many tasks have nothing to do, or fail before they have begun
        outcome: Outcome | None = None
        error: Vhdx2rawError | OSError | None = None
        if not (self.skip_existing and os.path.lexists(task.destination)):
            try:
                outcome = self.converter.convert(*task, total.part(index))
            except (Vhdx2rawError, OSError) as failure:
                error = failure
        total.end(index)
        with self._printing:  # lest the lines of two files be mixed
            return self._print(task, outcome, error)

    def _print(
        self, task: Task, outcome: Outcome | None, error: Vhdx2rawError | OSError | None
    ) -> _Result:
        facts: dict[str, object] = {"filename": task.source, "destination": task.destination}
        if outcome:
            exit_code = outcome.exit_code
            status = "salvaged" if exit_code else "converted"
            outcome.print(self.verbosity)
        elif error:
            status, exit_code = "failed", print_failure(error)
            facts["error"] = error_facts(error)
        else:
            status, exit_code = "skipped", 0
        try:
            with telling(task.destination) if outcome else nullcontext():
                if self.as_json:
                    facts = outcome.facts() if outcome else facts
                    print_result(json.dumps({"status": status, "exit-code": exit_code, **facts}))
                elif outcome:
                    outcome.print_digest()
        except (Vhdx2rawError, OSError) as failure:  # the other files can be converted nevertheless
            exit_code = print_failure(failure)
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

        def report(done: int, total: int) -> None:
            with self._changing:
                self._done[index], self._totals[index] = done, total
                self._show(sum(self._done), sum(self._totals))

        return report

    def end(self, index: int) -> None:
        with self._changing:
            self._totals[index] = self._done[index]
            self._show(sum(self._done), sum(self._totals))


def _size_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # reported when it is opened
        return 0
