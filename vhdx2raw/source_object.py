"""Exact positioned reads of a binary file object that a Python program has opened.

Such an object knows one position, which all threads share, so that its reads happen one after the
other. Whatever it may be made of (an archive, a web server), nothing but its bytes is believed.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from threading import Lock
from typing import Protocol

from vhdx2raw.errors import Finding, UnsupportedImageError
from vhdx2raw.source import FileSource, Source, identity_of, truncated

NO_DEVICE = -2
"""Stands for the device in the identity of an object that is no file of the host."""


class BinaryFile(Protocol):
    """What is needed of a file object: that of `open(..., "rb")`, `io.BytesIO` and the like."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes from the position on; none at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> object:
        """Move the position."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


AnyFile = str | os.PathLike[str] | BinaryFile
"""A VHDX file: its path, or a binary file object."""


def open_source(file: AnyFile) -> Source:
    """Open a path, or take a file object as it is.

    Raises:
        UnsupportedImageError: It cannot be read at any offset.
        OSError: The host cannot open or read it.
        TypeError: It is neither a path nor a binary file object.
    """
    if isinstance(file, str | os.PathLike):
        return FileSource(file)
    return FileObjectSource(file)


def name_of(file: AnyFile) -> str:
    """Return the name of a file for messages; that of an object without one is its class."""
    if isinstance(file, str | os.PathLike):
        return os.fspath(file)
    name = getattr(file, "name", None)
    if isinstance(name, bytes | os.PathLike):
        name = os.fsdecode(name)
    return name if isinstance(name, str) and name else f"<{type(file).__name__}>"


class FileObjectSource:
    """A file object, which must not be used for anything else meanwhile."""

    def __init__(self, file: BinaryFile) -> None:
        """Read `file` from now on; its position is moved, and it is never closed.

        Raises:
            UnsupportedImageError: It cannot seek.
            TypeError: It is no binary file object.
        """
        if not all(hasattr(file, method) for method in ("read", "seek", "tell")):
            raise TypeError(f"expected a path or a binary file object, not {type(file).__name__}")
        if isinstance(file.read(0), str):
            raise TypeError("expected a binary file object, not one that was opened as text")
        self._file = file
        self._name = name_of(file)
        self._identity = _identity_of_object(file)
        self._moving = Lock()
        self._size = self._find_size()

    def _find_size(self) -> int:
        try:
            self._file.seek(0, io.SEEK_END)
            return self._file.tell()
        except OSError as error:
            if isinstance(error, io.UnsupportedOperation) or error.errno == errno.ESPIPE:
                finding = Finding("R1", "file object", "cannot seek, as reading a VHDX needs")
                raise UnsupportedImageError(finding, path=self._name) from error
            raise

    @property
    def name(self) -> str:
        """The name of the object, or its class."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes that the object had when it was handed over."""
        return self._size

    @property
    def identity(self) -> tuple[int, int]:
        """Those of the file behind the object, else a pair that no other object and no file has."""
        return self._identity

    @property
    def descriptor(self) -> int:
        """Refuse: what the kernel knows of the object may be other bytes, such as compressed ones.

        Raises:
            UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation("nothing can be taken from a file object but by reading it")

    def pread(self, file_offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `file_offset`."""
        self._require_inside(file_offset, length)
        buffer = bytearray(length)
        self.pread_into(file_offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, file_offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly from `file_offset` on; what the object raises is passed on."""
        self._require_inside(file_offset, len(buffer))
        done = 0
        with self._moving:
            self._file.seek(file_offset, io.SEEK_SET)
            while done < len(buffer):
                data = self._file.read(len(buffer) - done)
                if not data:
                    raise truncated(self._name, file_offset, len(buffer), file_offset + done)
                buffer[done : done + len(data)] = data
                done += len(data)

    def _require_inside(self, file_offset: int, length: int) -> None:
        if file_offset + length > self._size:
            raise truncated(self._name, file_offset, length, self._size)

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        """Yield nothing: no part of an object stands in a file as such."""
        yield from ()

    def iter_stored(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the whole range: nothing lies behind the end."""
        yield file_offset, length

    def status(self) -> tuple[int, int | None]:
        """Return the size in bytes as it is now; when it changed last is not known."""
        with self._moving:
            return self._find_size(), None

    def close(self) -> None:
        """Do nothing: whoever opened the object closes it."""


def _identity_of_object(file: BinaryFile) -> tuple[int, int]:
    """Return what is the same for the same file or object, and for nothing else."""
    try:
        return identity_of(os.fstat(file.fileno()))  # type: ignore[attr-defined]
    except (AttributeError, OSError, TypeError, ValueError):
        return NO_DEVICE, id(file)
