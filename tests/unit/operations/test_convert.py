"""The copy: the calls of the sink, the counts, and how it ends when something fails."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import GIB, KIB, MIB, Block, BlockState, ImageSpec
from tests.support.cli import TIMEOUT, small_disk, stored_zeros
from tests.support.files import names_in
from tests.support.memory import peak_memory
from tests.support.sinks import Call, FailingSink, RecordingSink, StopEverything, fail_at
from tests.support.sources import forget_holes
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import OutputError, TruncatedImageError
from vhdx2raw.operations.convert import ConversionResult
from vhdx2raw.output.base import Sink
from vhdx2raw.output.null import NullSink

SPARSE_SIZES = [512, 4 * KIB, 64 * KIB, MIB]
PIECE = MIB
BLOCK = 2 * PIECE
ALL_WORKERS = [1, 2, 4]


@contextmanager
def opened(folder: Path, spec: ImageSpec) -> Iterator[VirtualDisk]:
    path = folder / "disk.vhdx"
    spec.write(path)
    with open_disk(path) as disk:
        yield disk


# -- calls of the sink --------------------------------------------------------------------------


def test_every_call_of_a_conversion_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holes of the BAT come whole, stored data in pieces, its zeros by 4 KiB as holes too."""
    forget_holes(monkeypatch)
    spec = ImageSpec(
        5 * BLOCK + 512,
        BLOCK,
        {
            5: Block(content=b"the last sector".ljust(512, b".")),
            0: Block(content={4096: b"A" * 100, 16384: b"B" * 4097, PIECE - 1: b"C"}),
            2: Block(content=0),
            3: Block(BlockState.ZERO, content=0xEE, file_offset=64 * MIB),
            4: Block(content=0xFF),
        },
    )
    sink = RecordingSink()
    with opened(tmp_path, spec) as disk:
        result = convert(disk, sink, workers=1)
    assert sink.calls == [
        ("zero", 0, 4096),
        ("write", 4096, 4096),
        ("zero", 8192, 8192),
        ("write", 16384, 8192),
        ("zero", 24576, PIECE - 4096 - 24576),
        ("write", PIECE - 4096, 4096),
        ("zero", PIECE, PIECE),
        ("zero", BLOCK, BLOCK),  # not present
        ("zero", 2 * BLOCK, PIECE),  # stored zeros
        ("zero", 2 * BLOCK + PIECE, PIECE),
        ("zero", 3 * BLOCK, BLOCK),
        ("write", 4 * BLOCK, PIECE),
        ("write", 4 * BLOCK + PIECE, PIECE),
        ("write", 5 * BLOCK, 512),
        ("flush",),
        ("commit",),
    ]
    assert sink.contents(spec.virtual_disk_size) == spec.expected_disk(0, spec.virtual_disk_size)
    assert result == ConversionResult(
        5 * BLOCK + 512, 3 * BLOCK + 512, 0, 4096 + 8192 + 4096 + BLOCK + 512
    )


def test_an_empty_disk_is_one_hole(tmp_path: Path) -> None:
    sink = RecordingSink()
    with opened(tmp_path, ImageSpec(7 * MIB + 512, 2 * MIB)) as disk:
        result = convert(disk, sink)
    # Where the size is no multiple of a piece, what is left over may come apart.
    assert all(name == "zero" for name, _, _ in sink.ranges)
    assert len(sink.ranges) <= 2
    assert sink.contents(7 * MIB + 512) == bytes(7 * MIB + 512)
    assert sink.names[-2:] == ["flush", "commit"]
    assert result == ConversionResult(7 * MIB + 512, 0, 0, 0)


def striped_disk() -> ImageSpec:
    """Describe a disk with data at each of the scales between a sector and a block."""
    places = [0, 512, 5 * KIB, 60 * KIB, 64 * KIB, 200 * KIB, 700 * KIB]
    return ImageSpec(
        4 * MIB,
        MIB,
        {0: Block(content=dict.fromkeys(places, b"data")), 2: Block(content={0: b"x"}), 3: Block()},
    )


