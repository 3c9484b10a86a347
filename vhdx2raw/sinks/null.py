"""No output at all."""

from __future__ import annotations

from vhdx2raw.sinks.base import PIECE_SIZE


class NullSink:
    """Takes everything and keeps nothing: the way to measure the reading side."""

    name = "null:"
    readable_path = None
    sequential = False
    makes_holes = True
    zeroing_is_work = False
    piece_size = PIECE_SIZE

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Forget `data`."""

    def zero(self, virtual_offset: int, length: int) -> None:
        """Forget the range."""

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        """Refuse, so that the data is read."""
        return False

    def flush(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""
