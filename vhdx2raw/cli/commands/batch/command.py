"""`vhdx2raw batch`: many VHDX files become raw images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Annotated, get_args, get_origin, get_type_hints

import typer

from vhdx2raw.cli.commands.batch.converter import BatchConverter, make_folder
from vhdx2raw.cli.commands.batch.flags import BatchFlags
from vhdx2raw.cli.commands.batch.running import Batch
from vhdx2raw.cli.commands.convert.outcome import require_consistent
from vhdx2raw.cli.console import (
    OPTION_NAMES,
    format_size,
    print_failure,
    print_message,
    print_result,
)
from vhdx2raw.cli.exit_codes import batch_code
from vhdx2raw.cli.options.converting import ConvertFlags
from vhdx2raw.cli.options.opening import (
    STANDARD_INPUT,
    STANDARD_STREAM,
    OpeningFlags,
    PartitionFlags,
    SalvageFlags,
)
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.options.shaping import ShapeFlags
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.operations.batch.planning import Plan, plan_batch
from vhdx2raw.operations.batch.results import Results
from vhdx2raw.operations.batch.space import find_shortages
from vhdx2raw.operations.batch.tasks import Task, read_list
from vhdx2raw.operations.convert import ConvertOptions
from vhdx2raw.operations.writing import default_workers
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw batch . --output-dir raw       the newest state of all disks below
  vhdx2raw batch --all --jobs 2 *.vhdx --output-dir raw
  vhdx2raw batch . --output-dir raw --results done.jsonl --skip-done
  vhdx2raw batch --plan . --output-dir raw > disks.jsonl
"""


def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SRC...",
            help="VHDX files, and folders that are looked through to the bottom; none of them is"
            " ever written to.",
            show_default=False,
        ),
    ] = None,
    *,
    many: BatchFlags,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    converting: ConvertFlags,
    shape: ShapeFlags,
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Convert many virtual disks to raw images, DIR/NAME.img each.

    What is found in a folder SRC lies below DIR as it did below SRC. Of a chain of checkpoints only
    the newest state is converted. A failure does not end the others.
    """
    options = converting.options(salvage=salvage.salvage or opening.ignore_log)
    options = shape.added_to(options, needs_version=converting.needs_version)
    save_state = converting.save_state
    converter = _converter(opening, salvage, part, options, many.jobs, save_state=save_state)
    plan = _make_plan(sources or [], many, converter)
    tasks = many.shard_of(plan.tasks)
    _refuse_conflicts(plan, many.results)
    results = None if many.results is None else Results(many.results)
    if not verbosity.quiet:
        _print_notes(plan)
        _print_shortages(tasks, skip_done=many.skip_done)
    plan = plan._replace(tasks=tasks)
    if many.plan:
        exit_code = _print_tasks(plan, many, converter, results)
    else:
        if many.output_dir is not None:
            make_folder(many.output_dir)
        if results is not None:
            results.require_writable()
        display = progress.mode(quiet=verbosity.quiet)
        batch = Batch(plan, converter, many, results, display, verbosity, as_json=bool(as_json))
        exit_code = batch.run()
    if exit_code:
        raise typer.Exit(exit_code)


def _converter(
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    options: ConvertOptions,
    jobs: int,
    *,
    save_state: bool,
) -> BatchConverter:
    """Return how each disk is converted, or refuse options that do not fit."""
    if opening.parents:
        words = "--parent fits one SRC: here parents are told by their GUIDs; see --parent-dir"
        raise typer.BadParameter(words)
    hints = get_type_hints(ConvertOptions)
    for field in fields(options):
        names_file = any(get_origin(part) is os.PathLike for part in get_args(hints[field.name]))
        if names_file and getattr(options, field.name) is not None:
            name = OPTION_NAMES[field.name]
            raise typer.BadParameter(
                f"{name} fits one SRC; in --from-list each disk can have its own"
            )
    # What is older than another file is known from all of them, and not told for each once more.
    converter = BatchConverter(
        opening.options(salvage),
        replace(options, look_for_newer=False),
        part,
        save_state=save_state,
        most_workers=max(1, default_workers() // jobs),
    )
    require_consistent(converter)
    return converter


def _make_plan(sources: list[str], many: BatchFlags, converter: BatchConverter) -> Plan:
    """Return what is to be done with all that was given, or refuse what cannot be meant."""
    if not sources and many.from_list is None:
        raise typer.BadParameter("Missing argument 'SRC...', or --from-list")
    if sources and many.from_list is not None:
        raise typer.BadParameter("give either SRC or --from-list")
    if STANDARD_STREAM in sources:
        raise typer.BadParameter(STANDARD_INPUT)
    tasks: list[Task] = []
    if many.from_list is not None:
        try:
            output_format = converter.options.output_format
            sources, tasks = read_list(many.from_list, many.output_dir, output_format)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        for task in tasks:
            try:
                require_consistent(converter.for_task(task))
            except (ValueError, typer.BadParameter) as error:  # noqa: PERF203 - once for a disk
                raise typer.BadParameter(f"{many.from_list}: {task.source}: {error}") from error
    if many.output_dir is None and sources:
        raise typer.BadParameter("Missing option '--output-dir'")
    folder = many.output_dir or ""
    return plan_batch(
        sources,
        folder,
        converter.opening,
        listed=tasks,
        all_states=many.all_states,
        output_format=converter.options.output_format,
    )


def _refuse_conflicts(plan: Plan, results: str | None) -> None:
    """Refuse a plan that would write over what it reads, or twice to one place.

    Raises:
        OutputError: The last one of all conflicts; the others are reported.
    """
    conflicts = plan.conflicts(results)
    for conflict in conflicts[:-1]:
        print_failure(conflict)
    if conflicts:
        raise conflicts[-1]


def _print_notes(plan: Plan) -> None:
    for folder in plan.empty:
        print_message(f"vhdx2raw: {folder}: warning: there is no VHDX file in this folder")
    for path, children in plan.left_out:
        more = f" and {len(children) - 1} more" if len(children) > 1 else ""
        print_message(f"vhdx2raw: {name_of(path)}: parent of {name_of(children[0])}{more}")


def _print_shortages(tasks: Sequence[Task], *, skip_done: bool) -> None:
    """Say if there may be too little space for what is still to be done."""
    coming = [t for t in tasks if not (skip_done and os.path.lexists(t.destination))]
    with suppress(OSError):  # which is reported where it is written
        for folder, needed, free in find_shortages(coming):
            print_message(
                f"vhdx2raw: {folder}: warning: there may be too little space: {format_size(needed)}"
                f" are stored in the sources, {format_size(free)} are free"
            )


def _print_tasks(
    plan: Plan, many: BatchFlags, converter: BatchConverter, results: Results | None
) -> int:
    """Print what is to be done, and what cannot be; return the exit code."""
    exit_codes = []
    for task in plan.tasks:
        error = plan.failures.get(task.source)
        if error is not None:
            exit_codes.append(print_failure(error))
        elif not (many.skip_done and _is_done(task, converter, results)):
            print_result(task.to_json())
    return batch_code(exit_codes)


def _is_done(task: Task, converter: BatchConverter, results: Results | None) -> bool:
    """Return whether nothing is left to do for a disk, as far as can be told without reading it."""
    try:
        earlier = converter.for_task(task).find_earlier(task, results)
    except (Vhdx2rawError, OSError):  # reported when it is its turn
        return False
    return earlier is not None and not earlier.problem and earlier.is_certain