@pytest.mark.parametrize("sparse_size", SPARSE_SIZES)
def test_sparse_size_decides_on_holes(tmp_path: Path, sparse_size: int) -> None:
    """Exactly the granules of the disk that are all zero are holes."""
    spec = striped_disk()
    expected_disk = spec.expected_disk(0, spec.virtual_disk_size)
    zeros = bytes(sparse_size)
    expected = [
        expected_disk[start : start + sparse_size] == zeros
        for start in range(0, len(expected_disk), sparse_size)
    ]
    sink = RecordingSink()
    with opened(tmp_path, spec) as disk:
        result = convert(disk, sink, sparse_size=sparse_size)
    assert sink.contents(spec.virtual_disk_size) == expected_disk
    found = [
        name == "zero"
        for name, _, length in sink.ranges
        for _ in range(length // sparse_size)
        if length % sparse_size == 0
    ]
    assert found == expected
    assert result.written_bytes == expected.count(False) * sparse_size
    assert result.data_bytes == 3 * MIB


def test_sparse_size_zero_writes_everything(tmp_path: Path) -> None:
    spec = small_disk()
    sink = RecordingSink()
    with opened(tmp_path, spec) as disk:
        result = convert(disk, sink, sparse_size=0)
    assert {name for name, _, _ in sink.ranges} == {"write"}
    assert sink.contents(spec.virtual_disk_size) == spec.expected_disk(0, spec.virtual_disk_size)
    assert result == ConversionResult(spec.virtual_disk_size, 3 * MIB, 0, spec.virtual_disk_size)


@pytest.mark.parametrize("sparse_size", [0, *SPARSE_SIZES])
def test_stream_gets_everything_in_order(tmp_path: Path, sparse_size: int) -> None:
    spec = small_disk()
    sink = RecordingSink(sequential=True, makes_holes=False)
    with opened(tmp_path, spec) as disk:
        result = convert(disk, sink, sparse_size=sparse_size, workers=4)
    ranges = [call for call in sink.calls if len(call) == 3]
    assert ranges == sink.ranges
    assert {name for name, _, _ in ranges} == {"write"}
    assert sink.contents(spec.virtual_disk_size) == spec.expected_disk(0, spec.virtual_disk_size)
    assert sink.names[-2:] == ["flush", "commit"]
    assert result.written_bytes == spec.virtual_disk_size


def test_sequential_sink_gets_holes_in_order(tmp_path: Path) -> None:
    spec = small_disk()
    sink = RecordingSink(sequential=True)
    with opened(tmp_path, spec) as disk:
        convert(disk, sink, workers=4)
    assert [call for call in sink.calls if len(call) == 3] == sink.ranges
    assert "zero" in sink.names
    assert sink.contents(spec.virtual_disk_size) == spec.expected_disk(0, spec.virtual_disk_size)


def test_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    spec = striped_disk()
    results: set[ConversionResult] = set()
    ranges: list[list[tuple[str, int, int]]] = []
    with opened(tmp_path, spec) as disk:
        for workers in ALL_WORKERS:
            sink = RecordingSink()
            results.add(convert(disk, sink, workers=workers))
            ranges.append(sink.ranges)
            assert sink.contents(4 * MIB) == spec.expected_disk(0, 4 * MIB)
            assert sink.names[-2:] == ["flush", "commit"]
    assert len(results) == 1
    assert ranges[0] == ranges[1] == ranges[2]


def test_the_null_sink_counts_like_any_other(tmp_path: Path) -> None:
    """Three blocks are stored, the last one of a sector; two of their granules are not zeros."""
    with opened(tmp_path, small_disk()) as disk:
        result = convert(disk, NullSink())
    assert result == ConversionResult(5 * MIB + 512, 3 * MIB, 0, 8 * KIB + MIB)


# -- progress -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["threads", "one", "everything", "stream"])
def test_progress_ends_with_the_total(tmp_path: Path, way: str) -> None:
    """It comes in the calling thread, never goes back, and not after the output has appeared."""
    spec = small_disk()
    sink = RecordingSink(sequential=way == "stream", makes_holes=way != "stream")
    steps: list[tuple[int, int]] = []
    threads: set[threading.Thread] = set()

    def progress(done: int, total: int) -> None:
        assert "commit" not in sink.names
        steps.append((done, total))
        threads.add(threading.current_thread())

    with opened(tmp_path, spec) as disk:
        sparse_size = 0 if way == "everything" else 4096
        workers = 1 if way == "one" else 2
        convert(disk, sink, sparse_size=sparse_size, workers=workers, progress=progress)
    # Only what is stored has to be moved, unless holes have to be written too.
    total = 3 * MIB if way in ("threads", "one") else spec.virtual_disk_size
    assert {step[1] for step in steps} == {total}
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)
    assert all(0 <= done <= total for done, _ in steps)
    assert threads == {threading.current_thread()}


