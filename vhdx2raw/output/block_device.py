"""A block device that is overwritten in place: a disk, a partition, a volume, a loop device.

A device cannot be made beside its name and moved there when it is complete, as a file can. So all
that can be refused is refused before its first byte is changed, and `left_incomplete` says
whether a failure came after that.
"""

from __future__ import annotations

import array
import errno
import os
import stat
import struct
from collections.abc import Collection

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import IS_INPUT, IS_INPUT_REMEDY, output_error
from vhdx2raw.output.inputs import folder_of, is_input, read_system
from vhdx2raw.output.open_file import OpenFileSink
from vhdx2raw.source.base import Identity
from vhdx2raw.units import KIB, ceil_div
from vhdx2raw.zeros import ZEROS

BLKSSZGET = 0x1268
BLKZEROOUT = 0x127F
ZERO_RANGE = struct.Struct("=QQ")
"""The request of BLKZEROOUT: offset and length in bytes."""
CANNOT_ZERO = frozenset((errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS))
MIN_ALIGNMENT = 4 * KIB
"""Bytes; a page, so that what is made zero shares no page of the cache with what is written."""

OVERWRITES = "is a block device, whose contents would be lost"
OVERWRITES_REMEDY = "use {force} to overwrite it"
NOT_HERE = "is a block device, which can be written to on Linux only"
NOT_HERE_REMEDY = "write to a file or to standard output"
IN_USE = "is in use: mounted, or held by another program"
IN_USE_REMEDY = "unmount it and every partition of it, or end what uses it; see lsblk"
READ_ONLY = "is read-only"
READ_ONLY_REMEDY = "if that is not a switch of the device itself, see blockdev(8)"
TOO_SMALL_REMEDY = "choose a device that is at least as long as the disk"


class BlockDeviceSink(OpenFileSink):
    """A block device whose first bytes become the disk; what lies after them is left alone.

    Attributes:
        left_incomplete: Whether the device was changed, and not to the end: it holds neither what
            it held before nor the disk. True from the first change until `commit`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        replace: bool = False,
        inputs: Collection[Identity] = (),
        target_is_zero: bool = False,
    ) -> None:
        """Claim the device; nothing is changed yet.

        Args:
            path: The device, or a link to it.
            size: Bytes of the virtual disk.
            replace: Whether the contents of the device may be lost. Without it, it is refused.
            inputs: The files that are read, none of which may lie on the device.
            target_is_zero: Whether all of the device reads as zeros already. Then zeros are left
                out; where that is not true, old bytes stay.

        Raises:
            OutputError: It is no block device, an input, in use, read-only, or too small.
            OSError: The host cannot write there.
        """
        super().__init__(os.fspath(path))
        self.readable_path = self.name
        self._target_is_zero = target_is_zero
        self._can_zero_out = True
        self.zeroing_is_work = not target_is_zero
        self.left_incomplete = False
        try:
            status = os.stat(path)  # noqa: PTH116 - also what is no Path
            self._check_target(status, inputs, replace=replace)
            self._descriptor = self._open(path)
            self._check_size(size)
            self._alignment = max(MIN_ALIGNMENT, _sector_size_of(self._descriptor))
        except BaseException as error:
            self.abort()
            raise output_error(error, self.name) from error

    def _check_target(
        self, status: os.stat_result, inputs: Collection[Identity], *, replace: bool
    ) -> None:
        if not stat.S_ISBLK(status.st_mode):
            raise OutputError("is not a block device", path=self.name)
        if not host.is_linux():  # nothing else would report its size and who uses it
            raise OutputError(NOT_HERE, path=self.name, remedy=NOT_HERE_REMEDY)
        if is_input(status, inputs, self.name):
            raise OutputError(IS_INPUT, path=self.name, remedy=IS_INPUT_REMEDY)
        if not replace:
            raise OutputError(OVERWRITES, path=self.name, remedy=OVERWRITES_REMEDY)
        # Not left to the host, which may let a device be opened and refuse every write.
        if read_system(folder_of(status.st_rdev) / "ro") == "1":
            raise OutputError(READ_ONLY, path=self.name, remedy=READ_ONLY_REMEDY)

    def _open(self, path: str | os.PathLike[str]) -> int:
        try:
            # Without O_CREAT, O_EXCL claims a device: no one else may have mounted or claimed it.
            return os.open(path, host.flags("O_WRONLY", "O_EXCL", "O_CLOEXEC"))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise OutputError(IN_USE, path=self.name, remedy=IN_USE_REMEDY) from error
            raise

    def _check_size(self, size: int) -> None:
        device_size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if device_size < size:
            problem = f"is too small: it has {device_size} bytes, the disk {size}"
            raise OutputError(problem, path=self.name, remedy=TOO_SMALL_REMEDY)

    def write(self, virtual_offset: int, data: memoryview) -> None:
        """Put all of `data` at its place, also where it fills no sector of the device."""
        self.left_incomplete = True
        super().write(virtual_offset, data)

    def zero(self, virtual_offset: int, length: int) -> None:
        """Make a range zero, whatever it held; nothing is done if the target is zero already."""
        if self._target_is_zero:
            return
        end = virtual_offset + length
        start = ceil_div(virtual_offset, self._alignment) * self._alignment
        stop = end // self._alignment * self._alignment
        if start < stop and self._zero_out(start, stop - start):
            self._write_zeros(virtual_offset, start)
            self._write_zeros(stop, end)
        else:
            self._write_zeros(virtual_offset, end)

    def _zero_out(self, start: int, length: int) -> bool:
        """Let the device make an aligned range zero; False if no range can be made so here."""
        if not self._can_zero_out:
            return False
        self.left_incomplete = True
        try:
            host.ioctl(self._descriptor, BLKZEROOUT, ZERO_RANGE.pack(start, length))
        except OSError as error:
            if error.errno not in CANNOT_ZERO:
                raise output_error(error, self.name) from error
            self._can_zero_out = False
        return self._can_zero_out

    def _write_zeros(self, start: int, end: int) -> None:
        for offset in range(start, end, len(ZEROS)):
            self.write(offset, ZEROS[: min(len(ZEROS), end - offset)])

    def commit(self) -> None:
        super().commit()
        self.left_incomplete = False


def _sector_size_of(descriptor: int) -> int:
    """Return the bytes of a logical sector, of which a device can only make whole ones zero."""
    size = array.array("i", [0])
    host.ioctl(descriptor, BLKSSZGET, size)
    return size[0]
