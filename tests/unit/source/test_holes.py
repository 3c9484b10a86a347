"""Holes of a file: what the host says of them, and where that is not asked or not believed."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builder import (
    DEFAULT_LOG_GUID,
    KIB,
    MIB,
    Block,
    BlockState,
    DataDescriptorSpec,
    ImageSpec,
    LogEntrySpec,
    LogSpec,
    child_of,
)
from tests.support.sources import forget_holes
from vhdx2raw import convert, host
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.source.file import HOLE_SIZE, FileSource
from vhdx2raw.source.file_object import FileObjectSource
from vhdx2raw.vhdx.overlay import OverlaySource, Updates

SIZE = 4 * MIB


def sparse_file(path: Path, data: dict[int, bytes], size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for place, content in data.items():
            file.seek(place)
            file.write(content)
    return path


def test_a_long_hole_is_left_out(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "file", {MIB: b"x" * 4096, 3 * MIB: b"y"})
    with FileSource(path) as source:
        assert list(source.iter_without_holes(0, SIZE)) == [
            (MIB, HOLE_SIZE),
            (3 * MIB, HOLE_SIZE),
        ]
        assert list(source.iter_without_holes(2 * MIB, 512 * KIB)) == []
        assert list(source.iter_without_holes(MIB + 100, 1000)) == [(MIB + 100, 1000)]


def test_a_short_hole_is_read(tmp_path: Path) -> None:
    places = dict.fromkeys(range(0, MIB, HOLE_SIZE // 2), b"x")
    with FileSource(sparse_file(tmp_path / "file", places, MIB)) as source:
        assert list(source.iter_without_holes(0, MIB)) == [(0, MIB)]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    places=st.sets(st.integers(0, SIZE // 4096 - 1), max_size=8),
    start=st.integers(0, SIZE),
    length=st.integers(0, SIZE),
)
def test_all_that_is_left_out_is_zeros(
    tmp_path_factory: pytest.TempPathFactory, places: set[int], start: int, length: int
) -> None:
    length = min(length, SIZE - start)
    path = tmp_path_factory.mktemp("holes") / "file"
    sparse_file(path, {place * 4096: b"data" for place in places})
    content = bytearray(path.read_bytes()[start : start + length])
    done = start
    with FileSource(path) as source:
        for place, count in source.iter_without_holes(start, length):
            assert done <= place
            assert count > 0
            done = place + count
            content[place - start : done - start] = bytes(count)
    assert done <= start + length
    path.unlink()
    assert not any(content)


def test_the_host_is_asked_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse_file(tmp_path / "file", dict.fromkeys(range(0, SIZE, 8192), b"x"))
    calls: list[int] = []
    find_data = host.find_data

    def counted(descriptor: int, start: int, size: int) -> tuple[int, int] | None:
        calls.append(start)
        return find_data(descriptor, start, size)

    monkeypatch.setattr(host, "find_data", counted)
    with FileSource(path) as source:
        assert list(source.iter_without_holes(0, SIZE)) == [(0, SIZE)]
    assert len(calls) <= SIZE // HOLE_SIZE


def test_one_answer_serves_all_blocks_of_a_full_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    calls: list[int] = []

    def find_data(_descriptor: int, start: int, size: int) -> tuple[int, int]:
        calls.append(start)
        return 0, size

    monkeypatch.setattr(host, "find_data", find_data)
    with FileSource(path) as source:
        for place in (3 * MIB, MIB, 0, 2 * MIB):
            assert list(source.iter_without_holes(place, MIB)) == [(place, MIB)]
    assert calls == [3 * MIB]


def test_where_holes_are_unknown_all_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_holes(monkeypatch)
    with FileSource(sparse_file(tmp_path / "file", {})) as source:
        assert list(source.iter_without_holes(0, SIZE)) == [(0, SIZE)]


def test_past_the_end_of_a_file_that_shrank_is_no_hole(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "file", {})
    with FileSource(path) as source:
        os.truncate(path, MIB)
        assert list(source.iter_without_holes(0, SIZE)) == [(0, SIZE)]


def test_a_file_object_has_no_holes() -> None:
    source = FileObjectSource(io.BytesIO(bytes(MIB)))
    assert list(source.iter_without_holes(0, MIB)) == [(0, MIB)]


def test_what_a_log_has_changed_is_no_hole(tmp_path: Path) -> None:
    """The sector lies in the log, and nothing but a hole where it belongs."""
    path = sparse_file(tmp_path / "file", {0: b"data" * 2048})
    updates = Updates()
    updates.add_sector(2 * MIB, 0, 4096)
    updates.add_zeros(3 * MIB, 8192)
    overlay = OverlaySource(FileSource(path), updates, SIZE + MIB)
    with overlay:
        parts = list(overlay.iter_without_holes(MIB, SIZE))
    assert parts == [(2 * MIB, 4096), (3 * MIB, 8192), (SIZE, MIB)]


def test_a_block_whose_data_is_in_the_log_is_converted(tmp_path: Path) -> None:
    spec = ImageSpec(2 * MIB, MIB, {0: Block(content=0), 1: Block(content=0)})
    spec.log_guid = DEFAULT_LOG_GUID
    sector = DataDescriptorSpec(spec.block_file_offset(1) + 512 * KIB, b"\xaa" * 4096)
    spec.log = LogSpec([LogEntrySpec(0, 1, [sector])])
    spec.write(tmp_path / "disk.vhdx")
    convert(tmp_path / "disk.vhdx", tmp_path / "disk.img")
    expected = bytearray(2 * MIB)
    expected[MIB + 512 * KIB : MIB + 516 * KIB] = b"\xaa" * 4096
    is_right = (tmp_path / "disk.img").read_bytes() == expected
    assert is_right


@pytest.mark.parametrize("sparse_size", [0, 4096])
def test_counts_are_the_same_with_and_without_known_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse_size: int
) -> None:
    ImageSpec(4 * MIB, MIB, {0: Block(content={5: b"x"}), 2: Block(content=0)}).write(
        tmp_path / "disk.vhdx"
    )
    calls: list[tuple[int, int]] = []
    known = convert(
        tmp_path / "disk.vhdx",
        tmp_path / "known.img",
        sparse_size=sparse_size,
        progress=lambda *call: calls.append(call),
    )
    forget_holes(monkeypatch)
    unknown = convert(tmp_path / "disk.vhdx", tmp_path / "unknown.img", sparse_size=sparse_size)
    assert known == unknown
    assert calls[-1][0] == calls[-1][1] == (4 * MIB if sparse_size == 0 else 2 * MIB)
    assert (tmp_path / "known.img").read_bytes() == (tmp_path / "unknown.img").read_bytes()


# -- one read into several buffers, and reading ahead ------------------------------------------


def test_a_scattered_read_fills_every_buffer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 16)
    buffers = [memoryview(bytearray(size)) for size in (3, 0, 700, 1)]
    updates = Updates()
    for source in (FileSource(path), OverlaySource(FileSource(path), updates, 4096)):
        with source:
            source.pread_scattered(100, buffers)
        assert b"".join(buffers) == path.read_bytes()[100:804]
    with path.open("rb") as file:
        FileObjectSource(file).pread_scattered(200, buffers)
    assert b"".join(buffers) == path.read_bytes()[200:904]


def test_a_scattered_read_past_the_end_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    buffers = [memoryview(bytearray(300)), memoryview(bytearray(300))]
    with FileSource(path) as source:
        with pytest.raises(TruncatedImageError, match="600 bytes are needed here"):
            source.pread_scattered(500, buffers)
        os.truncate(path, 700)
        with pytest.raises(TruncatedImageError, match="ends too early"):
            source.pread_scattered(200, buffers)


def test_a_short_scattered_read_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef" * 100)
    monkeypatch.setattr(host, "pread_scattered", lambda *_: 10)
    buffers = [memoryview(bytearray(300)), memoryview(bytearray(300))]
    with FileSource(path) as source:
        source.pread_scattered(0, buffers)
    assert b"".join(buffers) == b"abcdef" * 100


def test_a_failed_scattered_read_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(host, "pread_scattered", fail)
    with FileSource(path) as source, pytest.raises(OSError, match="Input/output") as caught:
        source.pread_scattered(0, [memoryview(bytearray(10))] * 2)
    assert caught.value.filename == str(path)


def test_reading_ahead_asks_for_what_does_not_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageSpec(8 * MIB, MIB, {index: Block() for index in (3, 0, 7, 1)})
    spec.write(tmp_path / "disk.vhdx")
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(host, "prefetch", lambda _, *place: calls.append(place))
    convert(tmp_path / "disk.vhdx", tmp_path / "disk.img", workers=1)
    asked = {byte for start, length in calls for byte in range(start, start + length, 4096)}
    for index in spec.blocks:
        start = spec.block_file_offset(index)
        assert set(range(start, start + MIB, 4096)) <= asked


@pytest.mark.parametrize("step", [4096, 64 * 1024])
def test_files_that_are_read_in_turn_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of each, only the first few MiB are asked for; then the host knows."""
    parent = ImageSpec(32 * MIB, 2 * MIB, dict.fromkeys(range(16), Block()), tag="parent")
    bits = {sector for sector in range(4096) if sector * 512 // step % 2}
    block = Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)
    child = child_of(
        parent, ".\\parent.vhdx", block_size=2 * MIB, blocks=dict.fromkeys(range(16), block)
    )
    parent.write(tmp_path / "parent.vhdx")
    child.write(tmp_path / "child.vhdx")
    asked: Counter[int] = Counter()
    monkeypatch.setattr(host, "prefetch", lambda file, _, length: asked.update({file: length}))
    convert(tmp_path / "child.vhdx", tmp_path / "disk.img", workers=1)
    assert len(asked) == 2
    assert all(0 < size < 6 * MIB for size in asked.values())


def test_reading_ahead_of_an_overlay_ends_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(host, "prefetch", lambda _, *place: calls.append(place))
    path = sparse_file(tmp_path / "file", {}, MIB)
    with OverlaySource(FileSource(path), Updates(), 2 * MIB) as overlay:
        overlay.prefetch(MIB - 100, 200)
        overlay.prefetch(MIB, 200)
    assert calls == [(MIB - 100, 100)]


def test_a_refused_request_to_read_ahead_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageSpec(4 * MIB, MIB, {index: Block() for index in (3, 0, 1)})
    spec.write(tmp_path / "disk.vhdx")
    refused: list[tuple[int, ...]] = []

    def refuse(_descriptor: int, *request: int) -> None:
        refused.append(request)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    convert(tmp_path / "disk.vhdx", tmp_path / "disk.img")
    assert refused
    is_right = (tmp_path / "disk.img").read_bytes() == spec.expected_disk(0, 4 * MIB)
    assert is_right
