"""What is kept of each disk: a line of results."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from functools import cache
from importlib import metadata

from vhdx2raw.cli.commands.convert.outcome import Outcome
from vhdx2raw.cli.console import format_error
from vhdx2raw.cli.exit_codes import reason_of
from vhdx2raw.disk.found import read_found_image
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.operations.batch.tasks import Task
from vhdx2raw.source.file_object import name_of
from vhdx2raw.vhdx.log import LogState

LOG_STATES = (LogState.IGNORED, LogState.REPLAYED, LogState.CLEAN)
"""That of a chain is the first one that a file of it has."""


def result_facts(
    task: Task,
    partition: int | None,
    ended: Outcome | Vhdx2rawError | OSError,
    exit_code: int,
    seconds: float,
) -> dict[str, object]:
    """Return what became of a disk (docs/schemas/batch-results.json)."""
    error = None if isinstance(ended, Outcome) else ended
    facts: dict[str, object] = {
        "status": "failed",
        "exit-code": exit_code,
        "reason": reason_of(error) if error else None,
        "message": format_error(error) if error else None,
        "source": name_of(task.source),
        "data-write-guid": None,
        "partition": partition,
        "destination": task.destination,
    }
    if isinstance(ended, Outcome):
        facts |= _facts_of(ended)
    else:
        facts |= {**NOTHING, "data-write-guid": _version_of(task)}
    return facts | {
        "seconds": round(seconds, 3),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **_program(),
    }


NOTHING: dict[str, object] = {
    **dict.fromkeys(("virtual-size", "stored-size", "written-size")),
    "digests": {},
    "log-state": None,
    "lost-size": 0,
    "lost-ranges": [],
}
"""What is known of a disk that was not converted."""


def _facts_of(outcome: Outcome) -> dict[str, object]:
    result, images = outcome.result, outcome.disk.chain.images
    states = {image.log.state for image in images}
    return {
        "status": "salvaged" if outcome.exit_code else "converted",
        "data-write-guid": str(images[0].header_section.header.data_write_guid),
        "virtual-size": result.virtual_disk_size,
        "stored-size": result.data_bytes,
        "written-size": result.written_bytes,
        "digests": dict(result.digests),
        "log-state": next(state.value for state in LOG_STATES if state in states),
        "lost-size": result.lost_bytes,
        "lost-ranges": [{"start": start, "length": length} for start, length in result.lost_ranges],
    }


def _version_of(task: Task) -> str | None:
    try:
        return str(read_found_image(task.source).data_write_guid)
    except (Vhdx2rawError, OSError):  # which may be why the disk has failed
        return None


@cache
def _program() -> dict[str, str]:
    return {"version": metadata.version("vhdx2raw"), "host": platform.node()}
