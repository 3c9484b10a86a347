"""Regular files that are changed where they stand, and what only differs."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB
from vhdx2raw import OutputError, host
from vhdx2raw.output.difference import DifferenceSink
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.source.file import identity_of
from vhdx2raw.source.raw_file import RawFile

OLD = b"\xff" * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(OLD)
    return path


def test_only_what_is_written_changes(image: Path) -> None:
    sink = InPlaceSink(image, MIB)
    sink.write(1000, memoryview(b"new"))
    sink.zero(8 * KIB, 4 * KIB)
    sink.flush()
    sink.commit()
    expected = bytearray(OLD)
    expected[1000:1003] = b"new"
    expected[8 * KIB : 12 * KIB] = bytes(4 * KIB)
    assert image.read_bytes() == expected


def test_zeros_become_a_hole(image: Path) -> None:
    before = image.stat().st_blocks
    sink = InPlaceSink(image, MIB)
    sink.zero(0, MIB)
    sink.commit()
    assert image.read_bytes() == bytes(MIB)
    assert image.stat().st_blocks < before


def test_zeros_are_written_where_no_hole_can_be(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")

    monkeypatch.setattr(host, "punch_hole", refuse)
    sink = InPlaceSink(image, MIB)
    sink.zero(100, MIB - 200)
    sink.commit()
    assert image.read_bytes() == OLD[:100] + bytes(MIB - 200) + OLD[:100]


def test_file_becomes_longer_only_when_asked(image: Path) -> None:
    sink = InPlaceSink(image, 2 * MIB)
    assert image.stat().st_size == MIB
    sink.lengthen()
    sink.commit()
    assert image.read_bytes() == OLD + bytes(MIB)


def test_longer_file_is_refused(image: Path) -> None:
    with pytest.raises(OutputError, match="is longer than the disk: it has 1048576 bytes"):
        InPlaceSink(image, MIB - 512)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        InPlaceSink(tmp_path / "missing.img", MIB)
    assert not (tmp_path / "missing.img").exists()


def test_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError, match="is not a regular file"):
        InPlaceSink(tmp_path / "fifo", MIB)


def test_input_is_refused(image: Path) -> None:
    with pytest.raises(OutputError, match="is the input itself"):
        InPlaceSink(image, MIB, inputs=[identity_of(image.stat())])
    assert image.read_bytes() == OLD


def test_second_sink_on_a_file_is_refused_until_the_first_is_closed(image: Path) -> None:
    first = InPlaceSink(image, MIB)
    with pytest.raises(OutputError, match="is being changed by another run"):
        InPlaceSink(image, MIB)
    first.abort()
    InPlaceSink(image, MIB).commit()


@pytest.mark.parametrize("name", ["fsync", "ftruncate", "close"])
def test_failure_of_the_host_names_the_file(
    image: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sink = InPlaceSink(image, 2 * MIB)
    real = getattr(os, name)

    def fail(descriptor: int, *arguments: int) -> None:
        if name == "close":
            real(descriptor, *arguments)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            {"fsync": sink.flush, "ftruncate": sink.lengthen, "close": sink.commit}[name]()
    assert caught.value.filename == str(image)
    sink.abort()


def test_where_there_are_no_locks_nobody_is_kept_out(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with image.open("rb") as file:
        assert host.lock(file.fileno())


# -- what differs ---------------------------------------------------------------------------------


@pytest.fixture
def difference(image: Path) -> DifferenceSink:
    return DifferenceSink(InPlaceSink(image, MIB), RawFile(image))


def test_equal_bytes_are_not_written(image: Path, difference: DifferenceSink) -> None:
    difference.write(0, memoryview(OLD))
    assert difference.written_bytes == 0
    assert not difference.left_incomplete
    difference.commit()
    assert image.read_bytes() == OLD


def test_units_that_differ_are_written_in_runs(image: Path, difference: DifferenceSink) -> None:
    data = bytearray(OLD[: 64 * KIB])
    data[5 * KIB] = data[9 * KIB] = data[-1] = 1
    difference.write(64 * KIB, memoryview(data))
    assert difference.written_bytes == 3 * 4 * KIB
    assert difference.left_incomplete
    difference.commit()
    assert image.read_bytes() == OLD[: 64 * KIB] + data + OLD[128 * KIB :]


def test_only_what_is_stored_is_made_zero(image: Path, difference: DifferenceSink) -> None:
    difference.zero(0, 512 * KIB)
    assert difference.zeroed_bytes == 512 * KIB
    difference.zero(0, 768 * KIB)
    assert difference.zeroed_bytes == 768 * KIB
    difference.abort()
    assert image.read_bytes() == bytes(768 * KIB) + OLD[768 * KIB :]
