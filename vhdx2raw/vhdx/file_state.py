"""Whether a file changes while it is read, as that of a running VM does (R119).

No lock in the format shows that a disk is in use. So what a writer cannot leave as it was is noted
when the file is opened, and looked at again when everything has been read.
"""

from __future__ import annotations

from typing import NamedTuple

from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx.layout import HEADER_OFFSETS, HEADER_SIZE


class FileState(NamedTuple):
    """What distinguishes one state of a file from the next.

    Attributes:
        size: In bytes.
        modified_ns: When it was written last, in nanoseconds; None if that is not known.
        headers: The two headers as they stand in the file; empty where they cannot be read.
    """

    size: int
    modified_ns: int | None
    headers: tuple[bytes, ...]


def read_state(source: Source, *, lenient: bool = False) -> FileState:
    """Look at a file as it is now.

    Raises:
        OSError: The host cannot read it, and `lenient` is not set.
    """
    size, modified_ns = source.status()
    headers = tuple(_read_header(source, place, lenient=lenient) for place in HEADER_OFFSETS)
    return FileState(size, modified_ns, headers)


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
    if before.size != after.size:
        return Finding(
            Rule.FILE_CHANGED,
            "file",
            f"{problem}: its size is another one",
            found=f"{after.size} bytes",
            expected=f"{before.size} bytes, as when it was opened",
        )
    for number, (old, new) in enumerate(zip(before.headers, after.headers, strict=True), 1):
        if old != new:
            where = HEADER_OFFSETS[number - 1]
            return Finding(
                Rule.FILE_CHANGED, f"header {number}", problem, spec="2.2.2", file_offset=where
            )
    if before.modified_ns != after.modified_ns:
        return Finding(Rule.FILE_CHANGED, "file", f"{problem}: it was written to")
    return None
