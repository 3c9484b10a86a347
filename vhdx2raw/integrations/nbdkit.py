"""A plugin for nbdkit and its Python: the virtual disk as a network block device, to be read only.

    nbdkit python .../nbdkit.py file=disk.vhdx [KEY=VALUE...]

The keys are listed in `vhdx2raw.integrations.keys`. The export ``disk`` is the whole disk, which is
the default, ``p1`` its first partition. All connections share one open disk, and all threads read
from it at once.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # nbdkit runs this file, wherever it lies
    if sys.version_info < (3, 10):  # noqa: UP036 - nbdkit's Python may be any
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(f"vhdx2raw needs Python 3.10 or newer; that of this nbdkit is {found}")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import nbdkit  # type: ignore[import-not-found]  # a part of nbdkit itself

import vhdx2raw
from vhdx2raw.integrations.keys import FILE, read_key

API_VERSION = 2
DISK = "disk"
"""The export that is the whole disk."""
PREFERRED_SIZE = 4096
"""Bytes; the larger of the two sizes of sectors, and what most file systems read at least."""
MAX_SIZE = 64 << 20
"""Bytes; nbdkit refuses to read more at once."""
MAX_EXTENTS = 4096
"""Looked at for one answer: a disk can change every sector, and a client asks for gigabytes."""
EXPECTED = (vhdx2raw.Vhdx2rawError, OSError, ValueError)
"""Failures that say all in one line."""


class Served:
    """What is served, by the words that nbdkit was given.

    Attributes:
        name: The image.
        arguments: How it is opened.
        exports: The files to be read, by the names of the exports.
    """

    name = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012 - there is one
    exports: dict[str, vhdx2raw.VirtualDisk] = {}  # noqa: RUF012


# -- before it serves ---------------------------------------------------------------------------


def config(key: str, value: str) -> None:
    """Take one of the words on nbdkit's command line.

    Raises:
        ValueError: It is none that is known.
    """
    if key == FILE:
        Served.name = value
    else:
        read_key(Served.arguments, key, value)


def config_complete() -> None:
    """Know that all words were given.

    Raises:
        ValueError: One is missing.
    """
    if not Served.name:
        raise ValueError(f"{FILE}=IMAGE is missing")


def thread_model() -> int:
    """Let every thread read at any time."""
    parallel: int = nbdkit.THREAD_MODEL_PARALLEL
    return parallel


def get_ready() -> None:
    """Open a disk in files, while their names are those of the folder where nbdkit was started.

    The errors are those of `vhdx2raw.open`.
    """
    if "://" not in Served.name:
        _open_disk()


def after_fork() -> None:
    """Open a disk at a URL, whose connections and threads would not survive a fork.

    The errors are those of `vhdx2raw.open`.
    """
    if not Served.exports:
        _open_disk()


def _open_disk() -> None:
    disk = vhdx2raw.open(Served.name, **Served.arguments)
    disk.watch()
    Served.exports[DISK] = disk
    Served.exports |= {f"p{part.number}": part for part in disk.partitions()}


# -- exports ------------------------------------------------------------------------------------


def list_exports(_readonly: bool, _is_tls: bool) -> list[tuple[str, str]]:  # noqa: FBT001
    """Return names and descriptions."""
    return [(name, export_description(file)) for name, file in Served.exports.items()]


def default_export(_readonly: bool, _is_tls: bool) -> str:  # noqa: FBT001
    """Return what is meant by no name."""
    return DISK


def open(_readonly: bool) -> vhdx2raw.VirtualDisk:  # noqa: A001, FBT001
    """Return the export that a client has asked for.

    Raises:
        ValueError: There is none of that name.
    """
    name = nbdkit.export_name() or DISK
    if name not in Served.exports:
        nbdkit.set_error(errno.ENOENT)
        raise ValueError(f"there is no export {name!r}, only {', '.join(Served.exports)}")
    return Served.exports[name]


def export_description(file: vhdx2raw.VirtualDisk) -> str:
    """Return what is behind a name, in a few words."""
    if isinstance(file, vhdx2raw.PartitionFile):
        return f"partition {file.number}, {file.entry.type_name or file.entry.type_id}"
    return f"{file.metadata.disk_type} disk"


def get_size(file: vhdx2raw.VirtualDisk) -> int:
    """Return bytes."""
    return file.size


def block_size(_file: vhdx2raw.VirtualDisk) -> tuple[int, int, int]:
    """Return how many bytes can be read at least, are best read, and can be read at most."""
    return 1, PREFERRED_SIZE, MAX_SIZE


def can_multi_conn(_file: vhdx2raw.VirtualDisk) -> bool:
    """Return that all connections see the same bytes."""
    return True


# -- reading ------------------------------------------------------------------------------------


def pread(file: vhdx2raw.VirtualDisk, buffer: memoryview, offset: int, _flags: int) -> None:
    """Fill `buffer`, with what can be relied upon.

    Raises:
        ImageError: A file is truncated, or has changed since it was opened.
        OSError: The host could not read.
    """
    with _reporting():
        file.pread_into(offset, buffer)
        file.require_unchanged()


def extents(
    file: vhdx2raw.VirtualDisk, count: int, offset: int, flags: int
) -> list[tuple[int, int, int]]:
    """Return (offset, length, kind) of the first ranges, perhaps of less than `count` bytes.

    The errors are those of `pread`.
    """
    zeros = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO
    found: list[tuple[int, int, int]] = []
    with _reporting():
        for extent in islice(file.extents(offset, count), MAX_EXTENTS):
            kind = 0 if extent.kind is vhdx2raw.ExtentKind.DATA else zeros
            if found and found[-1][2] == kind:
                start, length, _ = found.pop()
                found.append((start, length + extent.length, kind))
            elif found and flags & nbdkit.FLAG_REQ_ONE:
                break
            else:
                found.append((extent.virtual_offset, extent.length, kind))
        file.require_unchanged()
    return found


@contextmanager
def _reporting() -> Iterator[None]:
    """Let a failure be an input/output error to the client."""
    try:
        yield
    except BaseException:
        nbdkit.set_error(errno.EIO)
        raise


# -- the log ------------------------------------------------------------------------------------

_format_in_full = traceback.format_exception


def _format_for_log(kind: Any, error: Any, trace: Any) -> list[str]:  # noqa: ANN401
    """Do what `traceback.format_exception` does for nbdkit, on one line where that says all."""
    if isinstance(error, EXPECTED):
        return [str(error)]
    return _format_in_full(kind, error, trace)


if __name__ == "__main__":  # nbdkit looks the function up whenever it logs a failure
    traceback.format_exception = _format_for_log  # type: ignore[assignment]
