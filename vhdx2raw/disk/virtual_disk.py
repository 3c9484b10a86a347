"""The virtual disk as a read-only, seekable file: for Python programs, and for reading it twice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, NoReturn

from vhdx2raw.disk.chain import DEFAULTS, Chain, NamedFinding, OpenOptions, open_chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.map import MapEntry, iter_map
from vhdx2raw.disk.reading import Stretch, iter_stretches
from vhdx2raw.disk.salvage import LostRanges
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.source.file_object import AnyFile
from vhdx2raw.vhdx.metadata import Metadata
from vhdx2raw.zeros import fill_zeros

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from vhdx2raw.disk.partition import PartitionFile


def open_disk(path: AnyFile, options: OpenOptions = DEFAULTS) -> VirtualDisk:
    """Open the virtual disk in a VHDX file, and every parent that it needs, as a file to read.

    Args:
        path: The VHDX file, which is only ever read: its path, or a binary file object that can
            seek. An object must not be used for anything else meanwhile, and stays open. Beside a
            file object without the name of a file no parent is looked for.
        options: How to open it.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: A file breaks the specification or is truncated.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        OSError: The host cannot open or read a file.
        TypeError: Something is neither a path nor a binary file object.
    """
    return VirtualDisk(open_chain(path, options))


class VirtualDisk(io.RawIOBase):
    """The bytes that a guest sees, from the first to the last.

    `pread` may be called from any thread; `read` and `seek` share one position. Closing the disk
    closes every file of the chain.

    Attributes:
        chain: The files that the disk is made of; internal.
        lost: Of a disk that was opened to be salvaged, what could not be read so far and reads as
            zeros; the ranges that no table covers are not in it, but in `extents`.
    """

    def __init__(self, chain: Chain) -> None:
        """Show the disk of an open chain, which from now on belongs to this object.

        It is closed with this object, at the latest when that is no longer referenced.
        """
        super().__init__()
        self.chain = chain
        self.lost = LostRanges()
        self._position = 0
        self._moving = Lock()

    def __repr__(self) -> str:
        return f"<VirtualDisk {self.name!r}, {self.metadata.disk_type}, {self.size} bytes>"

    @property
    def name(self) -> str:
        """The child as the user named it."""
        return self.chain.child.source.name

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the disk is made of: the child, its parent, and so on."""
        return tuple(image.source.name for image in self.chain.images)

    @property
    def size(self) -> int:
        return self.chain.virtual_disk_size

    @property
    def metadata(self) -> Metadata:
        return self.chain.child.metadata

    @property
    def warnings(self) -> tuple[NamedFinding, ...]:
        """What is unusual about any file of the chain, though the bytes are right."""
        return self.chain.warnings

    @property
    def damage(self) -> tuple[NamedFinding, ...]:
        """What makes the bytes uncertain or lost; only if the disk was opened to be salvaged."""
        return self.chain.damage

    @property
    def is_certain(self) -> bool:
        """Whether no byte that was read so far is uncertain or lost."""
        return not (self.damage or self.lost.merged())

    def extents(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """Yield what a range of the disk is, and where its bytes come from."""
        self._check_open()
        return iter_extents(self.chain, virtual_offset, length)

    def stretches(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[Stretch]:
        """Yield what of a range is read in one go each; internal."""
        self._check_open()
        return iter_stretches(self.chain, virtual_offset, length)

    def map_entries(self, virtual_offset: int = 0, length: int | None = None) -> Iterator[MapEntry]:
        """Yield what a range of the disk is, and which file says so; internal."""
        self._check_open()
        return iter_map(self.chain, virtual_offset, length)

    def partitions(self) -> tuple[PartitionFile, ...]:
        """Return the partitions of the disk that hold something to read, in the order of the table.

        Each is a read-only file, as the disk is. What reaches past the end of the disk is left out,
        and so is what only holds other partitions. Partitions may overlap. The table is read anew
        each time.

        Raises:
            ImageError: A file turned out to be truncated.
            OSError: The host could not read.
        """
        from vhdx2raw.disk.partition import find_partitions  # noqa: PLC0415 - few need tables

        return find_partitions(self)

    def partition(self, number: int) -> PartitionFile:
        """Return one partition, by its number as operating systems count.

        Raises:
            PartitionError: There is none of this number, or it does not lie inside the disk.
            ImageError: A file turned out to be truncated.
            OSError: The host could not read.
        """
        from vhdx2raw.disk.partition import find_partition  # noqa: PLC0415

        return find_partition(self, number)

    def pread(self, size: int, offset: int) -> bytes:
        """Read `size` bytes at an offset, fewer only at the end of the disk, as `os.pread` does.

        Raises:
            ImageError: A file turned out to be truncated.
            OSError: The host could not read.
            ValueError: The disk is closed, or a number is negative.
        """
        if offset < 0 or size < 0:
            raise ValueError("size and offset must not be negative")
        buffer = bytearray(max(0, min(size, self.size - offset)))
        self.pread_into(offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, virtual_offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which must not reach beyond the end of the disk."""
        for stretch in self.stretches(virtual_offset, len(buffer)):
            start = stretch.virtual_offset - virtual_offset
            part = buffer[start : start + stretch.length]
            if stretch.kind is ExtentKind.DATA and self.chain.salvaging:
                self.lost.read_into(stretch, part)
            elif stretch.kind is ExtentKind.DATA:
                stretch.read_into(part)
            else:
                fill_zeros(part)

    def watch(self) -> None:
        """Have the host note every write to any file from now on, for `require_unchanged`."""
        self._check_open()
        self.chain.watch()

    def require_unchanged(self) -> None:
        """Make sure that no file has changed since the disk was opened.

        This takes so little time that it can be asked after every read.

        Raises:
            SourceChangedError: One has, so that what was read may be of two states.
            OSError: The host does not know.
            ValueError: The disk is closed.
        """
        self._check_open()
        if not all(image.has_same_times() for image in self.chain.images):
            self.chain.require_unchanged()

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
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which may lie past the end, and return it."""
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
        if not self.closed:
            self.chain.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the disk is closed")
