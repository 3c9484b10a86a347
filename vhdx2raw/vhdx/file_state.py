"""Whether a file changes while it is read, as that of a running VM does (R119).

No lock in the format shows that a disk is in use. So what a writer cannot leave as it was is noted
when the file is opened, and looked at again when everything has been read.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source, Status
from vhdx2raw.vhdx.layout import HEADER_OFFSETS, HEADER_SIZE

SECOND = 10**9
COARSEST_TIMES = 2 * SECOND
"""Nanoseconds; how far apart two writes must be to have different times on any file system."""
TICK = SECOND // 100
"""Nanoseconds; how far the clock that a kernel takes the times from may lag behind ours."""


class FileState(NamedTuple):
    """What distinguishes one state of a file from the next.

    Attributes:
        status: What the host says of it.
        headers: The two headers as they stand in the file; empty where they cannot be read.
    """

    status: Status
    headers: tuple[bytes, ...]


def read_state(source: Source, *, lenient: bool = False) -> FileState:
    """Look at a file as it is now.

    Raises:
        OSError: The host cannot read it, and `lenient` is not set.
    """
    status = source.status()
    headers = tuple(_read_header(source, place, lenient=lenient) for place in HEADER_OFFSETS)
    return FileState(status, headers)


def wait_for_distinct_times(source: Source) -> None:
    """Wait until whatever is written to a file from now on gives it another time than it has.

    Some file systems count times in whole seconds, FAT in two of them. What has changed within the
    last of these could change once more and keep its time.
    """
    status = source.status()
    times = [known for known in (status.modified_ns, status.changed_ns) if known is not None]
    if any(known % SECOND for known in times):
        return
    now = time.time_ns()
    waits = [known + COARSEST_TIMES + TICK - now for known in times]
    wait = max((wait for wait in waits if 0 < wait <= 2 * COARSEST_TIMES), default=0)
    time.sleep(wait / SECOND)


def _read_header(source: Source, file_offset: int, *, lenient: bool) -> bytes:
    try:
        return source.pread(file_offset, HEADER_SIZE)
    except TruncatedImageError:  # judged when the headers are read
        return b""
    except OSError:
        if not lenient:
            raise
        return b""


def find_change(before: FileState, after: FileState) -> Finding | None:
    """Return what has changed between two states; None if nothing has."""
    problem = "was changed while it was read"
    old_status, new_status = before.status, after.status
    if old_status.size != new_status.size:
        return Finding(
            Rule.FILE_CHANGED,
            "file",
            f"{problem}: its size is another one",
            found=f"{new_status.size} bytes",
            expected=f"{old_status.size} bytes, as when it was opened",
        )
    for number, (old, new) in enumerate(zip(before.headers, after.headers, strict=True), 1):
        if old != new:
            where = HEADER_OFFSETS[number - 1]
            return Finding(
                Rule.FILE_CHANGED, f"header {number}", problem, spec="2.2.2", file_offset=where
            )
    if old_status.modified_ns != new_status.modified_ns:
        return Finding(Rule.FILE_CHANGED, "file", f"{problem}: it was written to")
    # A file that got or lost a name changed as well, but not in its bytes.
    if old_status.changed_ns != new_status.changed_ns and old_status.names == new_status.names:
        problem += ": whoever did that has put back the time of its last change"
        return Finding(Rule.FILE_CHANGED, "file", problem)
    return None
