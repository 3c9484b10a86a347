"""What is to be done in a batch: which disks, from which files, to which raw images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.found import FoundImage
from vhdx2raw.errors import OutputError, Vhdx2rawError
from vhdx2raw.operations.batch.tasks import Task, output_name
from vhdx2raw.operations.discovery import Catalog, discover, iter_files
from vhdx2raw.output.base import IS_INPUT, IS_INPUT_REMEDY
from vhdx2raw.output.shape import OutputFormat
from vhdx2raw.source.base import Identity
from vhdx2raw.source.file import identity_of

Failure = Vhdx2rawError | OSError


class LeftOut(NamedTuple):
    """A file that is not converted by itself, since a newer state was made from it."""

    path: str
    children: tuple[str, ...]


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        tasks: The disks, in the order in which their files were given or found.
        failures: By the source of a task, why it cannot be done, as far as that is known now.
        left_out: The parents of others.
        empty: Folders in which there is nothing.
    """

    tasks: list[Task]
    failures: dict[str, Failure]
    left_out: list[LeftOut]
    empty: list[str]

    def conflicts(self, results: str | None = None) -> list[OutputError]:
        """Return what keeps the raw images as a whole from being made.

        Two files would become the same image, or one would replace a file that is read; or the
        file for the results would do so.
        """
        inputs = self._inputs()
        sources: defaultdict[str, list[Task]] = defaultdict(list)
        for task in self.tasks:
            # Not every file system distinguishes upper and lower case.
            sources[os.path.abspath(task.destination).casefold()].append(task)  # noqa: PTH100
        errors = []
        for tasks in sources.values():
            path = tasks[-1].destination
            if len(tasks) > 1:
                problem = f"would be made of {' and of '.join(task.source for task in tasks)}"
                remedy = "convert them to different folders"
                errors.append(OutputError(problem, path=path, remedy=remedy))
            elif (found := _identity_of(path)) in inputs:
                errors.append(OutputError(inputs[found], path=path, remedy=IS_INPUT_REMEDY))
        if results is not None:
            is_image = os.path.abspath(results).casefold() in sources  # noqa: PTH100
            problem = "is the name of a raw image" if is_image else ""
            problem = inputs.get(_identity_of(results), problem)
            if problem:
                errors.append(OutputError(problem, path=results, remedy=IS_INPUT_REMEDY))
        return errors

    def _inputs(self) -> dict[Identity | None, str]:
        """Return all files that are read, and what is wrong with writing to them."""
        problems: dict[Identity | None, str] = {}
        for task in self.tasks:
            problem = f"is a parent of {task.source}, and would be replaced"
            problems |= {_identity_of(parent): problem for parent in task.parents}
        sources = [task.source for task in self.tasks] + [file.path for file in self.left_out]
        problems |= {_identity_of(source): IS_INPUT for source in sources}
        problems.pop(None, None)
        return problems


def plan_batch(
    sources: Sequence[str],
    folder: str,
    opening: OpenOptions,
    *,
    listed: Iterable[Task] = (),
    all_states: bool = False,
    output_format: OutputFormat = "raw",
) -> Plan:
    """Find what is to be done with files and folders.

    Args:
        sources: VHDX files, and folders that are looked through to the bottom.
        folder: Where the raw images go. A file becomes NAME.img there, or NAME.vhd; one that is
            found in a folder lies as deep below this one as it did below that.
        opening: How disks are opened.
        listed: Disks that a list says all about.
        all_states: Whether files are converted, too, that others were made from.
        output_format: What they become.
    """
    plan = Plan([], {}, [], [])
    places = list(_iter_places(sources, folder, plan, output_format))
    given = list(listed)
    catalog = discover([*(path for path, _ in places), *(task.source for task in given)], opening)
    images = {image.path: image for image in catalog.images}
    plan.failures.update({file.path: file.error for file in catalog.broken})
    for path, destination in places:
        image = images.get(path)
        children = catalog.children_of(image) if image else ()
        if children and not all_states:
            plan.left_out.append(LeftOut(path, tuple(child.path for child in children)))
            continue
        plan.tasks.append(_task_of(path, destination, image, catalog))
        error = catalog.chain_error_of(image) if image and not opening.salvage else None
        if error:
            plan.failures[path] = error
    for task in given:
        known = _task_of(task.source, task.destination, images.get(task.source), catalog)
        parents, size = task.parents or known.parents, task.virtual_size or known.virtual_size
        plan.tasks.append(task._replace(parents=parents, virtual_size=size))
        plan.failures.pop(task.source, None)  # its own options may help
    return plan


def _iter_places(
    sources: Sequence[str], folder: str, plan: Plan, output_format: OutputFormat
) -> Iterator[tuple[str, str]]:
    """Yield the files, and what they become; a folder that cannot be listed fails as a whole."""
    found: set[str] = set()
    for source in sources:
        if not os.path.isdir(source):  # noqa: PTH112 - no Path is needed
            if os.path.abspath(source) not in found:  # noqa: PTH100
                yield source, str(Path(folder, output_name(source, output_format)))
            continue
        unlisted: list[OSError] = []
        paths = [*iter_files(source, unlisted.append)]
        plan.empty.extend([] if paths or unlisted else [source])
        for path in paths:
            if os.path.abspath(path) not in found:  # noqa: PTH100
                found.add(os.path.abspath(path))  # noqa: PTH100
                below = os.path.relpath(path, source)
                yield path, str(Path(folder, below).with_name(output_name(path, output_format)))
        for error in unlisted:
            place = os.fspath(error.filename)
            plan.failures[place] = error
            plan.tasks.append(Task(place, str(Path(folder, os.path.relpath(place, source)))))


def _task_of(path: str, destination: str, image: FoundImage | None, catalog: Catalog) -> Task:
    chain = (image, *catalog.parents_of(image)) if image else ()
    return Task(
        path,
        destination,
        tuple(parent.path for parent in chain[1:]),
        {},
        sum(each.size for each in chain),
        image.metadata.virtual_disk_size if image else 0,
    )


def _identity_of(path: str) -> Identity | None:
    try:
        return identity_of(os.stat(path))  # noqa: PTH116 - no Path is needed
    except (OSError, ValueError):  # reported when it is opened
        return None
