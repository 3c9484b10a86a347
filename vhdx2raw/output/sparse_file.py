"""A sparse regular file that appears under its name complete, or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from vhdx2raw import host
from vhdx2raw.errors import OutputError
from vhdx2raw.output.base import (
    EXISTS,
    EXISTS_REMEDY,
    IS_INPUT,
    IS_INPUT_REMEDY,
    output_error,
)
from vhdx2raw.output.inputs import is_input
from vhdx2raw.output.open_file import OpenFileSink
from vhdx2raw.output.permissions import PRIVATE_MODE, take_over
from vhdx2raw.source.base import Identity

FICLONERANGE = 0x4020940D
IS_FOLDER = "is a directory, not a file to write"
IS_FOLDER_REMEDY = "name a file in it"
MAX_STEM_SIZE = 200
"""Bytes of the final name that the temporary name repeats; file systems allow 255 in all."""
TEMPORARY_NAME = re.compile(r"\.(.*)\.[0-9a-f]{16}\.part", re.DOTALL)
CLONE_RANGE = struct.Struct("=qQQQ")
"""The request of ioctl_ficlonerange(2): source, its offset, length, offset in the destination."""


class SparseFileSink(OpenFileSink):
    """A regular file that appears under its name when it is complete, or not at all."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        replace: bool = False,
        inputs: Collection[Identity] = (),
    ) -> None:
        """Make a temporary file of its final length, all of it a hole, beside `path`.

        Args:
            path: The final name.
            size: Bytes of the virtual disk.
            replace: Whether a file that has this name already may be replaced.
            inputs: The files that are read, none of which may be the output.

        Raises:
            OutputError: The output exists, is an input, or there is no room for it.
            OSError: The host cannot write there.
        """
        super().__init__(os.fspath(path))
        self._replace = replace
        # A link is followed, so that the file it names is replaced and not the link itself.
        self._path = Path(os.path.realpath(path)) if replace else Path(path)
        replaced = self._check_target(inputs)
        stem = _stem_of(self._path.name)
        self._temporary = self._path.with_name(f".{stem}.{self._token()}.part")
        self.readable_path = str(self._temporary)
        self._exists = False
        try:
            # What replaces a file is never open to more people than that is, not for a moment.
            mode = PRIVATE_MODE if replaced else 0o666
            self._descriptor = self._open_temporary(mode)
            self._exists = True
            if replaced:
                take_over(self._descriptor, replaced, self._path)
            host.set_length(self._descriptor, size)
        except BaseException as error:
            self.abort()
            raise output_error(error, self.name) from error

    def _token(self) -> str:
        """Return what distinguishes the temporary name from every other."""
        return os.urandom(8).hex()

    def _open_temporary(self, mode: int) -> int:
        flags = host.flags("O_RDWR", "O_CREAT", "O_EXCL", "O_CLOEXEC", "O_NOFOLLOW")
        descriptor = os.open(self._temporary, flags, mode)
        host.lock(descriptor)  # shows `remove_abandoned` that it is in use
        return descriptor

    def _check_target(self, inputs: Collection[Identity]) -> os.stat_result | None:
        """Refuse early what `commit` would refuse; return what will be replaced, if anything."""
        # A path forgets the dot of `name/.`, which no file can be called by.
        if os.path.basename(self.name) in ("", os.curdir, os.pardir):  # noqa: PTH119
            raise OutputError(IS_FOLDER, path=self.name, remedy=IS_FOLDER_REMEDY)
        try:
            exists = os.path.lexists(self._path)
            status = self._path.stat() if self._path.exists() else None
        except OSError as error:
            raise output_error(error, self.name) from error
        if status and is_input(status, inputs, self._path):
            raise OutputError(IS_INPUT, path=self.name, remedy=IS_INPUT_REMEDY)
        if status and stat.S_ISDIR(status.st_mode):
            raise OutputError(IS_FOLDER, path=self.name, remedy=IS_FOLDER_REMEDY)
        if status and not stat.S_ISREG(status.st_mode):
            remedy = "name a new file, or write to standard output and redirect that"
            raise OutputError("exists and is not a regular file", path=self.name, remedy=remedy)
        if exists and not self._replace:
            raise OutputError(EXISTS, path=self.name, remedy=EXISTS_REMEDY)
        return status

    def zero(self, virtual_offset: int, length: int) -> None:
        """Do nothing: what is not written is a hole."""

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        request = CLONE_RANGE.pack(descriptor, file_offset, length, virtual_offset)
        try:
            host.ioctl(self._descriptor, FICLONERANGE, request)
        except OSError:
            # Another host or file system, or one that cannot share. Whatever else it may be, a real
            # failure of the host will be met again by the copy.
            return False
        return True

    def commit(self) -> None:
        # First, because some file systems report only here that they could not write.
        super().commit()
        try:
            if self._replace:
                self._temporary.replace(self._path)
            else:
                self._move_without_replacing()
        except OSError as error:
            raise output_error(error, self.name) from error
        self._exists = False
        self._sync_folder()

    def _move_without_replacing(self) -> None:
        try:
            host.link(self._temporary, self._path)
        except FileExistsError:
            raise
        except OSError:
            # There are no hard links here, and without them no move can refuse to replace:
            # look once more and take the narrow risk.
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self._temporary.rename(self._path)
        else:
            with suppress(OSError):  # the output is there, whatever becomes of its other name
                self._temporary.unlink()

    def _sync_folder(self) -> None:
        # Not every file system can do this, and the contents of the file are safe already.
        with suppress(OSError):
            folder = os.open(self._path.parent, host.flags("O_RDONLY", "O_CLOEXEC"))
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abort(self) -> None:
        """Remove what was written, unless it has its name."""
        super().abort()
        if self._exists:
            self._exists = False
            with suppress(OSError):  # which would hide why it has to go
                self._temporary.unlink(missing_ok=True)


def remove_abandoned(paths: Iterable[str]) -> None:
    """Remove the temporary files of outputs that a crash or a SIGKILL has left.

    Those that a running program has open stay, and those that `ResumableFileSink` goes on with.
    """
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        stems[folder].add(_stem_of(name))
    for folder, names in stems.items():
        with suppress(OSError):  # no such folder yet, or one that cannot be listed
            for name in os.listdir(folder or os.curdir):  # noqa: PTH208 - names are enough
                match = TEMPORARY_NAME.fullmatch(name)
                if match and match[1] in names:
                    _remove_unless_open(Path(folder, name))


def _remove_unless_open(path: Path) -> None:
    with suppress(OSError):  # gone, or not ours
        flags = host.flags("O_RDWR", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
        descriptor = os.open(path, flags)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and host.lock(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _stem_of(name: str) -> str:
    """Return what of a name its temporary name repeats."""
    while len(os.fsencode(name)) > MAX_STEM_SIZE:
        name = name[:-1]  # not by bytes: some hosts want names of whole characters
    return name
