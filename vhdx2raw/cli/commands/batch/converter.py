"""How each disk of a batch is converted, or found to be converted."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from vhdx2raw.cli.commands.convert.outcome import Converter, Outcome
from vhdx2raw.cli.progress import interruptible
from vhdx2raw.cli.record import now
from vhdx2raw.cli.signals import raise_if_interrupted
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.batch.earlier import (
    NOT_THIS_DISK,
    NOT_THIS_DISK_REMEDY,
    Earlier,
    Wanted,
    confirm,
    find_earlier,
)
from vhdx2raw.operations.batch.results import Results
from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.operations.convert import ConversionResult
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.threads import run_aside
from vhdx2raw.output.base import output_error
from vhdx2raw.units import MIB

WORKER_SIZE = 16 * MIB
"""Bytes that are worth a thread of their own."""


@dataclass(frozen=True, slots=True)
class BatchConverter(Converter):
    """A converter that makes the folder of each output, and knows what earlier runs have left.

    Attributes:
        most_workers: How many threads may copy one disk, unless the user says how many do.
    """

    most_workers: int = 1

    def for_task(self, task: Task) -> BatchConverter:
        """Return how one disk is converted.

        Raises:
            ValueError: Its options contradict the others.
        """
        opening, options = task.apply_options(self.opening, self.options)
        if options.workers is None:
            workers = min(self.most_workers, 1 + task.file_size // WORKER_SIZE)
            options = replace(options, workers=workers)
        return replace(self, opening=opening, options=options)

    def find_earlier(self, task: Task, results: Results | None) -> Earlier | None:
        """Return what an earlier run has left of a disk that this converter is for."""
        options = self.options
        shape = options.output_format, options.round_size
        wanted = Wanted(self.part.partition, options.hash_algorithms, *shape)
        return find_earlier(task, self.opening, wanted, results)

    def convert_unless_done(
        self, task: Task, results: Results | None, show: ProgressCallback
    ) -> Outcome | Earlier:
        """Convert a disk that this converter is for, unless that was done.

        Raises:
            OutputError: Something else is there, and must not be lost.
        """
        earlier = self.find_earlier(task, results)
        if earlier is None:
            return self.convert(task.source, task.destination, show)
        if not earlier.problem:
            return earlier if earlier.is_certain else self._confirm(task, show)
        if self.options.force or self.options.update:
            return self.convert(task.source, task.destination, show)
        problem = f"{NOT_THIS_DISK}: {earlier.problem}"
        raise OutputError(problem, path=task.destination, remedy=NOT_THIS_DISK_REMEDY)

    def _confirm(self, task: Task, show: ProgressCallback) -> Outcome:
        """Make sure that an output that is there is complete, as no line of results says."""
        began, started = now(), time.monotonic()
        with self.open(task.source) as whole:
            disk = self.part.of(whole)
            options = replace(self.options, progress=interruptible(show))
            result = confirm(disk, task.destination, options)
            options, seconds = replace(options, verify=True), time.monotonic() - started
            return Outcome(options, self.part, disk, task.destination, result, seconds, began)

    def open(self, source: str) -> VirtualDisk:
        """Open a disk in a thread of its own, for which a deferred signal does not wait."""
        return run_aside(lambda: open_disk(source, self.opening), raise_if_interrupted)

    def write(
        self, disk: VirtualDisk, destination: str, show: ProgressCallback
    ) -> ConversionResult:
        make_folder(os.path.dirname(destination))  # noqa: PTH120 - no Path is needed
        return Converter.write(self, disk, destination, show)


def make_folder(path: str) -> None:
    """Make a folder, and those that it lies in, unless they are there.

    Raises:
        OutputError: It cannot be made.
        OSError: The host could not make it.
    """
    try:
        os.makedirs(path or os.curdir, exist_ok=True)  # noqa: PTH103 - no Path is needed
    except FileExistsError:
        raise OutputError("exists and is not a folder", path=path) from None
    except OSError as error:
        raise output_error(error, path) from error
