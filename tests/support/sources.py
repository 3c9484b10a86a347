"""Sources that fail as a host does."""

from __future__ import annotations

import errno

from vhdx2raw.source.file import FileSource


class BadSource(FileSource):
    """Fails where a read touches one of its bad bytes."""

    bad: tuple[int, ...]

    def pread(self, file_offset: int, length: int) -> bytes:
        if any(file_offset <= place < file_offset + length for place in self.bad):
            raise OSError(errno.EIO, "Input/output error")
        return super().pread(file_offset, length)
