"""Writes that go past the page cache, for output that has to reach the disk anyway.

A caller who waits for stable storage gains nothing from a copy in memory: it has to be made, to be
written back by the kernel while more of it is made, and it pushes out what others had cached.
"""

from __future__ import annotations

import errno
import os

from vhdx2raw import host
from vhdx2raw.units import KIB, MIB

ALIGNMENT = 4 * KIB
"""Bytes; of offset, length and memory. More than any disk asks for."""
DIRECT_PIECE_SIZE = MIB
"""Bytes to write at once; each write is waited for."""
MIN_SIZE = 128 * KIB
"""Bytes; what is smaller waits too long for the disk, once for each piece."""


class DirectWriter:
    """Writes large, aligned ranges of an open file past the page cache, where the host can.

    Attributes:
        refused: Whether the host cannot, so that nothing is worth trying.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = host.open_direct(descriptor)
        self.refused = self._descriptor < 0

    def write(self, file_offset: int, data: memoryview) -> bool:
        """Write all of `data`; False if that has to be done in the usual way.

        Raises:
            OSError: The host could not write.
        """
        if self.refused or len(data) < MIN_SIZE:
            return False
        if file_offset % ALIGNMENT or len(data) % ALIGNMENT:
            return False
        try:
            return host.pwrite(self._descriptor, data, file_offset) == len(data)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a file system that only now says that it cannot
                raise
            self.refused = True  # not closed: other threads may be writing
            return False

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
