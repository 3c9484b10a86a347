"""Writes past the page cache: which are made so, and what happens where they cannot be."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB
from vhdx2raw import host
from vhdx2raw.output.direct import DirectWriter
from vhdx2raw.output.sparse_file import SparseFileSink

SIZE = MIB + 512


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Give an open file of a MiB and a sector, in a folder that can do this."""
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(number, SIZE)
    probe = host.open_direct(number)
    if probe < 0:
        os.close(number)
        pytest.skip("no direct writes in the temporary folder")
    os.close(probe)
    yield number
    os.close(number)


def data_of(length: int) -> memoryview:
    """Give some bytes that begin with a page."""
    buffer = host.page_aligned(length)
    buffer[:] = (b"0123456789abcdef" * (length // 16 + 1))[:length]
    return buffer


def test_aligned_data_is_written_directly(descriptor: int) -> None:
    writer = DirectWriter(descriptor)
    data = data_of(256 * KIB)
    assert writer.write(512 * KIB, data)
    assert os.pread(descriptor, 256 * KIB, 512 * KIB) == data
    writer.close()
    writer.close()


@pytest.mark.parametrize(
    ("place", "length"),
    [(0, 64 * KIB), (512, 256 * KIB), (0, 256 * KIB + 512)],
    ids=["small", "unaligned place", "unaligned length"],
)
def test_other_data_is_left_to_the_usual_way(descriptor: int, place: int, length: int) -> None:
    writer = DirectWriter(descriptor)
    assert not writer.write(place, data_of(length))
    assert os.pread(descriptor, SIZE, 0) == bytes(SIZE)
    writer.close()


def test_unaligned_memory_ends_direct_writes(descriptor: int) -> None:
    """Unless it is a host that does not mind."""
    writer = DirectWriter(descriptor)
    unaligned, aligned = data_of(256 * KIB + 512)[8 : 256 * KIB + 8], data_of(256 * KIB)
    written = writer.write(0, unaligned)
    assert os.pread(descriptor, 256 * KIB, 0) == (unaligned if written else bytes(256 * KIB))
    assert writer.write(512 * KIB, aligned) is written
    assert os.pread(descriptor, 256 * KIB, 512 * KIB) == (aligned if written else bytes(256 * KIB))
    writer.close()


def test_short_direct_write_is_refused(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "pwrite", lambda _descriptor, data, _place: len(data) - 4096)
    assert not DirectWriter(descriptor).write(0, data_of(256 * KIB))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failing_direct_write_is_raised(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(host, "pwrite", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        DirectWriter(descriptor).write(0, data_of(256 * KIB))


def test_file_is_the_same_without_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "open_direct", lambda _descriptor: -1)
    data = data_of(MIB)
    sink = SparseFileSink(tmp_path / "disk.img", SIZE, direct=True)
    sink.write(0, data)
    sink.commit()
    assert (tmp_path / "disk.img").read_bytes() == bytes(data) + bytes(512)


@pytest.mark.usefixtures("descriptor")
def test_direct_and_usual_writes_make_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_direct: list[bool] = []
    real_write = DirectWriter.write

    def write(self: DirectWriter, file_offset: int, data: memoryview) -> bool:
        was_direct.append(real_write(self, file_offset, data))
        return was_direct[-1]

    monkeypatch.setattr(DirectWriter, "write", write)
    data = data_of(SIZE)
    sink = SparseFileSink(tmp_path / "disk.img", SIZE, direct=True)
    for start, end in ((0, 512 * KIB), (768 * KIB, SIZE), (512 * KIB, 516 * KIB)):
        sink.write(start, data[start:end])
    sink.flush()
    sink.commit()
    assert was_direct == [True, False, False]
    expected = bytearray(data)
    expected[516 * KIB : 768 * KIB] = bytes(252 * KIB)
    assert (tmp_path / "disk.img").read_bytes() == expected


@pytest.mark.parametrize("can", [True, False])
def test_pieces_are_large_for_direct_writes_only(
    tmp_path: Path,
    descriptor: int,
    monkeypatch: pytest.MonkeyPatch,
    can: bool,  # noqa: FBT001
) -> None:
    """The file system of `descriptor` can, unless it is taken away."""
    assert descriptor >= 0
    if not can:
        monkeypatch.setattr(host, "open_direct", lambda _descriptor: -1)
    sink = SparseFileSink(tmp_path / "disk.img", MIB, direct=True)
    try:
        assert sink.piece_size == (MIB if can else 256 * KIB)
    finally:
        sink.abort()
