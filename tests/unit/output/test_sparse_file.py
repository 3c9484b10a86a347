"""The sparse file: it appears when it is complete, or not at all, and replaces nothing."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builder import GIB, MIB
from tests.support.files import names_in
from tests.support.host import raiser
from vhdx2raw.errors import OutputError
from vhdx2raw.output.sparse_file import SparseFileSink

SIZE = MIB + 512
DATA = memoryview(b"some data")
NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
HOST_FAILURES = [errno.EIO, errno.EACCES]


def identity_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.img"


# -- the sparse file: how it appears ------------------------------------------------------------


def test_final_name_appears_on_commit(target: Path) -> None:
    sink = SparseFileSink(target, SIZE)
    sink.write(0, DATA)
    sink.flush()
    names = names_in(target.parent)
    assert len(names) == 1
    assert names[0].startswith(".out.img.")
    assert names[0].endswith(".part")
    sink.commit()
    sink.abort()  # too late to change anything
    assert names_in(target.parent) == ["out.img"]
    assert target.read_bytes() == DATA.tobytes().ljust(SIZE, b"\0")


def test_temporary_file_is_created_exclusively(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, int] = {}
    real_open = os.open

    def recording_open(path: str | Path, flags: int, mode: int = 0o777) -> int:
        opened[Path(path).name] = flags
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", recording_open)
    sink = SparseFileSink(target, SIZE)
    [temporary] = names_in(target.parent)
    flags = opened[temporary]
    assert flags & os.O_CREAT
    assert flags & os.O_EXCL
    assert flags & os.O_NOFOLLOW
    assert flags & os.O_CLOEXEC
    sink.abort()


@pytest.mark.parametrize("planted", ["file", "link"])
def test_planted_temporary_name_is_left_alone(
    target: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    sink = SparseFileSink(target, SIZE)
    [temporary] = names_in(target.parent)
    sink.abort()
    victim = target.with_name("victim" if planted == "link" else temporary)
    victim.write_bytes(b"precious")
    if planted == "link":
        victim.with_name(temporary).symlink_to(victim)
    with pytest.raises(OutputError):
        SparseFileSink(target, SIZE)
    assert victim.read_bytes() == b"precious"
    assert temporary in names_in(target.parent)


def test_abort_leaves_no_file(target: Path) -> None:
    sink = SparseFileSink(target, SIZE)
    sink.write(0, DATA)
    sink.abort()
    sink.abort()
    assert names_in(target.parent) == []


def test_the_final_length_includes_a_hole_at_the_end(target: Path) -> None:
    sink = SparseFileSink(target, GIB)
    [temporary] = names_in(target.parent)
    assert target.with_name(temporary).stat().st_size == GIB
    sink.zero(0, MIB)
    sink.write(MIB, DATA)
    sink.zero(2 * MIB, GIB - 2 * MIB)
    sink.commit()
    assert target.stat().st_size == GIB
    assert target.stat().st_blocks * 512 <= 64 * 1024


def test_contents_are_synced_before_the_name(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def recording_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"fsync {kind}")
        real_fsync(descriptor)

    def recording_link(source: Path, name: Path, *, follow_symlinks: bool = True) -> None:
        steps.append("link")
        real_link(source, name, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    sink = SparseFileSink(target, SIZE)
    sink.flush()
    sink.commit()
    assert steps == ["fsync file", "link", "fsync folder"]


def test_permissions_obey_the_umask(target: Path) -> None:
    previous = os.umask(0o027)
    try:
        sink = SparseFileSink(target, SIZE)
        sink.commit()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 125, "円" * 85], ids=["ascii", "two", "three"])
def test_longest_name_is_usable(tmp_path: Path, name: str) -> None:
    """What counts is bytes: 255 of them on Linux, and the temporary name has to fit too."""
    sink = SparseFileSink(tmp_path / name, SIZE)
    sink.commit()
    assert names_in(tmp_path) == [name]


# -- the sparse file: what it refuses -----------------------------------------------------------


def test_an_existing_file_is_refused_and_untouched(target: Path) -> None:
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already") as caught:
        SparseFileSink(target, SIZE)
    assert caught.value.path == str(target)
    assert "force=" in caught.value.hint
    assert target.read_bytes() == b"precious"
    assert names_in(target.parent) == ["out.img"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_file_that_appears_meanwhile_is_not_replaced(
    target: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", raiser(errno.EPERM))
    sink = SparseFileSink(target, SIZE)
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        sink.commit()
    sink.abort()
    assert target.read_bytes() == b"precious"
    assert names_in(target.parent) == ["out.img"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_the_file_is_renamed(
    target: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", raiser(number))
    sink = SparseFileSink(target, SIZE)
    sink.write(0, DATA)
    sink.commit()
    assert names_in(target.parent) == ["out.img"]
    assert target.read_bytes().startswith(DATA.tobytes())


def test_replacing_is_atomic(target: Path) -> None:
    target.write_bytes(b"old")
    before = identity_of(target)
    sink = SparseFileSink(target, SIZE, replace=True)
    sink.write(0, DATA)
    assert target.read_bytes() == b"old"
    sink.commit()
    assert identity_of(target) != before
    assert target.read_bytes().startswith(DATA.tobytes())
    assert names_in(target.parent) == ["out.img"]


def test_aborted_replacement_leaves_the_old_file(target: Path) -> None:
    target.write_bytes(b"old")
    before = identity_of(target)
    SparseFileSink(target, SIZE, replace=True).abort()
    assert identity_of(target) == before
    assert target.read_bytes() == b"old"


def test_replacing_follows_a_symbolic_link(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    real = folder / "real.img"
    real.write_bytes(b"old")
    link = tmp_path / "link.img"
    link.symlink_to(real)
    sink = SparseFileSink(link, SIZE, replace=True)
    assert names_in(tmp_path) == ["elsewhere", "link.img"]  # the temporary file is beside `real`
    sink.commit()
    assert link.is_symlink()
    assert real.stat().st_size == SIZE
    assert names_in(folder) == ["real.img"]


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_link_to_folder(path: Path) -> Path:
    path.symlink_to(make_folder(path.with_name("folder")))
    return path


REFUSED: list[tuple[str, Callable[[Path], Path | str], str]] = [
    ("folder", make_folder, "is a directory"),
    ("link to a folder", make_link_to_folder, "is a directory"),
    ("trailing slash", lambda path: f"{path}/", "is a directory"),
    ("empty name", lambda _path: "", "is a directory"),
    ("FIFO", make_fifo, "exists and is not a regular file"),
    ("device", lambda _path: "/dev/null", "exists and is not a regular file"),
    ("missing folder", lambda path: path / "out.img", "No such file or directory"),
    ("too long", lambda path: path.with_name("x" * 256), "File name too long"),
]


@pytest.mark.parametrize("replace", [False, True], ids=["", "replace"])
@pytest.mark.parametrize(
    ("make", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_name_that_cannot_be_a_file_is_refused(
    target: Path, make: Callable[[Path], Path | str], words: str, *, replace: bool
) -> None:
    path = make(target)
    names = names_in(target.parent)
    with pytest.raises(OutputError, match=words) as caught:
        SparseFileSink(path, SIZE, replace=replace)
    assert caught.value.path == str(path)
    assert names_in(target.parent) == names


def test_a_name_that_is_too_long_should_be_shorter(target: Path) -> None:
    with pytest.raises(OutputError) as caught:
        SparseFileSink(target.with_name("x" * 256), SIZE)
    assert caught.value.hint == "choose a shorter name"


def test_a_file_in_the_place_of_a_folder_is_refused(target: Path) -> None:
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="Not a directory") as caught:
        SparseFileSink(target / "out.img", SIZE)
    assert "folder" in caught.value.hint


def test_dangling_link_is_refused(target: Path) -> None:
    missing = target.with_name("missing.img")
    target.symlink_to(missing)
    with pytest.raises(OutputError, match="exists already"):
        SparseFileSink(target, SIZE)
    assert names_in(target.parent) == ["out.img"]
    assert target.is_symlink()


@pytest.mark.parametrize("replace", [False, True], ids=["", "replace"])
@pytest.mark.parametrize("way", ["name", "other spelling", "symbolic link", "hard link"])
def test_an_input_is_never_the_output(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    source = tmp_path / "disk.vhdx"
    source.write_bytes(b"the only copy")
    other = tmp_path / "other.img"
    path: Path | str = source
    if way == "other spelling":
        monkeypatch.chdir(tmp_path)
        path = "./../" + tmp_path.name + "//disk.vhdx"
    elif way == "symbolic link":
        other.symlink_to(source)
        path = other
    elif way == "hard link":
        other.hardlink_to(source)
        path = other
    names = names_in(tmp_path)
    with pytest.raises(OutputError, match="is the input itself") as caught:
        SparseFileSink(path, SIZE, replace=replace, inputs=[(0, 0), identity_of(source)])
    assert caught.value.path == str(path)
    assert source.read_bytes() == b"the only copy"
    assert names_in(tmp_path) == names


# -- the sparse file: failures of the host ------------------------------------------------------


def test_short_writes_go_on_where_they_stopped(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pwrite = os.pwrite

    def short_pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        return real_pwrite(descriptor, data[:4], offset)

    monkeypatch.setattr(os, "pwrite", short_pwrite)
    sink = SparseFileSink(target, SIZE)
    sink.write(5, memoryview(b"0123456789"))
    sink.commit()
    assert target.read_bytes()[:20] == b"\0\0\0\0\x000123456789\0\0\0\0\0"


def assert_reported(error: Exception, target: Path, number: int) -> None:
    """Check for an OutputError with a hint if there is no space, else an OSError with the name."""
    if number in NO_SPACE:
        assert isinstance(error, OutputError)
        assert str(error) == f"{target}: cannot be written: {os.strerror(number)}"
        assert error.hint
    else:
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (number, str(target))


@pytest.mark.parametrize("number", NO_SPACE + HOST_FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "ftruncate"])
def test_failing_creation_leaves_no_file(
    target: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, raiser(number))
    with pytest.raises((OutputError, OSError)) as caught:
        SparseFileSink(target, SIZE)
    assert names_in(target.parent) == []
    assert_reported(caught.value, target, number)


@pytest.mark.parametrize("number", NO_SPACE + HOST_FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["write", "flush", "commit"])
def test_failing_step_leaves_no_file(
    target: Path, step: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SparseFileSink(target, SIZE, replace=True)
    take = {"write": lambda: sink.write(0, DATA), "flush": sink.flush, "commit": sink.commit}
    for place, call in ((os, "pwrite"), (os, "fsync"), (Path, "replace")):
        monkeypatch.setattr(place, call, raiser(number))
    with pytest.raises((OutputError, OSError)) as caught:
        take[step]()
    sink.abort()
    assert names_in(target.parent) == []
    assert_reported(caught.value, target, number)


def test_interrupted_creation_leaves_no_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int, _length: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "ftruncate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SparseFileSink(target, SIZE)
    assert names_in(target.parent) == []


def test_failing_sync_of_the_folder_is_ignored(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SparseFileSink(target, SIZE)
    sink.flush()
    monkeypatch.setattr(os, "fsync", raiser(errno.EINVAL))
    sink.commit()
    assert names_in(target.parent) == ["out.img"]
