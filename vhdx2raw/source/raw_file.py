"""A raw disk in a file or a block device: its bytes, and which of them are stored."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from vhdx2raw import host
from vhdx2raw.source.file import FileSource
from vhdx2raw.source.formats import FILE_SIGNATURE


class RawFile(FileSource):
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
        super().__init__(path)
        if max_device_size is not None and stat.S_ISBLK(os.fstat(self.descriptor).st_mode):
            self.size = min(self.size, max_device_size)

    def __repr__(self) -> str:
        return f"<RawFile {self.name!r}, {self.size} bytes>"

    def iter_data(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what is stored in a range, in order; what lies between is zeros."""
        limit = self.size if stop is None else min(stop, self.size)
        return host.iter_data(self.descriptor, start, limit)

    def begins_like_a_vhdx(self) -> bool:
        """Return whether it has the signature of a VHDX, which a disk may begin with too."""
        length = min(self.size, len(FILE_SIGNATURE))
        return self.pread(0, length) == FILE_SIGNATURE

    def drop_cached(self) -> None:
        """Have what is read from now on come from the storage itself, where the host can do that.

        Raises:
            OSError: What was written before could not be brought to the storage.
        """
        try:
            host.sync(self.descriptor)  # only what is stored can be forgotten
        except OSError as error:
            raise self._named(error) from error
        host.drop_cached(self.descriptor)