@pytest.mark.slow
def test_progress_comes_about_ten_times_a_second(tmp_path: Path) -> None:
    times: list[float] = []

    def slow_write(_number: int) -> None:
        time.sleep(0.1)

    with opened(tmp_path, ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block(), 3: Block()})) as disk:
        for sequential in (False, True):
            times.clear()
            started = time.monotonic()
            convert(
                disk,
                FailingSink("write", slow_write, sequential=sequential),
                workers=1,
                progress=lambda _done, _total: times.append(time.monotonic()),
            )
            seconds = time.monotonic() - started
            assert seconds >= 0.3
            assert 3 <= len(times) <= 10 * seconds + 3


# -- failures -----------------------------------------------------------------------------------


def assert_fails(
    disk: VirtualDisk, sink: RecordingSink, error: BaseException, workers: int | None = None
) -> None:
    """Convert, which raises just this error and aborts the sink as the last thing."""
    with pytest.raises(type(error)) as caught:
        convert(disk, sink, workers=workers)
    assert caught.value is error
    calls: list[Call] = list(sink.calls)
    assert calls[-1] == ("abort",)
    assert sink.names.count("abort") == 1
    assert "commit" not in sink.names
    time.sleep(0.02)
    assert sink.calls == calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [OutputError("is full"), OSError(errno.EIO, "I/O"), StopEverything()]
)
@pytest.mark.parametrize(
    ("name", "number"), [("write", 0), ("write", 5), ("zero", 2), ("flush", 0), ("commit", 0)]
)
@pytest.mark.parametrize("workers", ALL_WORKERS)
def test_failing_sink_is_aborted(
    tmp_path: Path, name: str, number: int, workers: int, error: BaseException
) -> None:
    sink = FailingSink(name, fail_at(number, error))
    with opened(tmp_path, striped_disk()) as disk:
        assert_fails(disk, sink, error, workers=workers)


@pytest.mark.parametrize("name", ["write", "flush", "commit"])
def test_failing_sequential_sink_is_aborted(tmp_path: Path, name: str) -> None:
    error = OutputError("no reader")
    with opened(tmp_path, striped_disk()) as disk:
        assert_fails(disk, FailingSink(name, fail_at(0, error), sequential=True), error)


def test_the_first_cause_is_the_one_that_is_raised(tmp_path: Path) -> None:
    """Other threads fail later, for reasons that follow from the first."""
    first = OSError(errno.EIO, "the cause")
    failed = threading.Event()

    def fail(number: int) -> None:
        if number == 0:
            failed.set()
            raise first
        assert failed.wait(TIMEOUT)
        time.sleep(0.2)
        raise OSError(errno.EBADF, "a consequence")

    with opened(tmp_path, striped_disk()) as disk:
        assert_fails(disk, FailingSink("write", fail), first, workers=4)


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True], ids=["threads", "stream"])
@pytest.mark.parametrize("call", [0, 2])
def test_failing_progress_aborts_the_sink(tmp_path: Path, call: int, *, sequential: bool) -> None:
    """A disk that takes a second or more is given up at once: after a small part of it."""
    error = StopEverything()
    sink = RecordingSink(sequential=sequential, makes_holes=True)
    fail = fail_at(call, error)
    count = -1

    def progress(_done: int, _total: int) -> None:
        nonlocal count
        count += 1
        fail(count)

    with opened(tmp_path, stored_zeros(16 * GIB)) as disk:
        with pytest.raises(StopEverything):
            convert(disk, sink, workers=2, progress=progress)
        assert sink.calls[-1] == ("abort",)
    assert count == call
    assert sum(length for _, _, length in sink.ranges) < 8 * GIB


