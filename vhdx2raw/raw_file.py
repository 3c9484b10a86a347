"""A raw disk in a file or a block device: its bytes, and which of them are stored."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from vhdx2raw import host
from vhdx2raw.source import FileSource
from vhdx2raw.structures import FILE_SIGNATURE

if TYPE_CHECKING:
    from typing_extensions import Self


class RawFile:
    """A raw disk that is only ever read. Close it, or use it as a context manager.

    `pread_into` may be called from any thread; the other methods share one position.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_device_size: int | None = None) -> None:
        """Open the regular file or block device at `path`.

        Args:
            path: The file or device.
            max_device_size: How much of a device to look at, in bytes, because a device is seldom
                as long as the disk on it; by default all of it.

        Raises:
            UnsupportedImageError: It cannot be read at any offset, such as a directory or a FIFO.
            OSError: The host cannot open it.
        """
        self._source = FileSource(path)
        self._size = self._source.size
        if max_device_size is not None and stat.S_ISBLK(os.fstat(self._source.descriptor).st_mode):
            self._size = min(self._size, max_device_size)

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which must not reach beyond the end of the disk.

        Raises:
            TruncatedImageError: The file has become shorter since it was opened.
            OSError: The host could not read.
        """
        self._source.pread_into(offset, buffer)

    def iter_data(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of all that is stored, in order; what lies between is zeros."""
        end = 0
        while end < self.size:
            try:
                data = host.find_data(self._source.descriptor, end, self.size)
            except OSError:
                # A device, or a file system that does not know its holes: all of it may be data.
                data = end, self.size
            if data is None:
                return
            start, stop = data
            if start < stop:
                yield start, stop
            end = max(start, stop)

    def begins_like_a_vhdx(self) -> bool:
        """Tell whether it has the signature of a VHDX, which the bytes of a disk may have too."""
        length = min(self.size, len(FILE_SIGNATURE))
        return self._source.pread(0, length) == FILE_SIGNATURE

    def forget_cached(self) -> None:
        """Have what is read from now on come from the storage itself, where the host can do that.

        Raises:
            OSError: What was written before could not be brought to the storage.
        """
        try:
            host.sync(self._source.descriptor)  # only what is stored can be forgotten
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._source.name) from error
        host.forget_cached(self._source.descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._source.close()

    def __enter__(self) -> Self:
        """Return the disk itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()
