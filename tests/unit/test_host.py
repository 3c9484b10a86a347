"""Hosts that lack what Linux has: the same bytes come out, by other ways."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import vhdx2raw
from tests.support.cli import small_disk
from tests.support.files import has_expected_bytes, names_in, sha256_of
from tests.support.host import raiser
from tests.support.packages import SAMPLE_RAW_SHA256
from tests.support.paths import SAMPLE
from vhdx2raw import host
from vhdx2raw.errors import OutputError, UnsupportedImageError
from vhdx2raw.operations.writing import MAX_WORKERS, default_workers
from vhdx2raw.output.block_device import BlockDeviceSink
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.file import FileSource

POSITIONED = ("pread", "preadv", "pwrite")
FLAGS = ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_NOFOLLOW")
LACKING = {
    "nothing": (),
    "no map of holes": ("SEEK_DATA", "SEEK_HOLE", "posix_fadvise"),
    "old macOS": ("preadv", "sched_getaffinity"),
    "no positions": POSITIONED,
    "no flags": FLAGS,
    "no hard links": ("link",),
    "no processors": ("sched_getaffinity",),
    "all of it": (
        *(*POSITIONED, *FLAGS, "link", "sched_getaffinity"),
        *("SEEK_DATA", "SEEK_HOLE", "posix_fadvise"),
    ),
}
CONTENT = random.Random(1).randbytes(256 * 1024)


@contextmanager
def without(*names: str) -> Iterator[pytest.MonkeyPatch]:
    """Take functions and flags away from `os`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delattr(os, name)
        yield patch


# -- conversions -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("lacking", LACKING.values(), ids=LACKING)
def test_conversion_on_a_host_that_lacks_functions(
    tmp_path: Path, lacking: tuple[str, ...], workers: int
) -> None:
    spec = small_disk()
    spec.write(tmp_path / "disk.vhdx")
    with without(*lacking):
        vhdx2raw.convert(
            tmp_path / "disk.vhdx", tmp_path / "disk.img", workers=workers, verify=True
        )
    assert names_in(tmp_path) == ["disk.img", "disk.vhdx"]
    assert has_expected_bytes(tmp_path / "disk.img", spec)


@pytest.mark.slow
def test_program_works_without_fcntl_and_much_of_os(tmp_path: Path) -> None:
    """From the first import on: a module that needs any of them at its top would fail."""
    code = f"""
        import os, signal, sys
        for name in {LACKING["all of it"]!r}:
            delattr(os, name)
        del signal.SIGHUP
        sys.modules["fcntl"] = None
        sys.platform = "unknown"
        from vhdx2raw.cli import main
        sys.exit(main())
    """
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(code),
        "--verify",
        SAMPLE,
        tmp_path / "disk.img",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sha256_of(tmp_path / "disk.img") == SAMPLE_RAW_SHA256
    assert names_in(tmp_path) == ["disk.img"]


def test_existing_file_is_kept_without_hard_links(tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    sink = SparseFileSink(target, 512)
    target.write_bytes(b"precious")
    with without("link"), pytest.raises(OutputError, match="exists already"):
        sink.commit()
    sink.abort()
    assert target.read_bytes() == b"precious"
    assert names_in(tmp_path) == ["disk.img"]


# -- reading and writing at an offset --------------------------------------------------------


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("lacking", [(), ("preadv",), POSITIONED], ids=["none", "preadv", "all"])
def test_reads_and_writes_are_positioned(descriptor: int, lacking: tuple[str, ...]) -> None:
    buffer = memoryview(bytearray(b"\xee" * 100))
    with without(*lacking):
        assert host.pread(descriptor, 100, 777) == CONTENT[777:877]
        assert host.pread(descriptor, 100, len(CONTENT) - 10) == CONTENT[-10:]
        assert host.pread_into(descriptor, buffer, len(CONTENT) - 10) == 10
        assert host.pread_into(descriptor, buffer, len(CONTENT)) == 0
        assert host.pwrite(descriptor, memoryview(b"new"), 5) == 3
        assert host.length_of(descriptor) == len(CONTENT)
    assert buffer.tobytes() == CONTENT[-10:] + b"\xee" * 90
    assert os.pread(descriptor, 10, 0) == CONTENT[:5] + b"new" + CONTENT[8:10]


def test_no_thread_moves_the_position_of_another(descriptor: int) -> None:
    """Every move is followed by a moment in which other threads try."""
    real_lseek, wrong = os.lseek, []

    def slow_lseek(descriptor: int, offset: int, whence: int) -> int:
        position = real_lseek(descriptor, offset, whence)
        time.sleep(0.0001)
        return position

    def read(seed: int) -> None:
        places = random.Random(seed)
        for _ in range(40):
            place = places.randrange(0, len(CONTENT), 512)
            if host.pread(descriptor, 512, place) != CONTENT[place : place + 512]:
                wrong.append(place)
            host.length_of(descriptor)

    def write() -> None:
        for place in range(0, 40 * 512, 512):
            host.pwrite(descriptor, memoryview(CONTENT)[place : place + 512], place)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    threads.append(threading.Thread(target=write))
    with without(*POSITIONED) as patch:
        patch.setattr(os, "lseek", slow_lseek)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert os.pread(descriptor, len(CONTENT), 0) == CONTENT


def test_two_files_do_not_wait_for_each_other(descriptor: int, tmp_path: Path) -> None:
    other = os.open(tmp_path / "file", os.O_RDONLY)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(host.pread(other, 3, 1)))
    with without(*POSITIONED):
        with host._position(descriptor, 0):
            thread.start()
            thread.join(timeout=10)
            assert found == [CONTENT[1:4]]
        thread.join()
    os.close(other)


