"""What operating systems do differently: the one place that knows that not all of them are Linux.

Every function looks for what it needs when it is called and does without where that is missing:
Windows reads and writes only at the one position of an open file, and knows no ioctl; only Linux
shares storage between files by the request that is used here.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock

FSCTL_SET_SPARSE = 0x000900C4
FILE_END_OF_FILE_INFO = 6
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

RETRY_SECONDS = 0.01

_moving: dict[int, Lock] = {}
"""By descriptor, a lock on its position. One for each number that a file had, however often."""


def is_linux() -> bool:
    """Return whether this is Linux."""
    return sys.platform == "linux"


def file_name(text: str) -> str:
    """Return the name of a file that a text stands for.

    They differ only if the locale has no such letters (``LC_ALL=C``): names are then taken for
    UTF-8, as nearly all of them are.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogatepass"))
    return text


def flags(*names: str) -> int:
    """Return those flags of `os.open` that exist here; a file is never opened as text."""
    value = getattr(os, "O_BINARY", 0)
    for name in names:
        value |= getattr(os, name, 0)
    return value


def pread(descriptor: int, length: int, file_offset: int) -> bytes:
    """Read up to `length` bytes at an offset, from any thread."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, file_offset)
    with _position(descriptor, file_offset):
        return os.read(descriptor, length)


def pread_into(descriptor: int, buffer: memoryview, file_offset: int) -> int:
    """Read into the beginning of `buffer`, from any thread; return how many bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], file_offset)
    data = pread(descriptor, len(buffer), file_offset)
    buffer[: len(data)] = data
    return len(data)


def pread_scattered(descriptor: int, buffers: Sequence[memoryview], file_offset: int) -> int:
    """Read into several buffers, one after the other; return how many bytes, perhaps too few."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, buffers, file_offset)
    return 0


def pwrite(descriptor: int, data: memoryview, file_offset: int) -> int:
    """Write from the beginning of `data` at an offset, from any thread; return how many bytes."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, file_offset)
    with _position(descriptor, file_offset):
        return os.write(descriptor, data)


def wait_writable(descriptor: int) -> None:
    """Wait until a pipe or the like that does not block may have room, or has no reader left."""
    import select  # noqa: PLC0415 - seldom needed

    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.poll()
    else:
        time.sleep(RETRY_SECONDS)


def page_aligned(size: int) -> memoryview:
    """Return a buffer of zeros that begins with a page: copies to and from it take less time."""
    return memoryview(mmap.mmap(-1, size))


def length_of(descriptor: int) -> int:
    """Return the bytes of an open file, or of a block device, whose status has no size."""
    with _position(descriptor, 0, os.SEEK_END) as end:
        return end


def find_data(descriptor: int, start: int, size: int) -> tuple[int, int] | None:
    """Return (start, end) of what is stored next, at most up to `size`; None if nothing is.

    Where the host does not know its holes, all of the rest may be data.

    Raises:
        OSError: The host does not know the holes of this file.
    """
    if not hasattr(os, "SEEK_DATA"):
        return start, size
    with _moving.setdefault(descriptor, Lock()):
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
            # Where the file has become longer meanwhile, that is not looked at.
            return start, min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return None
            raise


def iter_data(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is stored in a range, in order; what lies between is zeros.

    Where the host does not know the holes of the file, all of it may be data.
    """
    while start < end:
        try:
            data = find_data(descriptor, start, end)
        except OSError:
            data = start, end
        if data is None:
            return
        begin, stop = data
        if begin < stop:
            yield begin, stop
        start = max(begin, stop)


def prefetch(descriptor: int, file_offset: int, length: int) -> None:
    """Let the host begin to read a range, where it can do that."""
    if hasattr(os, "posix_fadvise") and hasattr(os, "POSIX_FADV_WILLNEED"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, file_offset, length, os.POSIX_FADV_WILLNEED)


def punch_hole(descriptor: int, file_offset: int, length: int) -> None:
    """Make a range of a file read as zeros and take no storage.

    Raises:
        OSError: The host or the file system cannot do that.
    """
    if not is_linux():
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    import ctypes  # noqa: PLC0415 - takes a while, and few runs have a need

    library = ctypes.CDLL(None, use_errno=True)
    offset, size = ctypes.c_int64(file_offset), ctypes.c_int64(length)
    call = getattr(library, "fallocate64", library.fallocate)  # 64 bits on every processor
    if call(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def drop_cached(descriptor: int, file_offset: int = 0, length: int = 0) -> None:
    """Let a range, or with 0 bytes all that follows, leave the page cache, where the host can.

    What is not on storage yet stays, and is begun to be brought there.
    """
    if hasattr(os, "posix_fadvise") and hasattr(os, "POSIX_FADV_DONTNEED"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, file_offset, length, os.POSIX_FADV_DONTNEED)


def allocated_size(status: os.stat_result) -> int:
    """Return the bytes that a file takes up; its length where the host knows no more."""
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


@contextmanager
def _position(descriptor: int, offset: int, whence: int = os.SEEK_SET) -> Iterator[int]:
    """Move the position of a file, and let no other thread move it meanwhile."""
    with _moving.setdefault(descriptor, Lock()):
        yield os.lseek(descriptor, offset, whence)


def set_length(descriptor: int, size: int) -> None:
    """Give a new, empty file its length in bytes, none of them stored if that can be."""
    if sys.platform == "win32":
        _set_length_on_windows(descriptor, size)
    else:
        os.ftruncate(descriptor, size)


def _set_length_on_windows(descriptor: int, size: int) -> None:
    """Do by the kernel what `os.ftruncate` does by writing zeros."""
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415
        import msvcrt  # noqa: PLC0415

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        returned, end = ctypes.c_ulong(), ctypes.c_longlong(size)
        # A file system that refuses has no holes; then the file is allocated as a whole.
        kernel.DeviceIoControl(
            handle, FSCTL_SET_SPARSE, None, 0, None, 0, ctypes.byref(returned), None
        )
        if not kernel.SetFileInformationByHandle(
            handle, FILE_END_OF_FILE_INFO, ctypes.byref(end), ctypes.sizeof(end)
        ):
            raise ctypes.WinError(ctypes.get_last_error())


def sync(descriptor: int) -> None:
    """Bring a file to stable storage; on macOS, fsync leaves it in the cache of the drive."""
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - not on Windows

        full_sync = getattr(fcntl, "F_FULLFSYNC", None)
        if full_sync is not None:
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def link(path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
    """Give a file a second name, which must be free.

    Raises:
        OSError: The name is not free, or the host or the file system has no hard links.
    """
    if not hasattr(os, "link"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    os.link(path, new_path, follow_symlinks=os.link not in os.supports_follow_symlinks)


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Claim a file until it is closed; False if another program of this kind has claimed it.

    With `wait` that one is waited for. Where the host or the file system has no such locks, nobody
    is kept out.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def ioctl(descriptor: int, request: int, argument: bytes | array[int]) -> None:
    """Make a request of Linux; an array takes the result.

    Raises:
        OSError: It was refused, as every request is by other hosts (ENOTTY).
    """
    if not is_linux():  # elsewhere the same number may mean something else
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.ioctl(descriptor, request, argument)


def processor_count() -> int:
    """Return how many processors this process may use; all of them where that is unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
