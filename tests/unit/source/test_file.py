"""A file of the host is read exactly or not at all, and never written."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.support.files import open_files
from vhdx2raw.errors import TruncatedImageError, UnsupportedImageError
from vhdx2raw.source.file import FileSource

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.vhdx"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def source(path: Path) -> Iterator[FileSource]:
    source = FileSource(path)
    yield source
    source.close()


@pytest.fixture
def _time_limit() -> Iterator[None]:
    """Let a test that blocks fail."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        message = "opening blocks"
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_into(source: FileSource, file_offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xee" * length)
    source.pread_into(file_offset, memoryview(buffer))
    return bytes(buffer)


READERS = pytest.mark.parametrize("read", [FileSource.pread, read_into], ids=["pread", "into"])
Reader = Callable[[FileSource, int, int], bytes]


# -- reading ---------------------------------------------------------------------------------


@READERS
@pytest.mark.parametrize(
    ("file_offset", "length"),
    [(0, len(CONTENT)), (0, 0), (0, 1), (777, 4321), (len(CONTENT) - 1, 1), (len(CONTENT), 0)],
)
def test_reads_are_exact(source: FileSource, read: Reader, file_offset: int, length: int) -> None:
    assert read(source, file_offset, length) == CONTENT[file_offset : file_offset + length]


@READERS
def test_reads_do_not_move_a_position(source: FileSource, read: Reader) -> None:
    first = read(source, 0, 10)
    read(source, 500, 10)
    assert read(source, 0, 10) == first == CONTENT[:10]


@READERS
@pytest.mark.parametrize(
    ("file_offset", "length"),
    [
        (0, len(CONTENT) + 1),
        (len(CONTENT), 1),
        (len(CONTENT) - 1, 2),
        (2**63 - 1, 1),
        (2**63, 1),
        (2**64 - 2**20, 2**20),
        (2**70, 1),
    ],
)
def test_a_read_past_the_end_is_truncation(
    source: FileSource, path: Path, read: Reader, file_offset: int, length: int
) -> None:
    message = f"file at file offset {file_offset:#x}: ends too early: {length} bytes are needed"
    with pytest.raises(TruncatedImageError, match=message) as caught:
        read(source, file_offset, length)
    assert caught.value.finding.rule == "R3"
    assert caught.value.finding.file_offset == file_offset
    assert caught.value.finding.found == f"end of file at {len(CONTENT):#x}"
    assert caught.value.path == str(path)
    assert "fetch it again" in caught.value.hint


@READERS
def test_partial_reads_of_the_host_are_continued(
    source: FileSource, read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pread, real_preadv = os.pread, os.preadv

    def short_pread(descriptor: int, length: int, offset: int) -> bytes:
        return real_pread(descriptor, min(length, 100), offset)

    def short_preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return real_preadv(descriptor, [buffers[0][:100]], offset)

    monkeypatch.setattr(os, "pread", short_pread)
    monkeypatch.setattr(os, "preadv", short_preadv)
    assert read(source, 777, 4321) == CONTENT[777 : 777 + 4321]


@READERS
def test_a_file_that_shrinks_is_truncated_not_padded(
    source: FileSource, path: Path, read: Reader
) -> None:
    os.truncate(path, 1000)
    with pytest.raises(TruncatedImageError, match="ends too early: 600 bytes") as caught:
        read(source, 500, 600)
    assert caught.value.finding.found == "end of file at 0x3e8"
    assert caught.value.path == str(path)


@READERS
def test_errors_of_the_host_are_passed_on(
    source: FileSource, read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read(source, 0, 10)
    assert type(caught.value) is OSError


def test_all_of_a_plain_file_stands_in_the_file(source: FileSource) -> None:
    assert list(source.iter_in_file(100, 5000)) == [(100, 5000)]


# -- opening and closing ---------------------------------------------------------------------


def test_name_size_and_identity(path: Path, tmp_path: Path) -> None:
    link, hard_link = tmp_path / "link", tmp_path / "hard"
    link.symlink_to(path)
    hard_link.hardlink_to(path)
    sources = [FileSource(name) for name in (path, str(path), link, hard_link)]
    status = path.stat()
    assert {source.identity for source in sources} == {(status.st_dev, status.st_ino)}
    assert {source.size for source in sources} == {len(CONTENT)}
    assert [source.name for source in sources] == [*map(str, (path, path, link, hard_link))]
    for source in sources:
        source.close()


def test_the_name_is_what_the_user_wrote(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    source = FileSource("./some.vhdx")
    source.close()
    assert source.name == "./some.vhdx"


def test_file_is_opened_read_only_and_not_inherited(source: FileSource) -> None:
    flags = fcntl.fcntl(source.descriptor, fcntl.F_GETFL)
    assert flags & os.O_ACCMODE == os.O_RDONLY
    assert not os.get_inheritable(source.descriptor)


def test_reading_and_closing_leave_the_file_as_it_was(path: Path) -> None:
    before = path.stat()
    source = FileSource(path)
    source.pread(0, 100)
    source.close()
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert path.read_bytes() == CONTENT


def test_closing_twice_does_nothing(path: Path) -> None:
    """The second call must not close what has got the number of the descriptor since."""
    source = FileSource(path)
    source.close()
    other = os.open(path, os.O_RDONLY)
    source.close()
    assert os.pread(other, 1, 0) == CONTENT[:1]
    os.close(other)


def test_closing_does_not_fail(path: Path) -> None:
    source = FileSource(path)
    os.close(source.descriptor)
    source.close()
    assert source.descriptor < 0


def test_a_closed_file_is_not_read(path: Path) -> None:
    source = FileSource(path)
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        source.pread(0, 1)


# -- other kinds of file----------------------------------------------------------------------


def make_directory(path: Path) -> Path:
    path.mkdir()
    return path


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


def character_device(_path: Path) -> Path:
    return Path("/dev/zero")


@pytest.mark.usefixtures("_time_limit")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_directory, "a directory"),
        (make_fifo, "a FIFO"),
        (make_socket, "a socket"),
        (character_device, "a character device"),
    ],
)
def test_file_without_random_access_is_refused(
    make: Callable[[Path], Path], kind: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "it")
    before = open_files()
    with pytest.raises(UnsupportedImageError, match=f"is {kind}, not a VHDX file") as caught:
        FileSource(path)
    assert caught.value.finding.rule == "R1"
    assert caught.value.path == str(path)
    assert open_files() == before


def test_a_missing_file_is_an_error_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileSource(tmp_path / "none.vhdx")


def test_nothing_stays_open_if_the_size_is_unknown(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> int:
        raise OSError(29, "Illegal seek")

    before = open_files()
    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(OSError, match="Illegal seek"):
        FileSource(path)
    assert open_files() == before
