"""Bits to runs: the definition, as a property."""

from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vhdx2raw.vhdx.sector_bitmap import Run, iter_runs

# Stretches of one byte, as in real bitmaps, and bytes of any kind between them.
BITMAPS = st.lists(
    st.one_of(
        st.builds(
            lambda byte, count: byte * count, st.sampled_from([b"\0", b"\xff"]), st.integers(1, 40)
        ),
        st.binary(min_size=1, max_size=6),
        st.sampled_from([b"\n", b"\x0f", b"\xf0", b"\x5f", b"\x80", b"\x01"]),
    ),
    max_size=8,
).map(b"".join)


def bits_of(bitmap: bytes) -> list[bool]:
    """Give the bits one by one, the least significant first."""
    return [bool(byte & 1 << bit) for byte in bitmap for bit in range(8)]


def runs_of(bits: list[bool]) -> list[Run]:
    """Give the runs of a list of bits."""
    return [Run(bit, len(list(group))) for bit, group in groupby(bits)]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """Give a bitmap, a first bit in its first byte, and a count of bits that it has."""
    bitmap = draw(BITMAPS)
    first_bit = draw(st.integers(0, min(7, 8 * len(bitmap))))
    return bitmap, first_bit, draw(st.integers(0, 8 * len(bitmap) - first_bit))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(ranges())
@example((b"\x0f\x00", 4, 12))
@example((b"\x5f", 4, 3))
@example((b"\xff\n\xff", 3, 18))
def test_runs_are_the_runs_of_the_bits(where: tuple[bytes, int, int]) -> None:
    bitmap, first_bit, bit_count = where
    runs = list(iter_runs(bitmap, first_bit, bit_count))
    assert runs == runs_of(bits_of(bitmap)[first_bit : first_bit + bit_count])
    assert sum(run.sector_count for run in runs) == bit_count
    assert all(run.sector_count > 0 for run in runs)
    assert all(before.present is not after.present for before, after in pairwise(runs))


@pytest.mark.parametrize("first_bit", range(8))
def test_every_byte_from_every_bit_on(first_bit: int) -> None:
    for byte in range(256):
        bitmap = bytes([byte])
        for bit_count in range(9 - first_bit):
            expected = runs_of(bits_of(bitmap)[first_bit : first_bit + bit_count])
            assert list(iter_runs(bitmap, first_bit, bit_count)) == expected


@pytest.mark.parametrize(
    ("bitmap", "first_bit", "bit_count", "expected"),
    [
        (b"\x0f\x00", 4, 12, [(False, 12)]),
        (b"\x5f", 4, 3, [(True, 1), (False, 1), (True, 1)]),
        (b"\x5f", 0, 8, [(True, 5), (False, 1), (True, 1), (False, 1)]),
        (
            b"\x05" + bytes(255) + b"\x80",
            0,
            2056,
            [(True, 1), (False, 1), (True, 1), (False, 2052), (True, 1)],
        ),
        (b"\xff\xff", 7, 2, [(True, 2)]),
        (b"\xff\x00", 0, 8, [(True, 8)]),
        (b"", 0, 0, []),
        (b"\xff", 3, 0, []),
    ],
)
def test_known_bitmaps(
    bitmap: bytes, first_bit: int, bit_count: int, expected: list[tuple[bool, int]]
) -> None:
    assert list(iter_runs(bitmap, first_bit, bit_count)) == expected


def test_whole_bitmap_block_of_one_kind_is_one_run() -> None:
    """A MiB of equal bits, and the same with its last bit turned."""
    count = 8 << 20
    assert list(iter_runs(b"\xff" * (1 << 20), 0, count)) == [(True, count)]
    bitmap = bytes((1 << 20) - 1) + b"\x80"
    assert list(iter_runs(bitmap, 0, count)) == [(False, count - 1), (True, 1)]
