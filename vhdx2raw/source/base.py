"""What every source of bytes offers: exact positioned reads from any thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule

if TYPE_CHECKING:
    from typing_extensions import Self

    from vhdx2raw.source.remote.url import RemoteUrl

Identity = tuple[int, int]
"""What distinguishes a file from every other: device and inode, or the like."""


class Status(NamedTuple):
    """What a host says of a file, with None for what it does not know.

    Attributes:
        size: In bytes.
        modified_ns: When its bytes were written last, in nanoseconds; any program can set this.
        changed_ns: When its bytes or anything else about it changed last, which no program can set.
        names: What changes when the file is renamed or linked, which sets `changed_ns` as well.
        version: What a server calls this version of the file, and no other.
    """

    size: int
    modified_ns: int | None = None
    changed_ns: int | None = None
    names: tuple[int, bool] | None = None
    version: str | None = None


class Fetched(NamedTuple):
    """What was read over a network.

    Attributes:
        bytes: Of files.
        requests: How many were made.
        retries: How many of them because an earlier one had failed.
    """

    bytes: int
    requests: int
    retries: int


def total(parts: Iterable[Fetched | None]) -> Fetched | None:
    """Return what was fetched in all; None if everything lies on the host."""
    found = [fetched for fetched in parts if fetched is not None]
    return Fetched(*map(sum, zip(*found, strict=True))) if found else None


class Closable(ABC):
    """What is closed at the end of a `with` statement."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Close every file; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source(Closable):
    """The bytes of one file, which is never written to. A short read is an error.

    Attributes:
        name: The file as the user named it, for messages.
        size: Bytes that can be read.
        identity: The same for every name of the same file, and different for any other.
        url: Where it lies, if that is not on this host.
        read_ahead: How many bytes are to be in `prefetch` before they are read; 0 if that is only
            of use for what does not follow what was read before.
        unwatched: Why a change might not be noticed; empty if any will be.
    """

    name: str
    size: int
    identity: Identity
    url: RemoteUrl | None = None
    read_ahead: int = 0
    unwatched: str = ""

    @property
    def fetched(self) -> Fetched | None:
        """What was read over a network so far; None for what does not come over one."""
        return None

    @property
    @abstractmethod
    def descriptor(self) -> int:
        """The open file, for the kernel; only ranges of `iter_in_file` may be taken from it.

        Raises:
            UnsupportedOperation: The kernel does not know it.
        """

    @property
    def file(self) -> Source:
        """The file as it is stored, without what a log changes."""
        return self

    @abstractmethod
    def status(self) -> Status:
        """Return what the host says of the file now."""

    def times(self) -> tuple[int, int] | None:
        """Return when the file was written to and changed last, as in `status`, in little time.

        None if these do not tell whether the bytes of the file are other ones.
        """
        return None

    def watch(self) -> None:
        """Have the host note when the file is written to from now on, where it can do that."""
        return  # not abstract

    @abstractmethod
    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        """Fill `buffer`; return how many bytes there were, fewer only at the end of the file."""

    def pread(self, file_offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `file_offset`.

        Raises:
            TruncatedImageError: The file ends before.
            OSError: The host could not read.
        """
        self._require_inside(file_offset, length)
        buffer = bytearray(length)
        self.pread_into(file_offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, file_offset: int, buffer: memoryview) -> None:
        """Fill `buffer` exactly from `file_offset` on; the errors are those of `pread`."""
        self._require_inside(file_offset, len(buffer))
        count = self._fill(file_offset, buffer)
        if count < len(buffer):
            raise self._truncated(file_offset, len(buffer), file_offset + count)

    def pread_scattered(self, file_offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill buffers one after the other, as one read; the errors are those of `pread`."""
        data = memoryview(self.pread(file_offset, sum(map(len, buffers))))
        done = 0
        for buffer in buffers:
            buffer[:] = data[done : done + len(buffer)]
            done += len(buffer)

    def prefetch(self, file_offset: int, length: int, *, again: bool = False) -> None:  # noqa: ARG002
        """Expect that a range is read soon, or even more than once.

        Nothing is waited for, and nothing may come of it.
        """
        return  # not abstract

    def cancel(self) -> None:
        """Let reads that wait for a network fail now."""
        return  # not abstract

    def iter_without_holes(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the parts of a range that may be other than zeros.

        What the host calls a hole of the file, and is long, is left out.
        """
        yield file_offset, length

    def iter_in_file(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the parts of a range that read as they are in the file."""
        yield file_offset, length

    def iter_stored(self, file_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the parts of a range that are stored.

        The rest is zeros past the end of the file, of which a log can promise many terabytes.
        """
        yield file_offset, length

    def _require_inside(self, file_offset: int, length: int) -> None:
        # Before any call: an offset of 2^63 or more is an OverflowError to the operating system.
        if file_offset + length > self.size:
            raise self._truncated(file_offset, length, self.size)

    def _truncated(self, file_offset: int, length: int, end: int) -> TruncatedImageError:
        finding = Finding(
            Rule.FILE_END,
            "file",
            f"ends too early: {length} bytes are needed here",
            file_offset=file_offset,
            found=f"end of file at {end:#x}",
        )
        return TruncatedImageError(finding, path=self.name)
