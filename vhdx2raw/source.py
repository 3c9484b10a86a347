"""Exact positioned reads of one file, opened read-only. A short read is an error.

A `Source` is all that the rooms after this one know of a file. It answers from any thread, since
no read moves a shared position.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vhdx2raw import host
from vhdx2raw.errors import TRUNCATED_HINT, Finding, TruncatedImageError, UnsupportedImageError

KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
)
"""What is no file to read at any offset, by the test of `stat` that tells."""

BLOCK_DEVICE = -1
"""Stands for the device in the identity of a block device."""


class Source(Protocol):
    """Where the bytes of one VHDX file come from."""

    @property
    def name(self) -> str:
        """The file as the user named it, for messages."""
        ...

    @property
    def size(self) -> int:
        """Bytes that can be read."""
        ...

    @property
    def identity(self) -> tuple[int, int]:
        """What `identity_of` tells: the same for every name of the same file."""
        ...

    def pread(self, file_offset: int, length: int) -> bytes:
        """Read exactly `length` bytes, or raise `TruncatedImageError` or `OSError`."""
        ...

    def pread_into(self, file_offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly, or raise `TruncatedImageError` or `OSError`."""
        ...

    @property
    def descriptor(self) -> int:
        """The open file, for the kernel; only ranges of `iter_in_file` may be taken from it."""
        ...

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the parts of a range that stand in the file as such."""
        ...

    def iter_stored(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the parts of a range that are stored.

        The rest is zeros behind the end of the file, of which a log can promise many terabytes.
        """
        ...

    def status(self) -> tuple[int, int | None]:
        """Return the size in bytes and the time of the last change (ns) as they are now."""
        ...

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        ...


class FileSource:
    """A file of the host, never opened for writing (rule R5)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` for positioned reads.

        Opening never blocks, whatever `path` is.

        Raises:
            UnsupportedImageError: `path` is a directory, a FIFO or something else that cannot
                be read at any offset.
            OSError: The host cannot open it.
        """
        self._name = os.fspath(path)
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
            self._identity = identity_of(status)
            self._require_random_access(status.st_mode)
            # Not st_size: a block device has none.
            self._size = host.length_of(self._descriptor)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._named(error) from error
            raise

    def _require_random_access(self, mode: int) -> None:
        for is_kind, kind in KINDS:
            if is_kind(mode):
                raise UnsupportedImageError(
                    Finding("R1", "file", f"is {kind}, not a VHDX file"), path=self._name
                )

    @property
    def name(self) -> str:
        """The file as the user named it."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._size

    @property
    def identity(self) -> tuple[int, int]:
        """What `identity_of` tells of the opened file."""
        return self._identity

    @property
    def descriptor(self) -> int:
        """The open file, for the kernel."""
        return self._descriptor

    def pread(self, file_offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `file_offset`."""
        self._require_inside(file_offset, length)
        try:
            data = host.pread(self._descriptor, length, file_offset)
        except OSError as error:
            raise self._named(error) from error
        if len(data) == length:
            return data
        buffer = bytearray(length)
        self.pread_into(file_offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, file_offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly from `file_offset` on."""
        self._require_inside(file_offset, len(buffer))
        done = 0
        while done < len(buffer):
            try:
                count = host.pread_into(self._descriptor, buffer[done:], file_offset + done)
            except OSError as error:
                raise self._named(error) from error
            if count == 0:
                raise truncated(self._name, file_offset, len(buffer), file_offset + done)
            done += count

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the whole range: nothing is laid over the file."""
        yield file_offset, length

    def iter_stored(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the whole range: nothing lies behind the end."""
        yield file_offset, length

    def status(self) -> tuple[int, int | None]:
        """Return the size in bytes and the time of the last change (ns) as they are now."""
        try:
            size = host.length_of(self._descriptor)
            return size, os.fstat(self._descriptor).st_mtime_ns
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        """Return a failure of the host with the name of the file, which it lacks."""
        return OSError(error.errno, error.strerror, self._name)

    def _require_inside(self, file_offset: int, length: int) -> None:
        # Before the call: an offset of 2^63 or more is an OverflowError to the operating system.
        if file_offset + length > self._size:
            raise truncated(self._name, file_offset, length, self._size)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # nothing was written, so nothing can be lost
                os.close(descriptor)


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """Return what is the same for every name of the same file: its device and inode.

    A block device can have several inodes, so that it is told by its own number.
    """
    if sys.platform != "win32" and stat.S_ISBLK(status.st_mode):
        return BLOCK_DEVICE, status.st_rdev
    return status.st_dev, status.st_ino


def truncated(name: str, file_offset: int, length: int, end: int) -> TruncatedImageError:
    """Return the error for a read of `length` bytes that meets the end of a file at `end`."""
    finding = Finding(
        "R3",
        "file",
        f"ends too early: {length} bytes are needed here",
        file_offset=file_offset,
        found=f"end of file at {end:#x}",
    )
    return TruncatedImageError(finding, path=name, hint=TRUNCATED_HINT)
