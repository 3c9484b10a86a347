"""Files that change while they are read (R119)."""

from __future__ import annotations

import errno
import io
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.builder import MIB, ImageSpec, golden_g2
from tests.support.chains import BASE_NAME
from tests.support.devices import Devices
from tests.support.files import names_in, write_files
from tests.support.seeded_faults.disks import HEADER_1, HEADER_2, child, disk, family
from tests.support.sinks import FailingSink, RecordingSink
from vhdx2raw import convert
from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import CorruptImageError, SourceChangedError, TruncatedImageError
from vhdx2raw.findings import Finding
from vhdx2raw.operations.compare import compare
from vhdx2raw.operations.digest import digest
from vhdx2raw.operations.progress import ProgressCallback
from vhdx2raw.operations.writing import CHANGED_REMEDY
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.base import Status
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx.file_state import FileState, find_change, read_state

SIZE = 6 * MIB + 512
Change = Callable[[Path], object]
SIZE_CHANGED = (
    "file: was changed while it was read: its size is another one: found {} bytes,"
    f" expected {SIZE} bytes, as when it was opened"
)


def padded_disk() -> ImageSpec:
    """Describe a disk whose file has a sector more than it needs."""
    return disk(file_size=SIZE)


def overwrite(path: Path, file_offset: int, data: bytes, *, keep_time: bool = False) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(file_offset)
        file.write(data)
    times = status.st_mtime_ns, status.st_mtime_ns + (0 if keep_time else 1)
    os.utime(path, ns=times)


CHANGES: dict[str, tuple[Change, str]] = {
    "it grows": (
        lambda path: os.truncate(path, SIZE + MIB),
        SIZE_CHANGED.format(SIZE + MIB),
    ),
    "it shrinks": (
        lambda path: os.truncate(path, SIZE - 512),
        SIZE_CHANGED.format(SIZE - 512),
    ),
    "header 1 is written": (
        lambda path: overwrite(path, HEADER_1 + 8, b"\x07", keep_time=True),
        "header 1 at file offset 0x10000: was changed while it was read (MS-VHDX 2.2.2)",
    ),
    "the end of header 2 is written": (
        lambda path: overwrite(path, HEADER_2 + 4095, b"\x07", keep_time=True),
        "header 2 at file offset 0x20000: was changed while it was read (MS-VHDX 2.2.2)",
    ),
    "a block is written": (
        lambda path: overwrite(path, 5 * MIB, b"new"),
        "file: was changed while it was read: it was written to",
    ),
    "only its time changes": (
        lambda path: os.utime(path, ns=(1, 1)),
        "file: was changed while it was read: it was written to",
    ),
}


def changing_sink(path: Path, change: Change, moment: str = "write") -> FailingSink:
    """Give a sink that changes a file the first time that something is done to it."""

    def once(number: int) -> None:
        if number == 0:
            change(path)

    return FailingSink(moment, once)


# -- during a conversion ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["write", "zero", "flush"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_changes_gives_no_output(tmp_path: Path, what: str, moment: str) -> None:
    change, message = CHANGES[what]
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    sink = changing_sink(path, change, moment)
    with open_disk(path) as opened, pytest.raises(CorruptImageError) as caught:
        convert(opened, sink)
    assert (caught.value.finding.rule, exit_code_of(caught.value)) == ("R119", 9)
    assert (caught.value.path, caught.value.message) == (str(path), message)
    assert caught.value.remedy == CHANGED_REMEDY
    assert "{allow_changed}" in CHANGED_REMEDY
    assert sink.names[-1] == "abort"
    assert "commit" not in sink.names


@pytest.mark.parametrize("what", CHANGES)
def test_allowed_change_is_a_warning(tmp_path: Path, what: str) -> None:
    change, message = CHANGES[what]
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    sink = changing_sink(path, change)
    with open_disk(path) as opened:
        result = convert(opened, sink, allow_changed=True)
    ((name, finding),) = result.warnings
    assert (name, finding.rule, str(finding)) == (str(path), "R119", message)
    assert sink.names[-1] == "commit"