@pytest.mark.parametrize("workers", ALL_WORKERS)
def test_file_that_shrinks_is_truncated(tmp_path: Path, workers: int) -> None:
    spec = striped_disk()
    sink = RecordingSink()
    with opened(tmp_path, spec) as disk:
        os.truncate(tmp_path / "disk.vhdx", spec.block_file_offset(3) + MIB // 2)
        with pytest.raises(TruncatedImageError) as caught:
            convert(disk, sink, workers=workers)
    assert caught.value.path == str(tmp_path / "disk.vhdx")
    assert sink.calls[-1] == ("abort",)


@pytest.mark.parametrize("sequential", [False, True], ids=["threads", "stream"])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sequential: bool
) -> None:
    def bad_disk(_descriptor: int, _buffers: list[memoryview], _offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    sink = RecordingSink(sequential=sequential)
    with opened(tmp_path, striped_disk()) as disk:
        monkeypatch.setattr(os, "preadv", bad_disk)
        with pytest.raises(OSError, match="Input/output error") as caught:
            convert(disk, sink)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(tmp_path / "disk.vhdx")
    assert sink.calls[-1] == ("abort",)


def test_missing_thread_aborts_the_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_only_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_only_one)
    sink = RecordingSink()
    with opened(tmp_path, striped_disk()) as disk, pytest.raises(OSError, match="new thread"):
        convert(disk, sink, workers=4)
    assert sink.calls[-1] == ("abort",)


# -- memory -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make_sink", [NullSink, lambda: RecordingSink(sequential=True)])
def test_memory_does_not_grow_with_the_disk(tmp_path: Path, make_sink: Callable[[], Sink]) -> None:
    with opened(tmp_path, stored_zeros(GIB // 4, b"data")) as disk:
        peak = peak_memory(lambda: convert(disk, make_sink(), workers=4))
    assert peak < 4 * MIB


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        *(
            ({"sparse_size": size}, f"sparse_size {size} is neither 0 nor a power of two")
            for size in (-1, 1, 256, 3 * KIB, 2 * MIB)
        ),
        *(({"workers": count}, f"workers must be at least 1, not {count}") for count in (0, -1)),
        ({"hash_algorithm": "crc99"}, "'crc99' is none of "),
    ],
    ids=str,
)
def test_option_out_of_range_is_refused(
    tmp_path: Path, option: dict[str, Any], problem: str
) -> None:
    """Before anything is opened or made."""
    sink = RecordingSink()
    small_disk().write(tmp_path / "disk.vhdx")
    for destination in (sink, tmp_path / "out.img"):
        with pytest.raises(ValueError, match=problem):
            convert(tmp_path / "disk.vhdx", destination, **option)
    assert sink.calls == []
    assert names_in(tmp_path) == ["disk.vhdx"]


@pytest.mark.parametrize("size", [0, 2 * KIB, 12 * KIB, 2 * MIB])
def test_impossible_piece_size_aborts_the_sink(tmp_path: Path, size: int) -> None:
    sink = RecordingSink()
    sink.piece_size = size
    with (
        opened(tmp_path, small_disk()) as disk,
        pytest.raises(ValueError, match=f"piece_size {size} of the sink is no power of two"),
    ):
        convert(disk, sink)
    assert sink.names == ["abort"]


@pytest.mark.parametrize("size", [4 * KIB, 256 * KIB, MIB])
def test_sink_gets_pieces_of_its_size(tmp_path: Path, size: int) -> None:
    sink = RecordingSink()
    sink.piece_size = size
    with opened(tmp_path, ImageSpec(2 * MIB, MIB, {0: Block(), 1: Block()})) as disk:
        convert(disk, sink)
    writes = sorted(call[1:] for call in sink.calls if call[0] == "write")
    assert writes == [(start, size) for start in range(0, 2 * MIB, size)]


def test_unreadable_sink_is_refused_for_verify(
    tmp_path: Path,
) -> None:
    sink = RecordingSink()
    with (
        opened(tmp_path, small_disk()) as disk,
        pytest.raises(ValueError, match="what goes to this sink cannot be read back"),
    ):
        convert(disk, sink, verify=True)
    assert sink.names == ["abort"]
