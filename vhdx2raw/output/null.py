"""No output at all."""

from __future__ import annotations

from vhdx2raw.output.base import Sink


class NullSink(Sink):
    """Takes everything and keeps nothing: the way to measure the reading side."""

    name = "null:"

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Forget `data`."""
