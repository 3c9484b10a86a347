"""A regular file that is changed where it stands."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import IS_INPUT, IS_INPUT_REMEDY, output_error
from vhdx2raw.output.inputs import is_input
from vhdx2raw.output.open_file import OpenFileSink
from vhdx2raw.source.base import Identity
from vhdx2raw.zeros import ZEROS

IN_USE = "is being changed by another run of this program"
IN_USE_REMEDY = "wait for its end"


class InPlaceSink(OpenFileSink):
    """A regular file whose ranges are overwritten; what is not written stays as it is."""

    zeroing_is_work = True

    def __init__(
        self, path: str | os.PathLike[str], size: int, *, inputs: Collection[Identity] = ()
    ) -> None:
        """Open the file; nothing is changed yet.

        Args:
            path: The file.
            size: Bytes that it is to have; a longer file is refused.
            inputs: The files that are read, none of which may be changed.

        Raises:
            OutputError: It does not exist, is no regular file, is an input, is longer, or another
                run of this program is changing it.
            OSError: The host cannot write to it.
        """
        super().__init__(os.fspath(path))
        self.readable_path = self.name
        self._size = size
        self._can_punch = True
        try:
            self._descriptor = self._open(path)
            self._check_target(os.fstat(self._descriptor), inputs)
        except BaseException as error:
            self.abort()
            raise output_error(error, self.name) from error

    def _open(self, path: str | os.PathLike[str]) -> int:
        try:
            return os.open(path, host.flags("O_RDWR", "O_CLOEXEC", "O_NONBLOCK"))
        except FileNotFoundError:
            remedy = "make it first, by a conversion"
            raise OutputError("does not exist", path=self.name, remedy=remedy) from None

    def _check_target(self, status: os.stat_result, inputs: Collection[Identity]) -> None:
        if is_input(status, inputs, self.name):
            raise OutputError(IS_INPUT, path=self.name, remedy=IS_INPUT_REMEDY)
        if not stat.S_ISREG(status.st_mode):
            raise OutputError("is not a regular file", path=self.name)
        if status.st_size > self._size:
            problem = (
                f"is longer than the disk: it has {status.st_size} bytes, the disk {self._size}"
            )
            raise OutputError(problem, path=self.name)
        if not host.lock(self._descriptor):
            raise OutputError(IN_USE, path=self.name, remedy=IN_USE_REMEDY)

    def lengthen(self) -> None:
        """Give the file its full length; what is new reads as zeros."""
        try:
            if os.fstat(self._descriptor).st_size < self._size:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            raise output_error(error, self.name) from error

    def zero(self, virtual_offset: int, length: int) -> None:
        """Make a range read as zeros, as a hole where the file system can do that."""
        if self._can_punch:
            try:
                host.punch_hole(self._descriptor, virtual_offset, length)
            except OSError:
                self._can_punch = False
            else:
                return
        for start in range(0, length, len(ZEROS)):
            self.write(virtual_offset + start, ZEROS[: min(len(ZEROS), length - start)])
