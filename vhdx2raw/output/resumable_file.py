"""A sparse file whose temporary file is kept after a failure, and gone on with by the next run."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import output_error
from vhdx2raw.output.in_place import IN_USE, IN_USE_REMEDY
from vhdx2raw.output.sparse_file import SparseFileSink


class ResumableFileSink(SparseFileSink):
    """A file that appears when it is complete; until then, `abort` keeps what was written.

    Attributes:
        was_there: Whether an earlier run has left its temporary file.
        can_flush: Whether it is open, and has not lost anything. After one failure the kernel
            may call what it has lost clean, and a second attempt would succeed.
    """

    was_there = False
    can_flush = True
    _claim = -1

    def _token(self) -> str:
        return "resume"

    def _open_temporary(self, mode: int) -> int:
        descriptor = self._open_existing()
        self.was_there = descriptor >= 0
        if not self.was_there:
            descriptor = super()._open_temporary(mode)
        # Held until the file has its name: closing it, which comes before, would give it away.
        self._claim = os.dup(descriptor)
        if not host.lock(self._claim):
            os.close(descriptor)
            raise OutputError(IN_USE, path=self.name, remedy=IN_USE_REMEDY)
        return descriptor

    def _open_existing(self) -> int:
        """Open what an earlier run has left; what is not its own, or finished, is removed."""
        descriptor = -1
        try:
            flags = host.flags("O_RDWR", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
            descriptor = os.open(self._temporary, flags)
            status = os.fstat(descriptor)
            is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
            # A second name means that the run before was ended in the middle of its last step.
            if stat.S_ISREG(status.st_mode) and is_own and status.st_nlink == 1:
                return descriptor
        except FileNotFoundError:
            return -1
        except OSError:  # a link, a directory
            pass
        if descriptor >= 0:
            os.close(descriptor)
        self._temporary.unlink()
        return -1

    def forget_after(self, virtual_offset: int, size: int) -> None:
        """Make all from an offset on a hole again, whatever an earlier run has left there."""
        try:
            os.ftruncate(self._descriptor, virtual_offset)
            host.set_length(self._descriptor, size)
        except OSError as error:
            raise output_error(error, self.name) from error

    def flush(self) -> None:
        can_flush, self.can_flush = self.can_flush, False
        super().flush()
        self.can_flush = can_flush

    def commit(self) -> None:
        self.can_flush = False
        super().commit()
        self._release()

    def abort(self) -> None:
        """Close the temporary file, and keep it."""
        self.can_flush = False
        self._exists = False
        super().abort()
        self._release()

    def discard(self) -> None:
        """Remove the temporary file; nothing is left."""
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        self.abort()

    def _release(self) -> None:
        claim, self._claim = self._claim, -1
        if claim >= 0:
            with suppress(OSError):
                os.close(claim)
