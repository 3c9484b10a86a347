"""Which parts of a buffer are zero: bytes only.

The tests run at the speed of memory: `bytes.startswith` is a `memcmp`, while comparing a
memoryview with `==` looks at one byte at a time. A granule can only be zero if its first byte is,
so a slice with a stride finds the candidates without an object for each granule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vhdx2raw.structures import MIB

MAX_BUFFER_SIZE: Final = MIB
ZEROS: Final = memoryview(bytes(MAX_BUFFER_SIZE))
"""Zeros to write, or to compare with."""


def is_zero(buffer: memoryview) -> bool:
    """Tell whether every byte of `buffer` (at most `MAX_BUFFER_SIZE` of them) is zero."""
    return _ZERO_BYTES.startswith(buffer)


_ZERO_BYTES: Final = bytes(MAX_BUFFER_SIZE)


def fill_zeros(buffer: memoryview) -> None:
    """Make every byte of `buffer`, of any length, zero."""
    for start in range(0, len(buffer), MAX_BUFFER_SIZE):
        piece = buffer[start : start + MAX_BUFFER_SIZE]
        piece[:] = ZEROS[: len(piece)]


def iter_runs(buffer: memoryview, granule: int) -> Iterator[tuple[bool, int, int]]:
    """Yield (is zero, start, end) for the runs that tile `buffer`, in bytes.

    Runs alternate between the two kinds and are cut at multiples of `granule` bytes. Zeros that
    do not fill a granule count as data.
    """
    size = len(buffer)
    if size and is_zero(buffer):
        yield True, 0, size
        return
    first_bytes = bytes(buffer[::granule])
    done = 0  # where the current run of data begins
    zero_start = 0  # where the run of zeros before it begins
    index = first_bytes.find(0)
    while index >= 0:
        start = index * granule
        if is_zero(buffer[start : start + granule]):
            if done < start:
                if zero_start < done:
                    yield True, zero_start, done
                yield False, done, start
                zero_start = start
            done = min(start + granule, size)
        index = first_bytes.find(0, index + 1)
    if zero_start < done:
        yield True, zero_start, done
    if done < size:
        yield False, done, size
