"""The stream and the sink that keeps nothing."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.builder import MIB
from vhdx2raw.errors import OutputError
from vhdx2raw.output.null import NullSink
from vhdx2raw.output.stream import StreamSink


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Give both ends of a pipe, the reading one first."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "wb") as stream:
        yield source, stream


def test_a_stream_takes_the_disk_in_order(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    source, stream = pipe
    sink = StreamSink(stream)
    sink.write(0, memoryview(b"first "))
    sink.write(6, memoryview(b"second"))
    sink.flush()
    sink.commit()
    assert source.read(100) == b"first second"


def test_compressing_stream_is_refused(tmp_path: Path) -> None:
    """Its descriptor would take the data past it, which makes a file that is no gzip."""
    with (
        gzip.open(tmp_path / "disk.gz", "wb") as stream,
        pytest.raises(TypeError, match="expected an open file or a pipe, not GzipFile"),
    ):
        StreamSink(stream)  # type: ignore[arg-type]


def test_what_a_stream_still_holds_comes_first(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    source, stream = pipe
    stream.write(b"head")
    StreamSink(stream).write(0, memoryview(b" disk"))
    assert source.read(100) == b"head disk"


@pytest.mark.parametrize("virtual_offset", [0, 2, 6])
def test_a_stream_cannot_seek(pipe: tuple[BinaryIO, BinaryIO], virtual_offset: int) -> None:
    source, stream = pipe
    sink = StreamSink(stream)
    sink.write(0, memoryview(b"data"))
    with pytest.raises(AssertionError, match="cannot seek"):
        sink.write(virtual_offset, memoryview(b"more"))
    assert source.read(100) == b"data"


def test_a_stream_has_no_holes(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    source, stream = pipe
    sink = StreamSink(stream)
    assert sink.sequential
    assert not sink.makes_holes
    assert not sink.clone(0, 0, 0, MIB)
    with pytest.raises(NotImplementedError):
        sink.zero(0, MIB)
    sink.write(0, memoryview(b"data"))
    assert source.read(100) == b"data"


def test_what_a_stream_took_in_part_is_sent_on(
    pipe: tuple[BinaryIO, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stream = pipe
    real_write = os.write

    def short_write(descriptor: int, data: memoryview) -> int:
        return real_write(descriptor, data[:3])

    monkeypatch.setattr(os, "write", short_write)
    StreamSink(stream).write(0, memoryview(b"0123456789"))
    assert source.read(100) == b"0123456789"


def test_closed_pipe_is_an_output_error(
    pipe: tuple[BinaryIO, BinaryIO],
) -> None:
    source, stream = pipe
    sink = StreamSink(stream)
    source.close()
    with pytest.raises(OutputError, match="standard output: cannot be written: Broken pipe") as one:
        sink.write(0, memoryview(b"data"))
    assert one.value.hint == "the program that reads the output has ended"


def test_full_device_is_an_output_error() -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream:
        sink = StreamSink(stream)
        with pytest.raises(OutputError, match="No space left on device"):
            sink.write(0, memoryview(b"data"))


def test_abort_does_not_call_back_what_was_sent(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    source, stream = pipe
    sink = StreamSink(stream)
    sink.write(0, memoryview(b"data"))
    sink.abort()
    assert source.read(100) == b"data"


def test_an_input_is_never_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    path.write_bytes(b"the only copy")
    status = path.stat()
    with (
        path.open("r+b") as stream,
        pytest.raises(OutputError, match="standard output: is the input itself"),
    ):
        StreamSink(stream, inputs=[(0, 0), (status.st_dev, status.st_ino)])
    assert path.read_bytes() == b"the only copy"


def test_the_null_sink_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sink = NullSink()
    assert not sink.sequential
    assert sink.makes_holes
    sink.write(0, memoryview(b"data"))
    sink.zero(4, MIB)
    assert not sink.clone(0, 0, 0, MIB)
    sink.flush()
    sink.commit()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
