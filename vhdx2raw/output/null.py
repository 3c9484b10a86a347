"""No output at all."""

from __future__ import annotations

from vhdx2raw.output.base import Sink
from vhdx2raw.zeros import MAX_BUFFER_SIZE


class NullSink(Sink):
    """Takes everything and keeps nothing: the way to measure the reading side."""

    name = "null:"
    piece_size = MAX_BUFFER_SIZE

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Forget `data`."""
