"""Writers that leave the size, the headers and the time of a file as they were (R119)."""

from __future__ import annotations

import io
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB
from tests.support.chains import BASE_NAME
from tests.support.files import write_files
from tests.support.seeded_faults.disks import child, disk, family
from tests.support.sinks import FailingSink
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.operations.compare import compare
from vhdx2raw.operations.digest import digest
from vhdx2raw.source.base import Source, Status
from vhdx2raw.source.file import FileSource
from vhdx2raw.source.file_object import AnyFile, FileObjectSource
from vhdx2raw.vhdx import file_state
from vhdx2raw.vhdx.file_state import TICK

BLOCK = 4 * MIB
"""Where a block of the disk lies in its file."""
Write = Callable[[], object]
Writer = Callable[[Path], "Iterator[Write]"]
Work = Callable[[VirtualDisk, Write], object]
"""Reads a disk and, when some of it is read, writes to a file of it."""


def put_back_the_time(path: Path) -> Iterator[Write]:
    """Write as `rsync --inplace --times` does where both sides have the same time."""
    status = path.stat()

    def write() -> None:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"other", BLOCK + 100)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    yield write


def write_to_a_mapping(path: Path) -> Iterator[Write]:
    """Write to a page that was written to before the file was opened, and is not stored yet."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[BLOCK : BLOCK + 5] = b"begin"
        yield lambda: mapping.__setitem__(slice(BLOCK, BLOCK + 5), b"other")


def write_to_a_mapping_and_put_back_the_time(path: Path) -> Iterator[Write]:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[BLOCK : BLOCK + 5] = b"begin"
        status = path.stat()

        def write() -> None:
            mapping[BLOCK : BLOCK + 5] = b"other"
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        yield write


def write_in_place(path: Path) -> Iterator[Write]:
    """Write as any program does, which sets the time."""

    def write() -> None:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"other", BLOCK + 100)

    yield write


WRITERS: list[Writer] = [
    write_in_place,
    put_back_the_time,
    write_to_a_mapping,
    write_to_a_mapping_and_put_back_the_time,
]


def once(write: Write) -> Callable[..., None]:
    """Give a function that writes when it is called first."""
    writes = iter([write])

    def call(*_: int) -> None:
        for first in writes:
            first()

    return call


def run_convert(disk: VirtualDisk, write: Write) -> object:
    return convert(disk, FailingSink("write", once(write)))


def run_digest(disk: VirtualDisk, write: Write) -> object:
    return digest(disk, progress=once(write))


def run_compare(disk: VirtualDisk, write: Write) -> object:
    return compare(disk, disk, progress=once(write))


WORKS: list[Work] = [run_convert, run_digest, run_compare]


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[tuple[AnyFile, Path, OpenOptions]]:
    """Give what is opened, the file that is written to meanwhile, and how it is opened."""
    path = write_files(folder, family(child()))
    base = folder / BASE_NAME
    with base.open("rb") as file, base.open("rb", buffering=0) as raw_file:
        cases: dict[str, tuple[AnyFile, Path, OpenOptions]] = {
            "a path": (base, base, OpenOptions()),
            "a parent": (path, base, OpenOptions()),
            "a file object": (file, base, OpenOptions()),
            "a raw file object": (raw_file, base, OpenOptions()),
            "a file object as the parent": (path, base, OpenOptions(parents=[file])),
        }
        yield cases[kind]


KINDS = [
    *("a path", "a parent", "a file object", "a raw file object", "a file object as the parent"),
]


def require_noted_mappings(folder: Path) -> None:
    """Skip where no write to a mapping is ever noted, as on tmpfs."""
    path = folder / "probe"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        os.utime(path, ns=(1, 1))
        os.fsync(file.fileno())
        mapping[0] = 1
        if path.stat().st_mtime_ns == 1:
            pytest.skip("this file system notes no write to a mapping")


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_while_a_file_is_read_is_noticed(
    tmp_path: Path, writer: Writer, kind: str, work: Work
) -> None:
    require_noted_mappings(tmp_path)
    with opened(kind, tmp_path) as (file, path, options), contextmanager(writer)(path) as write:
        with (
            open_disk(file, options) as opened_disk,
            pytest.raises(CorruptImageError, match="was changed while it was read") as caught,
        ):
            work(opened_disk, write)
        assert (caught.value.finding.rule, caught.value.path) == ("R119", str(path))


def rename(path: Path) -> None:
    path.rename(path.with_name("renamed.vhdx"))


def link_and_unlink(path: Path) -> None:
    path.with_name("link.vhdx").hardlink_to(path)
    path.unlink()


def replace(path: Path) -> None:
    path.with_name("new.vhdx").write_bytes(b"another file")
    path.with_name("new.vhdx").replace(path)


@pytest.mark.parametrize(
    "harmless", [rename, link_and_unlink, replace, Path.unlink, Path.read_bytes]
)
def test_a_file_that_gets_or_loses_a_name_holds_the_same_bytes(
    tmp_path: Path, harmless: Callable[[Path], object]
) -> None:
    path = write_files(tmp_path, {"disk.vhdx": disk()})
    with open_disk(path) as disk_:
        harmless(path)
        assert disk_.chain.find_changes() == ()


def test_an_object_that_is_no_file_of_the_host_has_no_times() -> None:
    source = FileObjectSource(io.BytesIO(b"1234"))
    source.watch()
    assert source.status() == Status(4, None, None, None)


# -- file systems with coarse times ---------------------------------------------------------------


class Clock:
    """A clock that a sleep puts forward, and the times that a file system takes from it.

    A sleep takes just the moment in which the times of the kernel go on, so what is written
    after it is known by a later time, and counts as written when the sleep has ended.
    """

    def __init__(self, seconds: int) -> None:
        """Let the file system count in so many seconds."""
        self._unit = seconds * 10**9
        self._sleeps: list[tuple[int, int]] = []

    def time_ns(self) -> int:
        return self._shifted(time.time_ns())

    def sleep(self, seconds: float) -> None:
        begin = time.time_ns()
        time.sleep(2 * TICK / 10**9)
        self._sleeps.append((begin, max(0, round(seconds * 10**9) - 2 * TICK)))

    def stamp(self, real_ns: int | None) -> int:
        """Give the time that the file system would have instead of this one."""
        assert real_ns is not None
        return self._shifted(real_ns) // self._unit * self._unit

    def _shifted(self, real_ns: int) -> int:
        return real_ns + sum(shift for begin, shift in self._sleeps if real_ns > begin)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("kind", ["a path", "a file object"])
@pytest.mark.parametrize("seconds", [1, 2])
def test_a_write_within_the_second_of_the_last_one_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, kind: str, work: Work
) -> None:
    """FAT has times in two seconds, ext3 and HFS+ in one; the file was just written to."""
    clock = Clock(seconds)

    def coarse(real: Callable[[Any], Status]) -> object:
        def status(source: Source) -> Status:
            found = real(source)
            return found._replace(
                modified_ns=clock.stamp(found.modified_ns),
                changed_ns=clock.stamp(found.changed_ns),
            )

        return status

    monkeypatch.setattr(file_state, "time", clock)
    for source in (FileSource, FileObjectSource):
        monkeypatch.setattr(source, "status", coarse(source.status))
    with opened(kind, tmp_path) as (file, path, options):
        os.utime(path)
        (write,) = write_in_place(path)
        with (
            open_disk(file, options) as opened_disk,
            pytest.raises(CorruptImageError, match="it was written to"),
        ):
            work(opened_disk, write)