def test_change_between_two_progress_reports_is_seen(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    reported = threading.Event()

    def report(done: int, total: int) -> None:
        os.utime(path, ns=(1, 1))
        reported.set()

    def wait(number: int) -> None:
        assert reported.wait(30), "progress is not reported"

    sink = FailingSink("write", wait)
    with open_disk(path) as opened, pytest.raises(CorruptImageError, match="it was written to"):
        convert(opened, sink, progress=report)
    assert sink.names[-1] == "abort"


def test_change_leaves_no_output_file(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    target = tmp_path / "out" / "disk.img"
    target.parent.mkdir()
    with open_disk(path) as opened:
        sink = SparseFileSink(target, opened.size, inputs=opened.chain.identities)
        os.utime(path, ns=(1, 1))
        with pytest.raises(CorruptImageError, match="was changed while it was read"):
            convert(opened, sink)
    assert names_in(target.parent) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_a_parent_is_watched_too(tmp_path: Path, what: str) -> None:
    change, message = CHANGES[what]
    path = write_files(tmp_path, family(child(), padded_disk()))
    parent = tmp_path / BASE_NAME
    sink = changing_sink(parent, change)
    with open_disk(path) as opened, pytest.raises(CorruptImageError) as caught:
        convert(opened, sink)
    assert (caught.value.path, caught.value.message) == (str(parent), message)
    assert sink.names[-1] == "abort"


def test_all_changed_files_are_reported(tmp_path: Path) -> None:
    path = write_files(tmp_path, family(child(), padded_disk()))
    with open_disk(path) as opened:
        assert opened.chain.find_changes() == ()
        os.utime(path, ns=(1, 1))
        overwrite(tmp_path / BASE_NAME, HEADER_1, b"x")
        changes = opened.chain.find_changes()
    assert [(name, finding.structure) for name, finding in changes] == [
        (str(path), "file"),
        (str(tmp_path / BASE_NAME), "header 1"),
    ]


def test_a_file_that_loses_what_is_needed_is_truncated(tmp_path: Path) -> None:
    """Whether a change is allowed or not: what is gone cannot be read."""
    for allow_changed in (False, True):
        path = write_files(tmp_path, {"disk.vhdx": disk()})
        with open_disk(path) as opened:
            os.truncate(path, 5 * MIB)
            sink = RecordingSink()
            with pytest.raises(TruncatedImageError, match="ends too early"):
                convert(opened, sink, allow_changed=allow_changed)
        assert sink.names[-1] == "abort"


# -- no change -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [padded_disk(), golden_g2()], ids=["clean", "dirty"])
def test_a_file_that_stays_as_it_is_has_no_change(tmp_path: Path, spec: ImageSpec) -> None:
    path = write_files(tmp_path, {"disk.vhdx": spec})
    with open_disk(path) as opened:
        for allow_changed in (False, True):
            result = convert(opened, RecordingSink(), allow_changed=allow_changed)
            assert result.warnings == opened.warnings
        opened.chain.require_unchanged()  # raises nothing
        assert opened.chain.child.find_change() is None


def test_a_dirty_file_is_watched_below_its_log(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": golden_g2()})
    with open_disk(path) as opened:
        overwrite(path, HEADER_2 + 100, b"x", keep_time=True)
        change = opened.chain.child.find_change()
    assert change is not None
    assert change.structure == "header 2"


def test_reading_and_renaming_a_file_do_not_change_it(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    with open_disk(path) as opened:
        path.read_bytes()
        path.rename(tmp_path / "renamed.vhdx")
        (tmp_path / "disk.vhdx").write_bytes(b"another file")
        assert opened.chain.find_changes() == ()


# -- file objects ----------------------------------------------------------------------------


def test_file_object_is_watched_by_size_and_headers(tmp_path: Path) -> None:
    """When it was written last is not known."""
    data = write_files(tmp_path, {"disk.vhdx": padded_disk()}).read_bytes()
    file = io.BytesIO(data)
    with open_disk(file) as opened:
        file.seek(5 * MIB)
        file.write(b"unseen")
        assert opened.chain.find_changes() == ()
        file.seek(HEADER_2 + 50)
        file.write(b"seen")
        ((name, change),) = opened.chain.find_changes()
        assert (name, change.structure) == ("<BytesIO>", "header 2")
        file.seek(0, io.SEEK_END)
        file.write(b"more")
        ((_, change),) = opened.chain.find_changes()
        assert change.found == f"{SIZE + 4} bytes"


# -- asked after every read -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spec", [disk(file_size=SIZE), golden_g2()], ids=["clean", "dirty"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_noticed_after_the_next_read(
    tmp_path: Path, spec: ImageSpec, what: str
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": spec})
    change, _ = CHANGES[what]
    with open_disk(path) as opened:
        opened.watch()
        opened.require_unchanged()  # raises nothing
        change(path)
        for _ in range(2):
            with pytest.raises(SourceChangedError, match="was changed while it was read"):
                opened.require_unchanged()


def test_a_write_to_a_mapping_is_noticed_after_the_next_read(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[5 * MIB] = 1  # the page waits to be stored from now on
        with open_disk(path) as opened:
            opened.watch()
            opened.require_unchanged()  # raises nothing
            mapping[5 * MIB] = 2
            with pytest.raises(SourceChangedError, match="it was written to"):
                opened.require_unchanged()


def test_a_changed_parent_is_noticed_after_the_next_read(tmp_path: Path) -> None:
    path = write_files(tmp_path, family(child()))
    with open_disk(path) as opened:
        overwrite(tmp_path / BASE_NAME, 5 * MIB, b"new")
        with pytest.raises(SourceChangedError, match=rf"{BASE_NAME}: .* it was written to"):
            opened.require_unchanged()


def test_a_renamed_file_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    with open_disk(path) as opened:
        renamed = path.rename(tmp_path / "renamed.vhdx")
        opened.require_unchanged()  # raises nothing
        overwrite(renamed, HEADER_2 + 50, b"new", keep_time=True)
        with pytest.raises(SourceChangedError, match="header 2"):
            opened.require_unchanged()


def test_a_file_object_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    file = io.BytesIO(write_files(tmp_path, {"disk.vhdx": disk()}).read_bytes())
    with open_disk(file) as opened:
        opened.require_unchanged()  # raises nothing
        file.seek(HEADER_2 + 50)
        file.write(b"new")
        with pytest.raises(SourceChangedError, match="header 2"):
            opened.require_unchanged()


def test_a_device_is_looked_at_as_a_whole(tmp_path: Path, devices: Devices) -> None:
    """The times of its name say nothing."""
    device = devices.attach(write_files(tmp_path, {"disk.vhdx": disk()}))
    with open_disk(device) as opened:
        opened.require_unchanged()  # raises nothing
        with device.open("r+b", buffering=0) as file:
            file.seek(HEADER_2)
            file.write(bytes(4096))
        with pytest.raises(SourceChangedError, match="header 2"):
            opened.require_unchanged()


def test_a_file_that_cannot_be_asked_fails_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})

    def fstat(_descriptor: int) -> NoReturn:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with open_disk(path) as opened, monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fstat)
        with pytest.raises(OSError, match=r"Stale file handle: '.*disk\.vhdx'"):
            opened.require_unchanged()


# -- the states themselves -------------------------------------------------------------------


def test_a_state_is_what_a_file_is_like(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    source = FileSource(path)
    try:
        state = read_state(source)
        status = path.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        assert state.status == (SIZE, *times, (1, True), None)
        content = path.read_bytes()
        assert state.headers == tuple(content[at : at + 4096] for at in (HEADER_1, HEADER_2))
        assert find_change(state, read_state(source)) is None
    finally:
        source.close()


def test_headers_that_cannot_be_read_are_no_change(tmp_path: Path) -> None:
    """A short file is judged by those who need what is missing."""
    path = tmp_path / "short.vhdx"
    path.write_bytes(bytes(HEADER_2 + 100))
    source = FileSource(path)
    try:
        state = read_state(source)
        assert state.headers == (bytes(4096), b"")
        assert find_change(state, read_state(source)) is None
    finally:
        source.close()


STATUS = Status(SIZE, 5, 8, (1, True))
STATE = FileState(STATUS, (b"first", b"second"))
OTHER_TIME = STATUS._replace(modified_ns=6)


@pytest.mark.parametrize(
    ("after", "section"),
    [
        (FileState(OTHER_TIME._replace(size=0), (b"", b"")), "file"),
        (FileState(OTHER_TIME, (b"", b"")), "header 1"),
        (FileState(OTHER_TIME, (b"first", b"")), "header 2"),
        (STATE._replace(status=STATUS._replace(modified_ns=4)), "file"),
        (STATE._replace(status=STATUS._replace(changed_ns=9)), "file"),
    ],
)
def test_most_specific_change_is_reported(after: FileState, section: str) -> None:
    change = find_change(STATE, after)
    assert isinstance(change, Finding)
    assert (change.rule, change.structure) == ("R119", section)
    assert find_change(after, after) is None


# -- during other work -----------------------------------------------------------------------


def changing_progress(path: Path, change: Change) -> ProgressCallback:
    """Give a callback that changes a file as soon as some of it was read."""
    changed: list[Path] = []

    def report(_done: int, _total: int) -> None:
        if not changed:
            changed.append(path)
            change(path)

    return report


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_changes_has_no_digest(tmp_path: Path, what: str) -> None:
    change, message = CHANGES[what]
    path = write_files(tmp_path, {"disk.vhdx": padded_disk()})
    with open_disk(path) as opened, pytest.raises(CorruptImageError) as caught:
        digest(opened, progress=changing_progress(path, change))
    assert (caught.value.path, caught.value.message) == (str(path), message)
    assert "{allow_changed}" not in caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("stop_at_first", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_changes_is_compared_with_nothing(
    tmp_path: Path,
    which: int,
    stop_at_first: bool,  # noqa: FBT001
) -> None:
    change, message = CHANGES["header 1 is written"]
    paths = [tmp_path / name for name in ("one.vhdx", "two.vhdx")]
    for path in paths:
        padded_disk().write(path)
    progress = changing_progress(paths[which], change)
    with (
        open_disk(paths[0]) as one,
        open_disk(paths[1]) as two,
        pytest.raises(CorruptImageError) as caught,
    ):
        compare(one, two, stop_at_first=stop_at_first, progress=progress)
    assert (caught.value.path, caught.value.message) == (str(paths[which]), message)
