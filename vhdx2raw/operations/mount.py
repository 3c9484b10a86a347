"""A disk and its partitions as read-only files of a folder, by FUSE.

The kernel asks, and the disk answers: sizes, bytes, and where they are zeros. What serves a folder
ends when that is unmounted, or by a signal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes.util import find_library
from functools import cached_property
from threading import Lock
from typing import Any

from vhdx2raw.disk.chain import AnyPath
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import MountError, OutputError, SourceChangedError, Vhdx2rawError
from vhdx2raw.units import ceil_div

DISK_NAME = "disk.img"
DEVICE = "/dev/fuse"
KIND = "vhdx2raw"
"""What follows ``fuse.`` in the table of mounts."""
ATTRIBUTE_SECONDS = 3600
"""How long the kernel need not ask again what does not change."""
COUNT_SECONDS = 0.5
"""How long is counted what is stored; after that all of the rest counts as stored."""
STAT_BLOCK = 512
STDERR = 2
PACKAGE_REMEDY = "install it: pip install 'vhdx2raw[mount]'"
LIBRARY_REMEDY = "install FUSE, such as with: apt install fuse3"
DEVICE_REMEDY = (
    "load it with `modprobe fuse`; a container needs that device and the capability SYS_ADMIN"
)
STALE_REMEDY = "unmount it first: fusermount3 -u, or umount"

Report = Callable[[str, Exception | None], None]
"""Takes what cannot be done, and why."""


def mount_disk(
    disk: VirtualDisk,
    folder: AnyPath,
    *,
    allow_other: bool = False,
    mounted: Callable[[], None],
    report: Report,
) -> None:
    """Show a disk and its partitions in a folder until that is unmounted.

    SIGTERM, SIGINT and SIGHUP unmount it too, where their handler is the default one. What cannot
    be read is an input/output error to whoever reads, and once a file of the disk has changed, so
    is everything. Several threads read.

    Args:
        disk: What to show.
        folder: An empty folder.
        allow_other: Whether others than the user who mounts it may look into it.
        mounted: Called once, from another thread, when the files are there.
        report: Called for each read that fails, from any thread, and for a change once.

    Raises:
        MountError: FUSE is not here, or refuses.
        OutputError: There is no such folder, or there is something in it.
        OSError: The host could not read a file of the disk.
    """
    _require_device()
    fuse = _load_fuse()
    path = _require_empty_folder(os.fspath(folder))
    disk.watch()
    is_mounted = False

    def begin() -> None:
        nonlocal is_mounted
        caught.end()
        is_mounted = True
        mounted()

    files = _Files(_files_of(disk), begin, report)
    caught = _CaughtStderr()
    try:
        _server_class(fuse)(files, path, foreground=True, **_options_for(disk, allow_other))
    except RuntimeError as error:  # also after a signal
        if not is_mounted:
            problem = f"cannot be mounted: {caught.end() or f'FUSE fails with {error}'}"
            raise MountError(problem, path=os.fspath(folder)) from error
    finally:
        caught.end()


def _options_for(disk: VirtualDisk, allow_other: bool) -> dict[str, object]:  # noqa: FBT001
    """Return what FUSE is told."""
    return {
        "fsname": _full_name(disk.name).replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": KIND,
        "ro": True,
        "nosuid": True,
        "nodev": True,
        "default_permissions": True,
        "allow_other": allow_other,
        # Nothing of what is shown can change.
        "kernel_cache": True,
        "attr_timeout": ATTRIBUTE_SECONDS,
        "entry_timeout": ATTRIBUTE_SECONDS,
    }


class _CaughtStderr:
    """What the library of FUSE, and the program that it starts, say to standard error."""

    def __init__(self) -> None:
        """Catch it from now on."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - until the end
        self._real = -1
        with suppress(OSError):  # it is closed
            self._real = os.dup(STDERR)
            os.dup2(self._said.fileno(), STDERR)

    def end(self) -> str:
        """Give standard error back; return the last line that was caught meanwhile."""
        if self._said.closed:
            return ""
        if self._real >= 0:
            os.dup2(self._real, STDERR)
            os.close(self._real)
        with self._said as said:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _full_name(name: str) -> str:
    """Return a name for the table of mounts, which is good from anywhere."""
    return name if "://" in name else os.path.abspath(name)  # noqa: PTH100


def _require_device() -> None:
    if sys.platform == "linux" and not os.path.exists(DEVICE):  # noqa: PTH110
        raise MountError(f"FUSE is not in the kernel: there is no {DEVICE}", remedy=DEVICE_REMEDY)


def _load_fuse() -> Any:  # noqa: ANN401 - it has no types
    """Return mfusepy, with FUSE 3 if it is here: FUSE 2 asks for no holes."""
    chosen = {"FUSE_LIBRARY_NAME", "FUSE_LIBRARY_PATH"} & os.environ.keys()
    if not chosen and find_library("fuse3"):
        os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
    try:
        import mfusepy  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MountError("mounting takes the package mfusepy", remedy=PACKAGE_REMEDY) from error
    except (OSError, AttributeError) as error:
        problem = f"the library of FUSE cannot be used: {error}"
        raise MountError(problem, remedy=LIBRARY_REMEDY) from error
    return mfusepy


