"""A batch as it runs: no failure ends the others, and what becomes of each disk is kept."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Lock

from vhdx2raw.cli.commands.batch.converter import BatchConverter
from vhdx2raw.cli.commands.batch.facts import result_facts
from vhdx2raw.cli.commands.batch.flags import BatchFlags
from vhdx2raw.cli.commands.batch.total import Total
from vhdx2raw.cli.commands.convert.outcome import Outcome, hash_facts
from vhdx2raw.cli.console import (
    error_facts,
    print_digest,
    print_error,
    print_failure,
    print_json,
    print_message,
)
from vhdx2raw.cli.exit_codes import batch_code
from vhdx2raw.cli.options.reporting import VerbosityFlags
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.results import telling
from vhdx2raw.cli.signals import defer, raise_if_interrupted
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.operations.batch.earlier import Earlier
from vhdx2raw.operations.batch.planning import Plan
from vhdx2raw.operations.batch.results import Results
from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.threads import share_work
from vhdx2raw.output.sparse_file import remove_abandoned
from vhdx2raw.source.file_object import name_of

STATUSES = ("converted", "salvaged", "skipped", "failed", "left")
"""What becomes of disks, as it is counted at the end."""
FULL = (errno.ENOSPC, errno.EDQUOT)


_Ended = Outcome | Earlier | Vhdx2rawError | OSError
"""What became of a disk: its image, or what was there of it before, or a failure."""


def _status_of(ended: _Ended) -> str:
    if isinstance(ended, Outcome):
        return "salvaged" if ended.exit_code else "converted"
    return "skipped" if isinstance(ended, Earlier) else "failed"


@dataclass(slots=True)
class Batch:
    """How a batch is run."""

    plan: Plan
    converter: BatchConverter
    flags: BatchFlags
    results: Results | None
    progress: ProgressMode
    verbosity: VerbosityFlags
    as_json: bool = field(kw_only=True)
    _is_stopping: bool = False
    _printing: Lock = field(default_factory=Lock)
    _counts: Counter[str] = field(default_factory=Counter)

    def run(self) -> int:
        """Run all tasks; return the exit code of the batch.

        Raises:
            Interrupted: A signal has come; what is done is kept, and counted.
        """
        defer()  # the threads notice a signal, and so does this one while it waits for them
        tasks = self.plan.tasks
        if self.flags.skip_done:
            remove_abandoned(task.destination for task in tasks)
        exit_codes: dict[int, int] = {}
        is_complete = False
        try:
            with show_progress(self.progress) as show:
                total = Total(tasks, show)

                def run(numbered: tuple[int, Task]) -> None:
                    index, task = numbered
                    exit_codes[index] = self._run_task(task, total, index)

                jobs = max(1, min(self.flags.jobs, len(tasks)))
                share_work(self._iter_tasks(), lambda: run, jobs, raise_if_interrupted)
                is_complete = True
        finally:
            self._counts["left"] = len(tasks) - self._counts.total()
            self._print_summary(is_complete=is_complete)
        return batch_code(exit_codes[index] for index in sorted(exit_codes))

    def _iter_tasks(self) -> Iterator[tuple[int, Task]]:
        for numbered in enumerate(self.plan.tasks):
            if self._is_stopping:
                return
            yield numbered

    def _print_summary(self, *, is_complete: bool) -> None:
        counts = self._counts
        if self.verbosity.reports or counts["failed"] or counts["left"] or not is_complete:
            words = (f"{counts[status]} {status}" for status in STATUSES if counts[status])
            print_message(f"vhdx2raw: {', '.join(words) or 'nothing to do'}")

    def _run_task(self, task: Task, total: Total, index: int) -> int:
        raise_if_interrupted()  # as many tasks have nothing to do, or fail before they have begun
        started = time.monotonic()
        ended: _Ended
        try:
            ended = self._do(task, total.part(index))
        except (Vhdx2rawError, OSError) as error:
            ended = error
        seconds = time.monotonic() - started
        total.end(index)
        with self._printing:  # lest the lines of two files be mixed
            self._counts[_status_of(ended)] += 1
            exit_code = self._report(task, ended, seconds)
        if self.flags.fail_fast and isinstance(ended, Exception):
            self._is_stopping = True
        return exit_code

    def _do(self, task: Task, show: ProgressCallback) -> Outcome | Earlier:
        known = self.plan.failures.get(task.source)
        if known is not None:
            raise known
        converter = self.converter.for_task(task)
        if not self.flags.skip_done:
            return converter.convert(task.source, task.destination, show)
        return converter.convert_unless_done(task, self.results, show)

    def _report(self, task: Task, ended: _Ended, seconds: float) -> int:
        """Print and keep what became of a disk; return the exit code."""
        own_code, is_complete = 0, isinstance(ended, Outcome)
        if isinstance(ended, Outcome):
            own_code = ended.exit_code
            ended.print(self.verbosity)
        elif isinstance(ended, Exception):
            own_code = print_failure(ended)
            self._stop_if_full(ended)
        exit_code = own_code
        # What cannot be told of this disk does not keep the others from being converted.
        for tell in (self._keep, self._print):
            try:
                with telling(task.destination) if is_complete else nullcontext():
                    tell(task, ended, own_code, seconds)
            except (Vhdx2rawError, OSError) as failure:  # noqa: PERF203 - there are just two
                exit_code = print_failure(failure)
                if tell == self._keep:
                    self._stop_if_full(failure)
        return exit_code

    def _keep(self, task: Task, ended: _Ended, exit_code: int, seconds: float) -> None:
        """Add a line to the results, if they are kept."""
        if self.results is not None and not isinstance(ended, Earlier):
            partition = self.converter.part.partition
            self.results.add(result_facts(task, partition, ended, exit_code, seconds))

    def _print(self, task: Task, ended: _Ended, exit_code: int, _seconds: float) -> None:
        """Write the result of a disk to stdout."""
        digests: Mapping[str, str] = {}
        if isinstance(ended, Outcome):
            digests = ended.result.digests
        elif isinstance(ended, Earlier) and ended.record:
            algorithms = self.converter.for_task(task).options.hash_algorithms
            digests = {name: str(ended.record["digests"][name]) for name in algorithms}
        if not self.as_json:
            for digest in digests.values():
                print_digest(digest, task.destination)
            return
        name, destination = name_of(task.source), task.destination
        facts: dict[str, object] = {"filename": name, "destination": destination}
        if isinstance(ended, Outcome):
            facts = ended.facts()
        elif isinstance(ended, Exception):
            facts["error"] = error_facts(ended)
        else:
            facts |= hash_facts(digests)
        status = {"status": _status_of(ended), "exit-code": exit_code}
        print_json({**status, **facts}, in_one_line=True)

    def _stop_if_full(self, error: BaseException | None) -> None:
        """Begin no other disk after a failure that all of them would meet."""
        while error is not None and not self._is_stopping:
            if isinstance(error, OSError) and error.errno in FULL:
                self._is_stopping = True
                print_error("stopped: the file system is full")
            error = error.__cause__
