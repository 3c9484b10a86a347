"""What every sink offers, and how its failures are reported."""

from __future__ import annotations

import errno
from abc import abstractmethod
from typing import Protocol, runtime_checkable

from vhdx2raw import host
from vhdx2raw.errors import NoSpaceError, OutputError
from vhdx2raw.units import KIB

STANDARD_OUTPUT = "standard output"
IS_INPUT = "is the input itself"
IS_INPUT_REMEDY = "choose another name for the output"
EXISTS = "exists already"
EXISTS_REMEDY = "choose another name, or use {force} to replace it"

NO_SPACE_REMEDIES = {
    errno.ENOSPC: "make room, or write to another place",
    errno.EDQUOT: "make room, or write to another place",
    errno.EFBIG: "this file system cannot hold a file of this length; write to another one",
}
"""Failures of the host that mean that the output has no room here, and what to do."""
NO_OUTPUT_REMEDIES = {
    errno.ENOENT: "the folder does not exist; make it first",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "choose the name of a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EPIPE: "the program that reads the output has ended",
}
"""Failures of the host that mean that the output cannot be made here, and what to do."""

CLONE_ALIGNMENT = 4096
"""Bytes; the block size of the file systems that share storage."""

PIECE_SIZE = 256 * KIB
"""Bytes to write at once through the page cache. The kernel looks for memory in pieces as large as
the writes, and large ones are seldom at hand; small ones are many calls."""


@runtime_checkable
class Sink(Protocol):
    """Where a raw disk goes. After `commit` or `abort` nothing else is called.

    A class that names `Sink` as its base has to define `name` and `write`, and `zero` if it makes
    holes; for the rest it may do with what stands here.

    Attributes:
        name: The output as the user named it, for messages.
        readable_path: Where what was flushed can be read before `commit`; None if it cannot.
        sequential: Whether ranges must come in order, without gaps, from one thread.
        makes_holes: Whether `zero` can be called at all.
        zeroing_is_work: Whether `zero` takes time. Then it counts as progress, and is asked for
            in limited ranges.
        piece_size: Bytes that it takes best at once: a power of two from 4 KiB to 1 MiB.
    """

    name: str
    readable_path: str | None = None
    sequential: bool = False
    makes_holes: bool = True
    zeroing_is_work: bool = False
    piece_size: int = PIECE_SIZE

    @abstractmethod
    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Put all of `data` at its place."""

    def zero(self, virtual_offset: int, length: int) -> None:
        """Make a range read as zeros without writing them."""
        if not self.makes_holes:
            raise NotImplementedError(f"{self.name} makes no holes")

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        """Let a range share its storage with an open file; False if no range can do that here.

        All three numbers are multiples of `CLONE_ALIGNMENT` bytes.
        """
        return False

    def expect_flush(self) -> None:
        """Expect `flush` at the end, so that what is written may go to storage at once."""
        return  # not abstract

    def flush(self) -> None:
        """Bring everything to stable storage."""
        return  # not abstract

    def commit(self) -> None:
        """Make the output appear under its name."""
        return  # not abstract

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after `commit`."""
        return  # not abstract


def output_error(error: BaseException, name: str) -> BaseException:
    """Return the failure of the host as an `OutputError` if the output cannot be made here.

    Any other failure is passed on, an `OSError` with the name of the output.
    """
    if not isinstance(error, OSError):
        return error
    if error.errno == errno.EEXIST:
        return OutputError(EXISTS, path=name, remedy=EXISTS_REMEDY)
    for kind, remedies in ((NoSpaceError, NO_SPACE_REMEDIES), (OutputError, NO_OUTPUT_REMEDIES)):
        if error.errno in remedies:
            problem = f"cannot be written: {error.strerror}"
            return kind(problem, path=name, remedy=remedies[error.errno])
    return OSError(error.errno, error.strerror, name)


def write_fully(descriptor: int, file_offset: int, data: memoryview, name: str) -> None:
    """Write all of `data` at an offset of an open file; a failure becomes an `output_error`."""
    try:
        while data:
            count = host.pwrite(descriptor, data, file_offset)
            file_offset += count
            data = data[count:]
    except OSError as error:
        raise output_error(error, name) from error