def _require_empty_folder(folder: str) -> str:
    """Return the full path of a folder, in which there is nothing that would be hidden."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are enough
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OutputError("is not a folder that is there", path=folder) from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        problem = "was mounted by a program that has ended"
        raise MountError(problem, path=folder, remedy=STALE_REMEDY) from error
    if names:
        raise OutputError("is not empty", path=folder, remedy="name an empty folder")
    return os.path.abspath(folder)  # noqa: PTH100 - a link is followed by whoever mounts


class _File:
    """One file of the folder."""

    def __init__(self, name: str, disk: VirtualDisk) -> None:
        self.name = name
        self.disk = disk

    @cached_property
    def stored_bytes(self) -> int:
        """How much is stored, or could be: to find that out exactly can take too long."""
        stored, end, deadline = 0, 0, time.monotonic() + COUNT_SECONDS
        with suppress(OSError, Vhdx2rawError):  # whoever reads is told
            for stretch in self.disk.stretches():
                stored, end = stored + stretch.data_length, stretch.virtual_end
                if time.monotonic() > deadline:
                    break
        return stored + self.disk.size - end

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer`; return how many bytes there were, fewer only at the end."""
        count = max(0, min(len(buffer), self.disk.size - offset))
        self.disk.pread_into(offset, buffer[:count])
        return count

    def find(self, offset: int, *, hole: bool) -> int | None:
        """Return where a hole or something else begins, at an offset or after it, if it does."""
        if not 0 <= offset < self.disk.size:
            return None
        for stretch in self.disk.stretches(offset):
            if (stretch.kind is ExtentKind.ZERO) == hole:
                return stretch.virtual_offset
        return self.disk.size if hole else None


def _files_of(disk: VirtualDisk) -> list[_File]:
    return [
        _File(DISK_NAME, disk),
        *(_File(f"disk.p{part.number}.img", part) for part in disk.partitions()),
    ]


class _Files:
    """The folder, as mfusepy asks about it: paths begin with a slash, times are in nanoseconds."""

    use_ns = True

    def __init__(self, files: Sequence[_File], begin: Callable[[], None], report: Report) -> None:
        self._files = list(files)
        self._indexes = {f"/{file.name}": index for index, file in enumerate(files)}
        self._begin = begin
        self._report = report
        self._has_changed = False
        self._changing = Lock()
        self._disk = files[0].disk
        self._time_ns = self._disk.chain.child.state.status.modified_ns or time.time_ns()

    def init(self, _path: str) -> None:
        self._begin()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        shared = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), self._time_ns)
        shared |= {"st_uid": os.getuid(), "st_gid": os.getgid()}
        if path == "/":
            return shared | {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2}
        file = self._files[self._index_of(path)]
        return shared | {
            "st_mode": stat.S_IFREG | 0o444,
            "st_nlink": 1,
            "st_size": file.disk.size,
            "st_blocks": ceil_div(file.stored_bytes, STAT_BLOCK),
        }

    def readdir(self, _path: str, _handle: int) -> list[str]:
        return [".", "..", *(file.name for file in self._files)]

    def open(self, path: str, _flags: int) -> int:
        index = self._index_of(path)
        with self._failing(f"{self._files[index].name}: cannot be opened"):
            self._disk.require_unchanged()
        return index

    def read(self, index: int, offset: int, buffer: memoryview) -> int:
        file = self._files[index]
        place = f"{len(buffer)} bytes at {offset:#x}"
        with self._failing(f"{file.name}: {place} cannot be read"):
            lost = file.disk.lost.total_bytes
            count = file.read_into(offset, buffer)
            self._disk.require_unchanged()
        if file.disk.lost.total_bytes != lost:
            self._report(
                f"{file.name}: not all of {place} can be read; what is lost is zeros", None
            )
        return count

    def lseek(self, index: int, offset: int, whence: int) -> int:
        file = self._files[index]
        with self._failing(f"{file.name}: its holes cannot be found"):
            found = file.find(offset, hole=whence == os.SEEK_HOLE)
        if found is None:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return found

    def _index_of(self, path: str) -> int:
        if path not in self._indexes:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._indexes[path]

    @contextmanager
    def _failing(self, problem: str) -> Iterator[None]:
        """Make of every failure an input/output error, and a line; of a change just one line."""
        failure = OSError(errno.EIO, os.strerror(errno.EIO))
        if self._has_changed:
            raise failure
        try:
            yield
        except SourceChangedError as error:
            with self._changing:
                is_news, self._has_changed = not self._has_changed, True
            if is_news:
                self._report("nothing more can be read", error)
            raise failure from error
        except Exception as error:  # what calls is not Python, and has no use for it
            self._report(problem, error)
            raise failure from error


def _server_class(fuse: Any) -> Any:  # noqa: ANN401
    """Return the class of mfusepy that serves a folder, with what it lacks."""

    class Server(fuse.FUSE):  # type: ignore[misc, unused-ignore]
        """Fills the buffers of the kernel without a copy, and tells of holes."""

        def read(self, _path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:  # noqa: ANN401
            address = ctypes.addressof(buffer.contents)
            view = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
            count: int = self.operations.read(info.contents.fh, offset, view)
            return count

        def lseek(self, _path: bytes, offset: int, whence: int, info: Any) -> int:  # noqa: ANN401
            found: int = self.operations.lseek(info.contents.fh, offset, whence)
            return found

    return Server
