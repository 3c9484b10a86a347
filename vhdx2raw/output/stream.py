"""A pipe, or whatever standard output is."""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from typing import IO

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import IS_INPUT, IS_INPUT_REMEDY, STANDARD_OUTPUT, Sink, output_error
from vhdx2raw.output.inputs import is_input
from vhdx2raw.source.base import Identity


class StreamSink(Sink):
    """A pipe or an open file that takes the whole disk from its first byte to its last."""

    sequential = True
    makes_holes = False

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
            raise output_error(error, self.name) from error
        if is_input(status, inputs, f"/dev/fd/{self._descriptor}"):
            raise OutputError(IS_INPUT, path=self.name, remedy=IS_INPUT_REMEDY)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        assert virtual_offset == self._position, "a stream cannot seek"
        self._position += len(data)
        try:
            write_waiting(self._descriptor, data)
        except OSError as error:
            raise output_error(error, self.name) from error


def write_waiting(descriptor: int, data: memoryview) -> None:
    """Write all of `data`, and wait where a stream that does not block has no room at the moment.

    Whoever shares the stream may have made it so; to change that back would be felt on their side.

    Raises:
        OSError: The host could not write.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # noqa: PERF203 - how the host says that there is no room
            host.wait_writable(descriptor)
