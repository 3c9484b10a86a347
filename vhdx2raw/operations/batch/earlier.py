"""What earlier runs have left of a disk: whether its raw image is there already, and is right."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.found import FoundImage, read_found_image
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.batch.results import Results
from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.operations.compare import compare
from vhdx2raw.operations.convert import ConversionResult, ConvertOptions, convert_disk
from vhdx2raw.operations.shaping import shape_of
from vhdx2raw.output.null import NullSink
from vhdx2raw.output.shape import OutputFormat, output_size
from vhdx2raw.source.file_object import name_of
from vhdx2raw.source.raw_file import RawFile

NOT_THIS_DISK = "exists already, and is not this disk"
NOT_THIS_DISK_REMEDY = "remove it, or use {force} to replace it"


class Earlier(NamedTuple):
    """What is there under the name of a raw image.

    Attributes:
        problem: Why it is not the image; empty if nothing speaks against it.
        record: The line of results about it, if it has all that is asked for.
        is_certain: Whether no more has to be known about it.
    """

    problem: str = ""
    record: Mapping[str, Any] | None = None
    is_certain: bool = True


class Wanted(NamedTuple):
    """What is asked for.

    Attributes:
        partition: Which partition of a disk, if not all of it.
        algorithms: The digests.
        output_format: What the output is.
        round_size: Of what its size is a multiple.
    """

    partition: int | None = None
    algorithms: Sequence[str] = ()
    output_format: OutputFormat = "raw"
    round_size: int | None = None


def find_earlier(
    task: Task, opening: OpenOptions, wanted: Wanted, results: Results | None
) -> Earlier | None:
    """Return what is there of a raw image; None if nothing has its name.

    It is taken for the image if it is a regular file of the size of the disk which is not older
    than any file of the disk. With `results` that is certain only if a line of them says so too,
    for the version that the source has now; and digests are only known from there.

    Args:
        task: The disk, with all its parents.
        opening: How it is opened.
        wanted: What is asked for.
        results: What earlier runs have recorded, if that is kept.

    Raises:
        ImageError: The source or a parent cannot be read.
        OSError: The host cannot look.
    """
    try:
        status = os.lstat(task.destination)
    except (FileNotFoundError, NotADirectoryError):
        return None
    image = read_found_image(task.source, opening)
    record = results.find_done(task.destination) if results else None
    is_whole = wanted.partition is None
    known_size = record.get("virtual-size") if record else None
    size = image.metadata.virtual_disk_size if is_whole else known_size
    if size is not None:
        size = output_size(size, wanted.output_format, wanted.round_size)
    parents = [read_found_image(parent, opening) for parent in task.parents]
    problem = _problem_of(status, size, image, parents)
    if problem or (results is None and is_whole and not wanted.algorithms):
        return Earlier(problem)
    if results is None or record is None:
        # What was lost cannot be compared, and is recorded nowhere else.
        return Earlier("no results are known of it" if opening.salvage else "", is_certain=False)
    found = _words_of(record.get("data-write-guid"), record.get("partition"))
    expected = _words_of(image.data_write_guid, wanted.partition)
    if found != expected:
        return Earlier(f"{results.path} has it as {found}, not as {expected}")
    return Earlier("", record, {*wanted.algorithms} <= {*record.get("digests", ())})


def _words_of(version: object, partition: object) -> str:
    part = "" if partition is None else f"partition {partition} of "
    return f"{part}version {version}"


def _problem_of(
    status: os.stat_result, size: int | None, image: FoundImage, parents: Sequence[FoundImage]
) -> str:
    """Return why a file is not the raw image of a disk, whose size may not be known."""
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if size is not None and status.st_size != size:
        return f"has {status.st_size} bytes, and the disk {size}"
    newest = max([image, *parents], key=lambda each: each.modified_ns)
    is_older = status.st_mtime_ns < newest.modified_ns
    return f"is older than {name_of(newest.path)}" if is_older else ""


def confirm(disk: VirtualDisk, path: str, options: ConvertOptions) -> ConversionResult:
    """Make sure that a raw image is what a disk would become now; return what is asked about it.

    Args:
        disk: The disk.
        path: The raw image, which is only read.
        options: What is asked.

    Raises:
        OutputError: It is something else.
        ImageError: The disk cannot be read, or is not accepted.
        OSError: The host cannot read.
    """
    shape = shape_of(disk, options.output_format, options.round_size)
    with RawFile(path) as raw:
        is_same_rest = raw.size == shape.size
        if is_same_rest:
            is_same_rest = raw.pread(shape.end, len(shape.footer)) == shape.footer
        raw.size = min(raw.size, shape.end)
        found = compare(disk, raw, stop_at_first=True, progress=options.progress)
    if not (found.same_contents and is_same_rest):
        where = found.sizes[1] if found.same_contents else found.first_difference
        problem = f"{NOT_THIS_DISK}: differs from offset {where} on"
        raise OutputError(problem, path=path, remedy=NOT_THIS_DISK_REMEDY)
    reading = replace(
        options, state=None, update=False, resume=False, verify=False, map_out=None, bmap=None
    )
    return replace(convert_disk(disk, NullSink(), reading), written_bytes=0)
