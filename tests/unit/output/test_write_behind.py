"""What was written is brought to storage while more is written, and then leaves the page cache."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.builder import KIB, MIB, Block, ImageSpec
from vhdx2raw import convert, host
from vhdx2raw.output.difference import DifferenceSink
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.output.write_behind import WriteBehind
from vhdx2raw.source.raw_file import RawFile

DESCRIPTOR = 1234
FIRST = (DESCRIPTOR, 0, 8 * MIB)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Give the ranges that are begun to be stored, or dropped, which is one request."""
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(host, "drop_cached", lambda *call: calls.append(call))
    return calls


def test_eight_mib_are_begun_at_once(dropped: list[tuple[int, ...]]) -> None:
    behind = WriteBehind(DESCRIPTOR)
    for start in range(0, 8 * MIB - 256 * KIB, 256 * KIB):
        behind.note(start, 256 * KIB)
    assert not dropped
    behind.note(8 * MIB - 256 * KIB, 256 * KIB)
    assert dropped == [FIRST]


def test_what_lies_between_the_writes_of_several_threads_counts_as_well(
    dropped: list[tuple[int, ...]],
) -> None:
    behind = WriteBehind(DESCRIPTOR)
    for start in (40 * MIB, 20 * MIB, 60 * MIB):
        behind.note(start, 2 * MIB)
    behind.note(30 * MIB, 2 * MIB)
    behind.note(5 * MIB, 8 * MIB)
    assert dropped == [(DESCRIPTOR, 20 * MIB, 42 * MIB), (DESCRIPTOR, 5 * MIB, 8 * MIB)]


def test_what_was_begun_long_ago_is_dropped(dropped: list[tuple[int, ...]]) -> None:
    behind = WriteBehind(DESCRIPTOR)
    for start in range(0, 80 * MIB, 8 * MIB):
        behind.note(start, 8 * MIB)
    spans = [(DESCRIPTOR, start, 8 * MIB) for start in range(0, 80 * MIB, 8 * MIB)]
    assert dropped == [*spans[:9], FIRST, spans[9], spans[1]]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["file", "difference"])
def test_bytes_are_the_same(tmp_path: Path, by: str) -> None:
    """Many spans of it, from two threads, with holes between; an update hands its sink on."""
    data = bytes(range(256)) * KIB
    path, places = tmp_path / "disk.img", range(0, 90 * MIB, 2 * len(data))
    sink = SparseFileSink(path, 100 * MIB)
    outer = DifferenceSink(sink, RawFile(sink.readable_path or "")) if by == "difference" else sink
    outer.expect_flush()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: outer.write(place, memoryview(data)), places))
    outer.flush()
    outer.commit()
    expected = bytearray(100 * MIB)
    for place in places:
        expected[place : place + len(data)] = data
    assert path.read_bytes() == expected


@pytest.mark.parametrize("sync", [True, False])
def test_only_what_is_waited_for_is_begun(
    tmp_path: Path,
    dropped: list[tuple[int, ...]],
    sync: bool,  # noqa: FBT001
) -> None:
    block = Block(content={0: bytes(range(256)) * 4 * KIB})
    ImageSpec(8 * MIB, MIB, dict.fromkeys(range(8), block)).write(tmp_path / "disk.vhdx")
    convert(tmp_path / "disk.vhdx", tmp_path / "disk.img", sync=sync)
    assert [call[1:] for call in dropped] == ([(0, 8 * MIB)] if sync else [])
