"""Exact positioned reads of a binary file object that a Python program has opened.

Such an object knows one position, which all threads share, so that its reads happen one after the
other. Whatever it may be made of (an archive, a web server), nothing but its bytes is believed.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Identity, Source, Status
from vhdx2raw.source.file import FileSource, identity_of, note_writes, status_of
from vhdx2raw.source.remote.options import DEFAULTS, RemoteOptions

if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
INSTALL = "install it: pip install 'vhdx2raw[remote]'"
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
"""A VHDX file: its path or URL, or a binary file object."""


def is_url(path: str) -> bool:
    """Return whether a path is none of this host, but a URL."""
    return URL.match(path) is not None and not os.path.lexists(path)


def open_source(file: AnyFile | RemoteUrl, remote: RemoteOptions = DEFAULTS) -> Source:
    """Open a path or a URL, or take a file object as it is.

    Args:
        file: The file; a `RemoteUrl` if not the user but an image has named it.
        remote: How to read it if it is a URL.

    Raises:
        UnsupportedImageError: It cannot be read at any offset, or what reads URLs is missing.
        RemoteError: It could not be read over the network.
        OSError: The host cannot open or read it.
        TypeError: It is neither a path nor a binary file object.
    """
    if isinstance(file, str) and is_url(file):
        return _open_url(file, remote)
    if isinstance(file, str | os.PathLike):
        return FileSource(file)
    from vhdx2raw.source.remote.url import RemoteUrl  # noqa: PLC0415 - what is left is rare

    return _open_url(file, remote) if isinstance(file, RemoteUrl) else FileObjectSource(file)


def _open_url(url: str | RemoteUrl, options: RemoteOptions) -> Source:
    # All of this takes a while to load.
    from vhdx2raw.source.remote.url import parse_url  # noqa: PLC0415

    parsed = parse_url(url) if isinstance(url, str) else url
    try:
        from vhdx2raw.source.remote.source import RemoteSource  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        finding = Finding(Rule.SIGNATURE, "file", "is a URL, which takes a package more", spec="")
        raise UnsupportedImageError(finding, path=parsed.name, remedy=INSTALL) from None
    return RemoteSource(parsed, options, is_guarded=not isinstance(url, str))


def file_name_of(path: str) -> str:
    """Return the last part of a path or a URL."""
    if is_url(path):
        from vhdx2raw.source.remote.url import parse_url  # noqa: PLC0415 - for URLs alone

        return parse_url(path).file_name
    return os.path.basename(path)  # noqa: PTH119 - as it is


def name_of(file: AnyFile | RemoteUrl) -> str:
    """Return the name of a file for messages; that of an object without one is its class.

    That of a URL has nothing in it that is secret.
    """
    if isinstance(file, str) and is_url(file):
        from vhdx2raw.source.remote.url import clean_name  # noqa: PLC0415 - for URLs alone

        return clean_name(file)
    if isinstance(file, str | os.PathLike):
        return os.fspath(file)
    name = getattr(file, "name", None)
    if isinstance(name, bytes | os.PathLike):
        name = os.fsdecode(name)
    return name if isinstance(name, str) and name else f"<{type(file).__name__}>"


class FileObjectSource(Source):
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
        self._moving = Lock()
        self.name = name_of(file)
        self._descriptor = _descriptor_of(file)
        self.identity = self._find_identity()
        self.size = self._find_size()

    def _find_size(self) -> int:
        try:
            self._file.seek(0, io.SEEK_END)
            return self._file.tell()
        except OSError as error:
            if isinstance(error, io.UnsupportedOperation) or error.errno == errno.ESPIPE:
                problem = "cannot seek, as reading a VHDX needs"
                finding = Finding(Rule.SIGNATURE, "file object", problem, spec="")
                raise UnsupportedImageError(finding, path=self.name) from error
            raise

    @property
    def descriptor(self) -> int:
        """Refuse: what the kernel knows of the object may be other bytes, such as compressed ones.

        Raises:
            UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation("nothing can be taken from a file object but by reading it")

    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        done = 0
        with self._moving:
            self._file.seek(file_offset, io.SEEK_SET)
            while done < len(buffer) and (data := self._file.read(len(buffer) - done)):
                buffer[done : done + len(data)] = data
                done += len(data)
        return done

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        """Yield nothing: the kernel may know other bytes."""
        yield from ()

    def _find_identity(self) -> Identity:
        """Return what is the same for the same file or object, and for nothing else."""
        if self._descriptor is None:
            return NO_DEVICE, id(self._file)
        return identity_of(os.fstat(self._descriptor))

    def status(self) -> Status:
        """Return the size as it is now, and the times of the file that the object may be made of.

        What is read may be other bytes than those of that file, but changes only if it does.
        """
        with self._moving:
            size = self._find_size()
        if self._descriptor is None:
            return Status(size)
        return status_of(self._descriptor)._replace(size=size)

    def watch(self) -> None:
        if self._descriptor is not None:
            note_writes(self._descriptor, self.identity)

    def close(self) -> None:
        """Do nothing: whoever opened the object closes it."""


def _descriptor_of(file: BinaryFile) -> int | None:
    """Return the descriptor of the file or device of the host that an object is made of, if any."""
    try:
        descriptor = file.fileno()  # type: ignore[attr-defined]
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return descriptor if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else None