def test_allocated_size_is_that_of_host_or_the_length(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 30)
    assert host.allocated_size(path.stat()) < 1 << 20
    assert host.allocated_size(SimpleNamespace(st_size=1 << 30)) == 1 << 30  # type: ignore[arg-type]


# -- opening ---------------------------------------------------------------------------------


def test_missing_flags_are_left_out_and_files_are_binary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert host.flags("O_RDWR", "O_CREAT") == os.O_RDWR | os.O_CREAT
    monkeypatch.delattr(os, "O_NOFOLLOW")
    assert host.flags("O_RDWR", "O_NOFOLLOW") == os.O_RDWR
    monkeypatch.setattr(os, "O_BINARY", 0x8000, raising=False)
    assert host.flags("O_RDWR", "O_NOFOLLOW") == os.O_RDWR | 0x8000


def test_a_folder_that_cannot_even_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", raiser(errno.EACCES))
    with pytest.raises(UnsupportedImageError, match="is a directory, not a VHDX file"):
        FileSource(tmp_path)


def test_the_temporary_name_is_cut_between_characters(tmp_path: Path) -> None:
    """The name is 1 + 2 * 120 bytes, so that a cut at any even number of bytes halves one."""
    sink = SparseFileSink(tmp_path / ("x" + "ä" * 120), 512)
    [name] = names_in(tmp_path)
    sink.abort()
    assert name.isprintable()
    assert name.startswith(".x" + "ä" * 99 + ".")


# -- lengths and stable storage --------------------------------------------------------------


class Windows:
    """The part of Windows that gives a file its length; a handle is 1000 and the descriptor."""

    def __init__(self, patch: pytest.MonkeyPatch, *, has_holes: bool = True, free: int) -> None:
        """Take the place of this host."""
        self.calls: list[tuple[str, int, int]] = []
        self._has_holes = has_holes
        self._free = free
        kernel = SimpleNamespace(
            DeviceIoControl=self._control, SetFileInformationByHandle=self._set_information
        )
        runtime = ModuleType("msvcrt")
        runtime.get_osfhandle = lambda descriptor: descriptor + 1000  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "msvcrt", runtime)
        patch.setattr(ctypes, "WinDLL", lambda *_, **__: kernel, raising=False)
        patch.setattr(ctypes, "get_last_error", lambda: 112, raising=False)
        patch.setattr(ctypes, "WinError", self._error, raising=False)
        patch.setattr(os, "ftruncate", None)
        patch.setattr(sys, "platform", "win32")

    @staticmethod
    def _error(code: int) -> OSError:
        assert code == 112, "ERROR_DISK_FULL"
        return OSError(errno.ENOSPC, "There is not enough space on the disk")

    def _control(self, handle: ctypes.c_void_p, code: int, *_: object) -> bool:
        self.calls.append(("control", handle.value or 0, code))
        return self._has_holes

    def _set_information(
        self, handle: ctypes.c_void_p, kind: int, place: object, size: int
    ) -> bool:
        [length] = array("q", ctypes.string_at(place, size))  # type: ignore[arg-type]
        self.calls.append(("set information", kind, length))
        if length > self._free:
            return False
        os.truncate(f"/proc/self/fd/{(handle.value or 0) - 1000}", length)
        return True


@pytest.mark.parametrize("has_holes", [True, False])
def test_windows_file_gets_holes_before_its_length(tmp_path: Path, has_holes: bool) -> None:  # noqa: FBT001
    path = tmp_path / "file"
    with path.open("wb") as file, pytest.MonkeyPatch.context() as patch:
        windows = Windows(patch, has_holes=has_holes, free=1 << 50)
        host.set_length(file.fileno(), 5 << 30)
        handle = file.fileno() + 1000
    # FSCTL_SET_SPARSE and FileEndOfFileInfo of the Windows SDK.
    expected = [("control", handle, 0x900C4), ("set information", 6, 5 << 30)]
    assert windows.calls == expected
    assert path.stat().st_size == 5 << 30


def test_full_windows_disk_is_an_output_error(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Windows(patch, free=1000)
        with pytest.raises(OutputError, match=r"disk\.img: cannot be written: There is not enough"):
            SparseFileSink(tmp_path / "disk.img", 1001)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("is_refused", [False, True])
def test_macos_drive_cache_is_flushed(
    descriptor: int,
    monkeypatch: pytest.MonkeyPatch,
    is_refused: bool,  # noqa: FBT001
) -> None:
    done = []

    def control(_descriptor: int, command: int) -> int:
        done.append(command)
        if is_refused:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", done.append)
    host.sync(descriptor)
    assert done == ([51, descriptor] if is_refused else [51])


# -- requests of Linux -----------------------------------------------------------------------


def test_other_hosts_get_no_requests_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []
    monkeypatch.setattr(fcntl, "ioctl", lambda *arguments: requests.append(arguments))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
        host.ioctl(0, 0x1268, b"")
    sink = SparseFileSink(tmp_path / "disk.img", 4096)
    assert not sink.clone(0, 0, 0, 4096)
    sink.abort()
    assert requests == []


def test_block_devices_are_left_alone_on_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat_result((stat.S_IFBLK | 0o660, 1, 1, 1, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", lambda _path: device)
        with pytest.raises(OutputError, match="can be written to on Linux only") as caught:
            BlockDeviceSink("/dev/disk9", 512, replace=True)
    assert caught.value.hint == "write to a file or to standard output"


def test_the_number_of_processors_is_known_or_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.processor_count() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert host.processor_count() == default_workers() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_workers() == MAX_WORKERS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert host.processor_count() == default_workers() == 1
