"""Bringing a raw image up to date in place: only what differs is written."""

from __future__ import annotations

import os

from vhdx2raw.disk.chain import AnyPath
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.state import (
    begin,
    default_state_path,
    read_state,
    require_same_work,
    require_size,
    require_unchanged,
    version_of,
)
from vhdx2raw.output.difference import DifferenceSink
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.output.opening import is_block_device, open_in_place
from vhdx2raw.source.raw_file import RawFile

UNKNOWN = "has no state file, so what it holds is unknown"
UNKNOWN_REMEDY = "name the state file with {state}, or use {force} to overwrite what differs"


def find_state(destination: AnyPath, state: AnyPath | None) -> str | None:
    """Return the state file of an image that is to be updated: the named one, else one beside it.

    A named one need not be there yet.
    """
    if state is not None:
        return os.fspath(state)
    if is_block_device(destination):
        return None
    path = default_state_path(destination)
    return path if os.path.lexists(path) else None


def open_update(
    disk: VirtualDisk, destination: AnyPath, state_path: str | None, *, force: bool
) -> DifferenceSink:
    """Open an image so that only what differs is written to it.

    Args:
        disk: What it is to hold.
        destination: A regular file or a block device that is there.
        state_path: Its state file, if it has one; from now on it says what is being done.
        force: Whether it may be overwritten even if what it holds is unknown, or was changed.

    Raises:
        OutputError: It is not what its state file says, or cannot be written.
        OSError: The host could not read or write.
    """
    name = os.fspath(destination)
    state = None
    if state_path is not None and os.path.lexists(state_path):
        state = read_state(state_path)
        require_same_work(name, state, version_of(disk), "update")
        if not force:
            require_size(name, state_path, state, disk.size)
            require_unchanged(name, state_path, state, lambda *_: True)
    sink = open_in_place(name, disk.size, inputs=disk.chain.identities)
    try:
        if state is None and not force:
            raise OutputError(UNKNOWN, path=name, remedy=UNKNOWN_REMEDY)  # noqa: TRY301
        if state_path is not None and state is not None:
            begin(name, state_path, state, version_of(disk), "update")
        if isinstance(sink, InPlaceSink):
            sink.lengthen()
        return DifferenceSink(sink, RawFile(name, max_device_size=disk.size))
    except BaseException:
        sink.abort()
        raise
