"""Which parts of a buffer are zero: bytes only.

The tests run at the speed of memory: `bytes.startswith` is a `memcmp`, while comparing a
memoryview with `==` looks at one byte at a time. A granule can only be zero if its first byte is,
so a slice with a stride finds where zeros may begin without an object for each granule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vhdx2raw.units import MIB

MAX_BUFFER_SIZE: Final = MIB
ZEROS: Final = memoryview(bytes(MAX_BUFFER_SIZE))
"""Zeros to write, or to compare with."""


def is_zero(buffer: memoryview) -> bool:
    """Return whether every byte of `buffer` (at most `MAX_BUFFER_SIZE` of them) is zero."""
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
    do not fill a granule count as data. `buffer` has at most `MAX_BUFFER_SIZE` bytes.
    """
    size = len(buffer)
    first_bytes = bytes(buffer[::granule])
    done = 0
    index = first_bytes.find(0)
    while index >= 0:
        start = index * granule
        end = _end_of_zeros(buffer, start, granule)
        if start < end:
            if done < start:
                yield False, done, start
            yield True, start, end
            done = end
        # Where the zeros end there is a granule of data, unless it is the end of everything.
        index = first_bytes.find(0, end // granule + 1)
    if done < size:
        yield False, done, size


def _end_of_zeros(buffer: memoryview, start: int, granule: int) -> int:
    """Return where the zeros end that begin at `start`, in whole granules.

    Looks at twice as much each time, and then at half as much, so that a long run takes a few
    comparisons and not one for each granule.
    """
    size = len(buffer)
    span = granule
    while start < size and is_zero(buffer[start : start + span]):
        start = min(start + span, size)
        span *= 2
    while start < size and span > granule:
        span //= 2
        if is_zero(buffer[start : start + span]):
            start += span
    return start
