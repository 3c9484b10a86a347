"""A file with updates laid over it, held against a plain array of bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.files import open_files
from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx.overlay import OverlaySource, Updates

SECTOR = 4096
PLACES = 10
"""Sectors of the part of a file that is read and updated."""
STOCK = 6
"""Updates that the file has in stock after that part: a data sector and a descriptor each."""
STOCK_START = PLACES * SECTOR
STOCK_SIZE = SECTOR + 512

Update = tuple[str, int, int]
"""("sector", place, number in stock) or ("zeros", place, count), in sectors."""


def sector_in_stock(number: int) -> bytes:
    """Give the bytes that an update from the stock must leave."""
    return bytes([0x80 + number]) * 8 + bytes([0xC0 + number]) * (SECTOR - 12) + b"tail"


def stock() -> bytes:
    """Give data sectors and descriptors as they lie in a log."""
    pieces = []
    for number in range(STOCK):
        sector = sector_in_stock(number)
        pieces.append(b"data\0\0\0\0" + sector[8:-4] + b"\1\0\0\0")
        pieces.append((b"desc" + sector[-4:] + sector[:8]).ljust(512, b"\xdd"))
    return b"".join(pieces)


def raw_file(extra: int = 0) -> bytes:
    """Give a file no byte of whose first part is zero; `extra` bytes follow the stock."""
    return b"".join(bytes([n + 1]) * SECTOR for n in range(PLACES)) + stock() + b"\xee" * extra


def apply(raw: bytes, updates: list[Update], size: int) -> bytes:
    """Give the file as it must read after the updates."""
    model = bytearray(raw.ljust(size, b"\0"))
    for kind, place, number in updates:
        start = place * SECTOR
        if kind == "sector":
            model[start : start + SECTOR] = sector_in_stock(number)
        else:
            model[start : start + number * SECTOR] = bytes(number * SECTOR)
    return bytes(model)


@contextmanager
def overlay(
    path: Path, raw: bytes, updates: list[Update], growth: int = 0
) -> Iterator[OverlaySource]:
    """Write a file and lay updates over it."""
    path.write_bytes(raw)
    source = FileSource(path)
    laid = Updates()
    for kind, place, number in updates:
        if kind == "sector":
            data = STOCK_START + number * STOCK_SIZE
            laid.add_sector(place * SECTOR, data, data + SECTOR)
        else:
            laid.add_zeros(place * SECTOR, number * SECTOR)
    try:
        yield OverlaySource(source, laid, max(source.size, laid.end) + growth)
    finally:
        source.close()


BEYOND = PLACES + 7 + 4
"""A place far enough past the end of the file."""
UPDATES = st.lists(
    st.one_of(
        st.tuples(st.just("sector"), st.integers(0, PLACES - 1), st.integers(0, STOCK - 1)),
        st.tuples(st.just("sector"), st.integers(BEYOND, BEYOND + 4), st.integers(0, STOCK - 1)),
        st.tuples(st.just("zeros"), st.integers(0, PLACES - 1), st.just(0)),
        st.integers(0, PLACES - 1).flatmap(
            lambda place: st.tuples(
                st.just("zeros"), st.just(place), st.integers(1, PLACES - place)
            )
        ),
        st.tuples(st.just("zeros"), st.integers(BEYOND, BEYOND + 4), st.integers(1, 4)),
    ),
    max_size=14,
)


@st.composite
def reads(draw: st.DrawFn, size: int) -> tuple[int, int]:
    """Give a range in a file of `size` bytes, often with ends near those of sectors."""
    near = st.builds(
        lambda place, shift: max(0, min(size, place * SECTOR + shift)),
        st.integers(0, size // SECTOR),
        st.sampled_from([-1, 0, 1]),
    )
    first, second = draw(st.tuples(*[st.one_of(near, st.integers(0, size))] * 2))
    return min(first, second), abs(second - first)


def touched_by(updates: list[Update], size: int, file_size: int) -> bytes:
    """Give a byte for each byte of the file: 1 where an update or the growth has changed it."""
    touched = bytearray(size)
    touched[file_size:] = b"\1" * (size - file_size)
    for kind, place, number in updates:
        length = SECTOR if kind == "sector" else number * SECTOR
        touched[place * SECTOR : place * SECTOR + length] = b"\1" * length
    return bytes(touched)


def assert_reads_as(source: OverlaySource, model: bytes, start: int, length: int) -> None:
    """Read a range in every way."""
    expected = model[start : start + length]
    assert source.pread(start, length) == expected
    buffer = bytearray(b"\x55" * (length + 2))
    with memoryview(buffer) as view:
        source.pread_into(start, view[1:-1])
    assert buffer == b"\x55" + expected + b"\x55"


def assert_in_file(source: OverlaySource, touched: bytes, start: int, length: int) -> None:
    """Compare the parts that may be handed to the kernel: in order, and nothing that changed."""
    seen = bytearray(b"\1" * length)
    end = start
    for place, count in source.iter_in_file(start, length):
        assert place >= end
        assert count > 0
        end = place + count
        seen[place - start : end - start] = bytes(count)
    assert seen == touched[start : start + length]


def made_zero_by(updates: list[Update], size: int, file_size: int) -> bytes:
    """Give a byte for each byte: 1 where it is zero past the real end of the file."""
    zero = bytearray(size)
    zero[file_size:] = b"\1" * (size - file_size)
    for kind, place, number in updates:
        length, value = (SECTOR, b"\0") if kind == "sector" else (number * SECTOR, b"\1")
        zero[place * SECTOR : place * SECTOR + length] = value * length
    return bytes(file_size) + bytes(zero[file_size:])


def assert_stored(source: OverlaySource, zero: bytes, start: int, length: int) -> None:
    """Compare the stored parts, which must not touch, with all that did not become zeros."""
    seen = bytearray(b"\1" * length)
    end = start - 1
    for place, count in source.iter_stored(start, length):
        assert place > end
        assert count > 0
        end = place + count
        seen[place - start : end - start] = bytes(count)
    assert seen == zero[start : start + length]


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_overlay_reads_like_a_changed_copy(data: st.DataObject) -> None:
    updates = data.draw(UPDATES, "updates")
    raw = raw_file(extra=data.draw(st.sampled_from([0, 1, SECTOR, SECTOR + 512]), "extra"))
    growth = data.draw(st.sampled_from([0, 1, SECTOR, 3 * SECTOR + 5]), "growth")
    with TemporaryDirectory() as name, overlay(Path(name) / "f", raw, updates, growth) as source:
        model = apply(raw, updates, source.size)
        touched = touched_by(updates, source.size, len(raw))
        zero = made_zero_by(updates, source.size, len(raw))
        ranges = [data.draw(reads(source.size)) for _ in range(12)]
        for start, length in [(0, source.size), *ranges]:
            assert_reads_as(source, model, start, length)
            assert_in_file(source, touched, start, length)
            assert_stored(source, zero, start, length)


# -- examples --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_updates_end_with_the_farthest_of_them() -> None:
    """Whichever comes last; zeros without length are nowhere."""
    updates = Updates()
    assert updates.end == 0
    for place, end in [(5, 6), (2, 6), (7, 8)]:
        updates.add_sector(place * SECTOR, 0, 0)
        assert updates.end == end * SECTOR
    for place, end in [(3, 8), (9, 10), (0, 10)]:
        updates.add_zeros(place * SECTOR, SECTOR)
        assert updates.end == end * SECTOR
    updates.add_sector(4 * SECTOR, 0, 0)
    updates.add_zeros(20 * SECTOR, 0)
    assert updates.end == 10 * SECTOR


def test_later_update_wins(path: Path) -> None:
    updates = [("sector", 1, 0), ("zeros", 0, 3), ("sector", 2, 1), ("sector", 2, 2)]
    with overlay(path, raw_file(), updates) as source:
        assert source.pread(0, 2 * SECTOR) == bytes(2 * SECTOR)
        assert source.pread(2 * SECTOR, SECTOR) == sector_in_stock(2)


def test_later_short_zeros_cover_only_their_range(path: Path) -> None:
    """The later of two ranges that begin together ends first; a sector lies after its end."""
    updates = [("zeros", 0, 5), ("sector", 1, 0), ("sector", 3, 1), ("zeros", 0, 2)]
    with overlay(path, raw_file(), updates) as source:
        assert source.pread(0, 3 * SECTOR) == bytes(3 * SECTOR)
        assert source.pread(3 * SECTOR, SECTOR) == sector_in_stock(1)
        assert source.pread(4 * SECTOR, SECTOR) == bytes(SECTOR)


def test_zeros_elsewhere_do_not_touch_what_is_read(path: Path) -> None:
    """Neither those before the range, nor those after it, nor those that only meet it."""
    start, length = 3 * SECTOR, 5 * SECTOR
    updates = [
        ("zeros", 0, 1),
        ("zeros", 1, 1),
        ("zeros", 8, 1),
        ("sector", 1, 0),
        ("sector", 9, 1),
    ]
    with overlay(path, raw_file(), updates) as source:
        assert source.pread(start, length) == raw_file()[start : start + length]
        assert list(source.iter_in_file(start, length)) == [(start, length)]


def test_sector_is_read_in_parts(path: Path) -> None:
    """Where the leading bytes, the data and the trailing bytes meet."""
    sector = sector_in_stock(3)
    with overlay(path, raw_file(), [("sector", 4, 3)]) as source:
        for start, length in [(0, 8), (7, 2), (8, 1), (4091, 1), (4091, 2), (4092, 4), (0, 4096)]:
            assert source.pread(4 * SECTOR + start, length) == sector[start : start + length]
        around = source.pread(4 * SECTOR - 1, SECTOR + 2)
    assert around == b"\x04" + sector + b"\x06"


def test_growth_reads_as_zeros(path: Path) -> None:
    raw = raw_file(extra=7)
    with overlay(path, raw, [], growth=100) as source:
        assert source.size == len(raw) + 100
        assert source.pread(len(raw) - 1, 101) == b"\xee" + bytes(100)
        assert list(source.iter_in_file(len(raw) - 3, 10)) == [(len(raw) - 3, 3)]
        assert list(source.iter_in_file(len(raw), 100)) == []


def test_untouched_range_is_in_the_file_as_a_whole(path: Path) -> None:
    with overlay(path, raw_file(), [("sector", 0, 0), ("zeros", 9, 1)]) as source:
        assert list(source.iter_in_file(SECTOR, 8 * SECTOR)) == [(SECTOR, 8 * SECTOR)]
        assert list(source.iter_in_file(SECTOR + 1, 0)) == []


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (-1, 2), (0, 1 << 20), (1 << 62, 1), ((1 << 64) - 1, 1), (1, 0)]
)
def test_read_past_the_end_names_the_end(start: int, length: int, path: Path) -> None:
    """`start` counts from the end of the grown file."""
    with overlay(path, raw_file(), [("sector", 2, 0)], growth=10) as source:
        text = f"{length} bytes are needed here: found end of file at {source.size:#x}"
        for read in (
            lambda: source.pread(source.size + start, length),
            lambda: source.pread_into(source.size + start, memoryview(bytearray(length))),
        ):
            with pytest.raises(TruncatedImageError, match=text) as caught:
                read()
            assert caught.value.finding.rule == "R3"
            assert caught.value.path == str(path)


def test_read_of_more_than_any_memory_is_refused(path: Path) -> None:
    with (
        overlay(path, raw_file(), [("sector", 2, 0)]) as source,
        pytest.raises(TruncatedImageError, match="ends too early") as caught,
    ):
        source.pread(0, 1 << 62)
    assert caught.value.finding.rule == "R3"


def test_overlay_is_called_like_its_file(path: Path) -> None:
    with overlay(path, raw_file(), [("zeros", 0, 1)]) as source:
        status = path.stat()
        assert source.name == str(path)
        assert source.identity == (status.st_dev, status.st_ino)
        assert source.size == len(raw_file())


def test_closing_closes_the_file_once(path: Path) -> None:
    with overlay(path, raw_file(), []) as source:
        before = open_files()
        source.close()
        source.close()
        assert len(before - open_files()) == 1
        with pytest.raises(OSError, match="Bad file descriptor"):
            source.pread(0, 1)


def test_file_cut_meanwhile_is_truncated_and_not_zeros(path: Path) -> None:
    """The growth of a log is no excuse for bytes that were there when the file was opened."""
    with overlay(path, raw_file(), [("sector", 2, 0)], growth=SECTOR) as source:
        os.truncate(path, SECTOR)
        with pytest.raises(TruncatedImageError, match="found end of file at 0x1000") as caught:
            source.pread(0, 2 * SECTOR)
        assert caught.value.finding.rule == "R3"
