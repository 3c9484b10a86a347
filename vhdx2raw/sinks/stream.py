"""A pipe, or whatever standard output is."""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from typing import IO

from vhdx2raw.errors import OutputError
from vhdx2raw.sinks.base import (
    IS_INPUT,
    IS_INPUT_HINT,
    PIECE_SIZE,
    STANDARD_OUTPUT,
    Identity,
    worded,
)
from vhdx2raw.source import identity_of


class StreamSink:
    """A pipe or an open file that takes the whole disk from its first byte to its last."""

    sequential = True
    makes_holes = False
    zeroing_is_work = False
    piece_size = PIECE_SIZE
    readable_path = None

    def __init__(self, stream: IO[bytes], *, inputs: Collection[Identity] = ()) -> None:
        """Write to `stream`, whose file descriptor is used directly.

        Raises:
            OutputError: The stream is one of `inputs`, the files that are read.
            TypeError: It does something to what it is given, such as to compress it.
        """
        if not isinstance(getattr(stream, "raw", stream), io.FileIO):
            raise TypeError(f"expected an open file or a pipe, not {type(stream).__name__}")
        stream.flush()
        self.name = STANDARD_OUTPUT
        self._descriptor = stream.fileno()
        self._position = 0
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise worded(error, self.name) from error
        if identity_of(status) in inputs:
            raise OutputError(IS_INPUT, path=self.name, hint=IS_INPUT_HINT)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Send all of `data`, which must follow what was sent before."""
        assert virtual_offset == self._position, "a stream cannot seek"
        self._position += len(data)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise worded(error, self.name) from error

    def zero(self, virtual_offset: int, length: int) -> None:
        """Refuse: a stream has no holes."""
        raise NotImplementedError

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        """Refuse: a stream has no storage."""
        return False

    def flush(self) -> None:
        """Do nothing: a pipe has no stable storage, and nothing is buffered here."""

    def commit(self) -> None:
        """Do nothing: what was sent cannot be named."""

    def abort(self) -> None:
        """Do nothing: what was sent cannot be called back."""
