"""How raw output is made: a sparse file, a stream, or nothing at all.

A sink says what it can do, and the loop in `convert` decides what to do about it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from vhdx2raw.errors import OutputError

IS_INPUT = "is the input itself"
IS_INPUT_HINT = "choose another name for the output"
EXISTS = "exists already"
EXISTS_HINT = "choose another name, or use --force to replace it"

NO_OUTPUT_HINTS = {
    errno.ENOSPC: "make room, or write to another place",
    errno.EDQUOT: "make room, or write to another place",
    errno.EFBIG: "this file system cannot hold a file of this length; write to another one",
    errno.ENOENT: "the folder does not exist; make it first",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "choose the name of a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EPIPE: "the program that reads the output has ended",
}
"""Failures of the host that mean that the output cannot be made here, and what to do."""

Identity = tuple[int, int]
"""Device and inode."""


class Sink(Protocol):
    """Where a raw disk goes. After `commit` or `abort` nothing else is called."""

    sequential: bool
    """Whether ranges must come in order, without gaps, from one thread."""
    makes_holes: bool
    """Whether `zero` can be called at all."""

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Put all of `data` at its place."""
        ...

    def zero(self, virtual_offset: int, length: int) -> None:
        """Make a range read as zeros without writing them."""
        ...

    def flush(self) -> None:
        """Bring everything to stable storage."""
        ...

    def commit(self) -> None:
        """Make the output appear under its name."""
        ...

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after `commit`."""
        ...


class SparseFileSink:
    """A regular file that appears under its name when it is complete, or not at all."""

    sequential = False
    makes_holes = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        replace: bool = False,
        inputs: Collection[Identity] = (),
    ) -> None:
        """Make a temporary file of its final length, all of it a hole, beside `path`.

        Args:
            path: The final name.
            size: Bytes of the virtual disk.
            replace: Whether a file that has this name already may be replaced.
            inputs: The files that are read, none of which may be the output.

        Raises:
            OutputError: The output exists, is an input, or there is no room for it.
            OSError: The host cannot write there.
        """
        self._name = os.fspath(path)
        self._replace = replace
        # A link is followed, so that the file it names is replaced and not the link itself.
        self._path = Path(os.path.realpath(path)) if replace else Path(path)
        self._check_target(inputs)
        token = secrets.token_hex(8)
        self._temporary = self._path.with_name(f".{self._path.name[:200]}.{token}.part")
        self._descriptor = -1
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._temporary, flags, 0o666)
            os.ftruncate(self._descriptor, size)
        except BaseException as error:
            self.abort()
            raise _worded(error, self._name) from error

    def _check_target(self, inputs: Collection[Identity]) -> None:
        """Refuse early what `commit` would refuse after all the work."""
        if not self._path.name or self._name.endswith(os.sep):
            raise OutputError("is a directory, not a file to write", path=self._name)
        try:
            exists = os.path.lexists(self._path)
            status = self._path.stat() if self._path.exists() else None
        except OSError as error:
            raise _worded(error, self._name) from error
        if status and (status.st_dev, status.st_ino) in inputs:
            raise OutputError(IS_INPUT, path=self._name, hint=IS_INPUT_HINT)
        if status and stat.S_ISDIR(status.st_mode):
            raise OutputError("is a directory, not a file to write", path=self._name)
        if status and not stat.S_ISREG(status.st_mode):
            raise OutputError("exists and is not a regular file", path=self._name)
        if exists and not self._replace:
            raise OutputError(EXISTS, path=self._name, hint=EXISTS_HINT)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Put all of `data` at its place."""
        try:
            while data:
                count = os.pwrite(self._descriptor, data, virtual_offset)
                virtual_offset += count
                data = data[count:]
        except OSError as error:
            raise _worded(error, self._name) from error

    def zero(self, virtual_offset: int, length: int) -> None:
        """Do nothing: what is not written is a hole."""

    def flush(self) -> None:
        """Bring the temporary file to stable storage."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _worded(error, self._name) from error

    def commit(self) -> None:
        """Move the temporary file to its final name, which is replaced only if that was asked."""
        try:
            if self._replace:
                self._temporary.replace(self._path)
            else:
                self._move_without_replacing()
        except OSError as error:
            raise _worded(error, self._name) from error
        os.close(self._descriptor)
        self._descriptor = -1
        self._sync_folder()

    def _move_without_replacing(self) -> None:
        try:
            os.link(self._temporary, self._path, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # This file system has no hard links, and without them no move can refuse to replace:
            # look once more and take the narrow risk.
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self._temporary.rename(self._path)
        else:
            self._temporary.unlink()

    def _sync_folder(self) -> None:
        # Not every file system can do this, and the contents of the file are safe already.
        with suppress(OSError):
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abort(self) -> None:
        """Remove the temporary file. Does nothing after `commit`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink(missing_ok=True)


class StreamSink:
    """A pipe or an open file that takes the whole disk from its first byte to its last."""

    sequential = True
    makes_holes = False

    def __init__(self, stream: BinaryIO, *, inputs: Collection[Identity] = ()) -> None:
        """Write to `stream`, whose file descriptor is used directly.

        Raises:
            OutputError: The stream is one of `inputs`, the files that are read.
        """
        self._name = "standard output"
        self._descriptor = stream.fileno()
        self._position = 0
        status = os.fstat(self._descriptor)
        if (status.st_dev, status.st_ino) in inputs:
            raise OutputError(IS_INPUT, path=self._name, hint=IS_INPUT_HINT)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Send all of `data`, which must follow what was sent before."""
        assert virtual_offset == self._position, "a stream cannot seek"
        self._position += len(data)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise _worded(error, self._name) from error

    def zero(self, virtual_offset: int, length: int) -> None:
        """Refuse: a stream has no holes."""
        raise NotImplementedError

    def flush(self) -> None:
        """Do nothing: a pipe has no stable storage, and nothing is buffered here."""

    def commit(self) -> None:
        """Do nothing: what was sent cannot be named."""

    def abort(self) -> None:
        """Do nothing: what was sent cannot be called back."""


class NullSink:
    """Takes everything and keeps nothing: the way to measure the reading side."""

    sequential = False
    makes_holes = True

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Forget `data`."""

    def zero(self, virtual_offset: int, length: int) -> None:
        """Forget the range."""

    def flush(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


def _worded(error: BaseException, name: str) -> BaseException:
    """Return the failure of the host as an `OutputError` if the output cannot be made here.

    Any other failure is passed on, an `OSError` with the name of the output.
    """
    if not isinstance(error, OSError):
        return error
    if error.errno == errno.EEXIST:
        return OutputError(EXISTS, path=name, hint=EXISTS_HINT)
    if error.errno in NO_OUTPUT_HINTS:
        hint = NO_OUTPUT_HINTS[error.errno]
        return OutputError(f"cannot be written: {error.strerror}", path=name, hint=hint)
    return OSError(error.errno, error.strerror, name)
