"""A file or block device of the host, opened read-only."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from vhdx2raw import host
from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Identity, Source, Status

COPY_FIRST = "a VHDX is not read from its beginning to its end; write it to a file first"
KINDS = (
    (stat.S_ISDIR, "a directory", "name the VHDX file in it"),
    (stat.S_ISFIFO, "a FIFO", COPY_FIRST),
    (stat.S_ISSOCK, "a socket", COPY_FIRST),
    (stat.S_ISCHR, "a character device", COPY_FIRST),
)
"""What cannot be read at any offset: the test of `stat` for it, its name, what to do."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

BLOCK_DEVICE = -1
"""Stands for the device in the identity of a block device."""


class FileSource(Source):
    """A file of the host, never opened for writing (rule R5)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` for positioned reads.

        Opening never blocks, whatever `path` is.

        Raises:
            UnsupportedImageError: `path` is a directory, a FIFO or something else that cannot
                be read at any offset.
            OSError: The host cannot open it.
        """
        self.name = os.fspath(path)
        self._path = os.path.abspath(path)  # noqa: PTH100 - what it names must stay the same
        # O_NONBLOCK: opening a FIFO would wait for a writer. It has no effect on regular files.
        flags = host.flags("O_RDONLY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK")
        try:
            self._descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno == errno.ENOENT and URL.match(self.name):
                raise self._unsupported("a URL", "download the file first") from error
            # A socket cannot even be opened, and on Windows no directory can.
            if error.errno in (errno.ENXIO, errno.EACCES):
                self._require_random_access(Path(path).stat().st_mode)
            raise
        try:
            status = os.fstat(self._descriptor)
            self.identity = identity_of(status)
            self._require_random_access(status.st_mode)
            # Not st_size: a block device has none.
            self.size = host.length_of(self._descriptor)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._named(error) from error
            raise

    def _require_random_access(self, mode: int) -> None:
        for is_kind, kind, remedy in KINDS:
            if is_kind(mode):
                raise self._unsupported(kind, remedy)

    def _unsupported(self, kind: str, remedy: str) -> UnsupportedImageError:
        finding = Finding(Rule.SIGNATURE, "file", f"is {kind}, not a VHDX file", spec="")
        return UnsupportedImageError(finding, path=self.name, remedy=remedy)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        done = 0
        try:
            while done < len(buffer):
                count = host.pread_into(self._descriptor, buffer[done:], file_offset + done)
                if count == 0:
                    break
                done += count
        except OSError as error:
            raise self._named(error) from error
        return done

    def status(self) -> Status:
        try:
            size = host.length_of(self._descriptor)
            return status_of(self._descriptor, self._path)._replace(size=size)
        except OSError as error:
            raise self._named(error) from error

    def watch(self) -> None:
        note_writes(self._descriptor, self.identity)

    def _named(self, error: OSError) -> OSError:
        """Return a failure of the host with the name of the file, which it lacks."""
        return OSError(error.errno, error.strerror, self.name)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # nothing was written, so nothing can be lost
                os.close(descriptor)


def status_of(descriptor: int, path: str | None = None) -> Status:
    """Return what the host says of an open file, which may have a path.

    Raises:
        OSError: The host does not know.
    """
    status = os.fstat(descriptor)
    is_there = False
    with suppress(OSError, ValueError):  # moved or removed meanwhile
        is_there = path is not None and identity_of(Path(path).stat()) == identity_of(status)
    names = status.st_nlink, is_there
    return Status(status.st_size, status.st_mtime_ns, status.st_ctime_ns, names)


def note_writes(descriptor: int, identity: Identity) -> None:
    """Have the next write to a regular file set its time, also one to a mapping of it.

    What is written to a mapped page only sets the time if the page was on the storage before.
    """
    if identity[0] != BLOCK_DEVICE:
        with suppress(OSError):  # there is no other way to know
            os.fsync(descriptor)


def identity_of(status: os.stat_result) -> Identity:
    """Return what is the same for every name of the same file: its device and inode.

    A block device can have several inodes, so its own number counts.
    """
    if sys.platform != "win32" and stat.S_ISBLK(status.st_mode):
        return BLOCK_DEVICE, status.st_rdev
    return status.st_dev, status.st_ino
