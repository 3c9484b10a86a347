"""What the sinks of files and devices of the host share: an open descriptor."""

from __future__ import annotations

import os
from contextlib import suppress

from vhdx2raw import host
from vhdx2raw.output.base import Sink, output_error, write_fully
from vhdx2raw.output.write_behind import WriteBehind


class OpenFileSink(Sink):
    """A sink that writes to one descriptor, and closes it at the end."""

    def __init__(self, name: str) -> None:
        """Begin with nothing open."""
        self.name = name
        self._descriptor = -1
        self._behind: WriteBehind | None = None

    def expect_flush(self) -> None:
        self._behind = WriteBehind(self._descriptor)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        write_fully(self._descriptor, virtual_offset, data, self.name)
        if self._behind:
            self._behind.note(virtual_offset, len(data))

    def flush(self) -> None:
        """Bring everything to stable storage: only now does the kernel report what failed."""
        try:
            host.sync(self._descriptor)
        except OSError as error:
            raise output_error(error, self.name) from error

    def commit(self) -> None:
        try:
            self._close()
        except OSError as error:
            raise output_error(error, self.name) from error

    def abort(self) -> None:
        """Close what is open, and leave it as it is."""
        with suppress(OSError):  # a failure is being reported already
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
