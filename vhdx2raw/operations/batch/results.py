"""What became of each disk, a line of JSON for each, in a file that many programs add to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import output_error, write_fully

DONE = ("converted", "salvaged")
"""The statuses of a disk whose raw image is complete."""


class Results:
    """A file of results. Lines are added whole, and are on stable storage when that is done."""

    def __init__(self, path: str) -> None:
        """Read what earlier runs have added; a line that was cut off by a crash counts as none.

        Raises:
            OSError: The host cannot read it.
        """
        self.path = path
        self._done: dict[str, Mapping[str, Any]] = {}
        if os.path.isfile(path):  # noqa: PTH113 - no Path is needed
            with open(path, "rb") as file:  # noqa: PTH123
                for line in file:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        with suppress(ValueError):
            facts = json.loads(line)
            is_done = isinstance(facts, dict) and facts.get("status") in DONE
            if is_done and isinstance(facts.get("digests", {}), dict):
                self._done[os.path.abspath(str(facts.get("destination")))] = facts  # noqa: PTH100

    def find_done(self, destination: str) -> Mapping[str, Any] | None:
        """Return the last line that says that a raw image is complete; None if there is none."""
        return self._done.get(os.path.abspath(destination))  # noqa: PTH100

    def require_writable(self) -> None:
        """Make sure, before any work, that lines can be added.

        Raises:
            OutputError: They cannot.
            OSError: The host could not write.
        """
        self._append(b"")

    def add(self, facts: Mapping[str, object]) -> None:
        """Add a line.

        Raises:
            OutputError: It cannot be written; nothing of it is.
            OSError: The host could not write; nothing of it is.
        """
        self._append(json.dumps(facts).encode("ascii") + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            flags = host.flags("O_RDWR", "O_APPEND", "O_CREAT", "O_CLOEXEC", "O_NONBLOCK")
            descriptor = os.open(self.path, flags, 0o666)
            try:
                host.lock(descriptor, wait=True)
                _append(descriptor, line, self.path)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise output_error(error, self.path) from error


def _append(descriptor: int, line: bytes, name: str) -> None:
    """Add a line to a file of ours: all of it, or nothing."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OutputError("is no regular file", path=name, remedy="name another file")
    end = status.st_size
    if line and end and host.pread(descriptor, 1, end - 1) != b"\n":
        line = b"\n" + line  # after what a crash has cut off
    try:
        write_fully(descriptor, end, memoryview(line), name)
    except BaseException:
        os.ftruncate(descriptor, end)
        raise
    if line:
        host.sync(descriptor)
