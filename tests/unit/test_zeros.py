"""Runs of zeros are what a scan byte by byte finds."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhdx2raw.zeros import MAX_BUFFER_SIZE, ZEROS, fill_zeros, is_zero, iter_runs

Run = tuple[bool, int, int]

sparse_bytes = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 255]), st.integers(1, 40)), max_size=12
).map(lambda runs: b"".join(bytes([value]) * count for value, count in runs))


def runs_by_the_byte(data: bytes, granule: int) -> list[Run]:
    """Find the runs from their definition: granules without a byte that is not zero."""
    starts = range(0, len(data), granule)
    kinds = [(not any(data[start : start + granule]), start) for start in starts]
    runs = []
    for kind, group in groupby(kinds, key=lambda pair: pair[0]):
        granules = [start for _, start in group]
        runs.append((kind, granules[0], min(granules[-1] + granule, len(data))))
    return runs


@given(sparse_bytes, st.integers(1, 64))
def test_runs_are_what_a_scan_by_the_byte_finds(data: bytes, granule: int) -> None:
    assert list(iter_runs(memoryview(data), granule)) == runs_by_the_byte(data, granule)


@given(st.binary(max_size=300), st.integers(1, 400))
def test_runs_tile_the_buffer_and_alternate(data: bytes, granule: int) -> None:
    runs = list(iter_runs(memoryview(data), granule))
    cuts = [0] + [end for _, _, end in runs]
    assert [start for _, start, _ in runs] == cuts[:-1]
    assert cuts[-1] == len(data)
    assert all(start % granule == 0 for _, start, _ in runs)
    assert all(first[0] is not second[0] for first, second in pairwise(runs))


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        (b"", []),
        (bytes(4096), [(True, 0, 4096)]),
        (b"\x01" * 4096, [(False, 0, 4096)]),
        (bytes(511) + b"\x01" + bytes(512), [(False, 0, 512), (True, 512, 1024)]),
        (bytes(512) + b"\x01", [(True, 0, 512), (False, 512, 513)]),
        (b"\x01" + bytes(511) + bytes(100), [(False, 0, 512), (True, 512, 612)]),
        (
            b"\x01" * 512 + bytes(1024) + b"\x01",
            [(False, 0, 512), (True, 512, 1536), (False, 1536, 1537)],
        ),
    ],
)
def test_runs_of_plain_buffers(data: bytes, runs: list[Run]) -> None:
    assert list(iter_runs(memoryview(data), 512)) == runs


def test_buffers_of_the_largest_size() -> None:
    buffer = bytearray(MAX_BUFFER_SIZE)
    whole = memoryview(buffer)
    assert list(iter_runs(whole, MAX_BUFFER_SIZE)) == [(True, 0, MAX_BUFFER_SIZE)]
    assert is_zero(whole)
    buffer[-1] = 1
    assert not is_zero(whole)
    assert list(iter_runs(whole, 4096)) == [
        (True, 0, MAX_BUFFER_SIZE - 4096),
        (False, MAX_BUFFER_SIZE - 4096, MAX_BUFFER_SIZE),
    ]


@pytest.mark.slow
@given(sparse_bytes)
def test_is_zero_is_no_byte_but_zero(data: bytes) -> None:
    assert is_zero(memoryview(data)) is not any(data)


def test_the_zeros_to_write_are_zeros_and_stay_so() -> None:
    assert len(ZEROS) == MAX_BUFFER_SIZE
    assert is_zero(ZEROS)
    assert ZEROS.readonly


@pytest.mark.parametrize("size", [0, 1, MAX_BUFFER_SIZE, 2 * MAX_BUFFER_SIZE + 3])
def test_filling_with_zeros_leaves_nothing_else(size: int) -> None:
    buffer = bytearray(b"\xff" * size)
    fill_zeros(memoryview(buffer))
    assert buffer == bytes(size)
