"""A file or block device of the host, opened read-only."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vhdx2raw import host
from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Identity, Source, Status
from vhdx2raw.units import KIB, ceil_div

COPY_FIRST = "a VHDX is not read from its beginning to its end; write it to a file first"
KINDS = (
    (stat.S_ISDIR, "a directory", "name the VHDX file in it"),
    (stat.S_ISFIFO, "a FIFO", COPY_FIRST),
    (stat.S_ISSOCK, "a socket", COPY_FIRST),
    (stat.S_ISCHR, "a character device", COPY_FIRST),
)
"""What cannot be read at any offset: the test of `stat` for it, its name, what to do."""

BLOCK_DEVICE = -1
"""Stands for the device in the identity of a block device."""

HOLE_SIZE = 64 * KIB
"""Bytes of a hole that is worth asking for; to read what is shorter takes less time."""


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
        self._data = 0, 0  # what the host called data when it was asked last
        self._path = os.path.abspath(path)  # noqa: PTH100 - what it names must stay the same
        # O_NONBLOCK: opening a FIFO would wait for a writer. It has no effect on regular files.
        flags = host.flags("O_RDONLY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK")
        try:
            self._descriptor = os.open(path, flags)
        except OSError as error:
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

    def pread_scattered(self, file_offset: int, buffers: Sequence[memoryview]) -> None:
        length = sum(map(len, buffers))
        self._require_inside(file_offset, length)
        try:
            count = host.pread_scattered(self._descriptor, buffers, file_offset)
        except OSError as error:
            raise self._named(error) from error
        if count < length:  # now the usual way says why
            super().pread_scattered(file_offset, buffers)

    def prefetch(self, file_offset: int, length: int, *, again: bool = False) -> None:  # noqa: ARG002
        host.prefetch(self._descriptor, file_offset, length)

    def iter_without_holes(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        end = file_offset + length
        begin = place = file_offset
        while place < end:
            hole_end = min(end, self._find_data(place))
            if hole_end - place >= HOLE_SIZE:
                if begin < place:
                    yield begin, place - begin
                begin = hole_end
            # Asked at most once for each piece of this size, however the file is scattered.
            after = max(hole_end, self._data[1])
            place = max(place + HOLE_SIZE, ceil_div(after, HOLE_SIZE) * HOLE_SIZE)
        if begin < end:
            yield begin, end - begin

    def _find_data(self, file_offset: int) -> int:
        """Return where data begins at an offset or after it, and keep where that ends."""
        start, stop = self._data
        if not start <= file_offset < stop:
            try:
                found = host.find_data(self._descriptor, file_offset, self.size)
                # Past the end of a file that became shorter lies a hole too; reading says so.
                knows_holes = os.fstat(self._descriptor).st_size >= self.size
            except OSError:
                # A device, or a file system that does not know its holes: all of it may be data.
                knows_holes = False
            if not knows_holes:
                found = 0, self.size
            # Where nothing more is stored, that is remembered as data without a byte.
            start, stop = self._data = found or (self.size, self.size)
        return max(file_offset, start)

    def status(self) -> Status:
        try:
            size = host.length_of(self._descriptor)
            return status_of(self._descriptor, self._path)._replace(size=size)
        except OSError as error:
            raise self._named(error) from error

    def times(self) -> tuple[int, int] | None:
        if self.identity[0] == BLOCK_DEVICE:  # whose times are those of its name
            return None
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise self._named(error) from error
        return status.st_mtime_ns, status.st_ctime_ns

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
