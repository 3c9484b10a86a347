"""Which sink a path gets."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.base import Identity


def open_sink(
    path: str | os.PathLike[str],
    size: int,
    *,
    replace: bool = False,
    inputs: Collection[Identity] = (),
    target_is_zero: bool = False,
) -> SparseFileSink | BlockDeviceSink:
    """Open a block device, or make a regular file, whichever `path` asks for.

    Args:
        path: A device, or the name that the file will have.
        size: Bytes of the virtual disk.
        replace: Whether what is there already may be lost.
        inputs: The files that are read, none of which may be overwritten.
        target_is_zero: Whether the device reads as zeros already; a new file always does.

    Raises:
        OutputError: The output exists, is an input or in use, or there is no room for it.
        OSError: The host cannot write there.
    """
    if is_block_device(path):
        return BlockDeviceSink(
            path, size, replace=replace, inputs=inputs, target_is_zero=target_is_zero
        )
    return SparseFileSink(path, size, replace=replace, inputs=inputs)


def open_in_place(
    path: str | os.PathLike[str], size: int, *, inputs: Collection[Identity] = ()
) -> InPlaceSink | BlockDeviceSink:
    """Open a block device or a regular file that is there, to change parts of it.

    Args:
        path: The device or file.
        size: Bytes of the virtual disk.
        inputs: The files that are read, none of which may be overwritten.

    Raises:
        OutputError: It does not exist, is an input, is in use, or has a size that does not fit.
        OSError: The host cannot write to it.
    """
    if is_block_device(path):
        return BlockDeviceSink(path, size, replace=True, inputs=inputs)
    return InPlaceSink(path, size, inputs=inputs)


def is_block_device(path: str | os.PathLike[str]) -> bool:
    """Return whether something is a block device of the host."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)  # noqa: PTH116 - also what is no Path
    except (OSError, ValueError):  # reported better when it is used
        return False
