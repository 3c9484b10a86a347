"""Small files that the program writes beside the raw image."""

from __future__ import annotations

from collections.abc import Collection

from vhdx2raw.cli.signals import defer, deferring
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.base import Identity


def require_writable(path: str, inputs: Collection[Identity], *, force: bool) -> None:
    """Refuse now what `write_file` would refuse after all the work.

    Raises:
        OutputError: As `write_file`.
        OSError: As `write_file`.
    """
    with deferring():
        SparseFileSink(path, 0, replace=force, inputs=inputs).abort()


def write_file(path: str, data: bytes, inputs: Collection[Identity], *, force: bool) -> None:
    """Write a file, completely or not at all; a signal that comes from now on is too late.

    Raises:
        OutputError: The file exists and `force` is not set, is an input, or cannot be made.
        OSError: The host could not write.
    """
    defer()
    sink = SparseFileSink(path, len(data), replace=force, inputs=inputs)
    try:
        sink.write(0, memoryview(data))
        sink.flush()
        sink.commit()
    except BaseException:
        sink.abort()
        raise
