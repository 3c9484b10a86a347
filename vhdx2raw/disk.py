"""The virtual disk as a read-only, seekable file: for Python programs, and for reading it twice."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NoReturn

from vhdx2raw.chain import AnyPath, Chain, open_chain
from vhdx2raw.errors import Finding
from vhdx2raw.extents import Extent, ExtentKind, iter_extents
from vhdx2raw.log import LogPolicy
from vhdx2raw.metadata import Metadata
from vhdx2raw.salvage import LostRanges
from vhdx2raw.source_object import AnyFile
from vhdx2raw.zeros import fill_zeros

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def open_disk(
    path: AnyFile,
    *,
    parents: Sequence[AnyFile] = (),
    parent_dirs: Sequence[AnyPath] = (),
    allow_parent_mismatch: bool = False,
    log_policy: LogPolicy = LogPolicy.REPLAY,
    salvage: bool = False,
) -> VirtualDisk:
    """Open the virtual disk in a VHDX file as a file to read; ``vhdx2raw.open`` is its short name.

    The arguments and the errors are those of `open_chain`.
    """
    chain = open_chain(
        path,
        parents=parents,
        parent_dirs=parent_dirs,
        allow_parent_mismatch=allow_parent_mismatch,
        log_policy=log_policy,
        salvage=salvage,
    )
    return VirtualDisk(chain)


class VirtualDisk(io.RawIOBase):
    """The bytes that a guest sees, from the first to the last.

    `pread` may be called from any thread; `read` and `seek` share one position. Closing the disk
    closes every file of the chain.

    Attributes:
        chain: The files that the disk is made of.
        lost: Of a disk that was opened to be salvaged, what could not be read so far and reads as
            zeros; the ranges that no table tells of are not in it, but in `extents`.
    """

    def __init__(self, chain: Chain, *, owns_chain: bool = True) -> None:
        """Show the disk of an open chain, which from now on belongs to this object if it owns it.

        Then it is closed with this object, at the latest when nobody knows of that any more.
        """
        super().__init__()
        self.chain = chain
        self.lost = LostRanges()
        self._owns_chain = owns_chain
        self._position = 0
        self._moving = Lock()

    @property
    def size(self) -> int:
        """Bytes of the virtual disk."""
        return self.chain.virtual_disk_size

    @property
    def metadata(self) -> Metadata:
        """The metadata items of the child."""
        return self.chain.child.metadata

    @property
    def warnings(self) -> tuple[tuple[str, Finding], ...]:
        """What is odd about any file of the chain, though the bytes are right."""
        return self.chain.warnings

    def extents(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """Yield what a range of the disk is, and where its bytes come from."""
        self._check_open()
        return iter_extents(self.chain, virtual_offset, length)

    def pread(self, virtual_offset: int, length: int) -> bytes:
        """Read `length` bytes at an offset, fewer only at the end of the disk.

        Raises:
            ImageError: A file turned out to be truncated.
            OSError: The host could not read.
            ValueError: The disk is closed, or a number is negative.
        """
        if virtual_offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        buffer = bytearray(max(0, min(length, self.size - virtual_offset)))
        self.pread_into(virtual_offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, virtual_offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which must not reach beyond the end of the disk."""
        for extent in self.extents(virtual_offset, len(buffer)):
            start = extent.virtual_offset - virtual_offset
            part = buffer[start : start + extent.length]
            if extent.kind is ExtentKind.DATA and self.chain.salvaging:
                self.lost.read_into(extent, part)
            elif extent.kind is ExtentKind.DATA:
                extent.read_into(part)
            else:
                fill_zeros(part)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` from the current position on; return how many bytes there were."""
        view = memoryview(buffer).cast("B")
        with self._moving:
            count = max(0, min(len(view), self.size - self._position))
            self.pread_into(self._position, view[:count])
            self._position += count
        return count

    def write(self, _data: ReadableBuffer, /) -> NoReturn:
        """Refuse.

        Raises:
            UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation("a virtual disk is only read")

    def readable(self) -> bool:
        """Tell that the disk can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that the disk can be read in any order."""
        return True

    def tell(self) -> int:
        """Return the current position."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which may lie behind the end, and return it."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in base:
            raise ValueError(f"invalid whence ({whence})")
        if base[whence] + offset < 0:
            raise ValueError(f"negative seek position {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def close(self) -> None:
        """Close every file of the chain; a second call does nothing."""
        if not self.closed and self._owns_chain:
            self.chain.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the disk is closed")
