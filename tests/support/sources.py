"""Sources that fail as a host does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vhdx2raw import host
from vhdx2raw.source.file import FileSource


class BadSource(FileSource):
    """Fails where a read touches one of its bad bytes."""

    def __init__(self, path: Path, *bad: int) -> None:
        """Open `path`, of which the bytes at the file offsets `bad` cannot be read."""
        super().__init__(path)
        self._bad = bad

    def pread(self, file_offset: int, length: int) -> bytes:
        if any(file_offset <= place < file_offset + length for place in self._bad):
            raise OSError(errno.EIO, "Input/output error")
        return super().pread(file_offset, length)


def forget_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be on a file system that does not know its holes."""

    def find_data(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(host, "find_data", find_data)
