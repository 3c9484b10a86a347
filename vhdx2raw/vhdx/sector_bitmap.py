"""A sector bitmap as runs of equal bits: bytes and integers only (MS-VHDX 2.4).

Bit 0 of byte 0 is the first sector. A set bit means that the sector is in the file that the
bitmap belongs to, a clear one that it is in the parent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import NamedTuple


class Run(NamedTuple):
    """Consecutive sectors that lie on the same side.

    Attributes:
        present: Whether they are in this file.
        sector_count: How many.
    """

    present: bool
    sector_count: int


@cache
def _runs_of_byte(byte: int) -> tuple[Run, ...]:
    bits = (byte >> bit & 1 for bit in range(8))
    return tuple(Run(bool(bit), len(list(group))) for bit, group in groupby(bits))


# Bitmaps are mostly long stretches of one kind, which cost one match each.
_STRETCH = re.compile(rb"\x00+|\xff+|[^\x00\xff]+", re.DOTALL)


def iter_runs(bitmap: bytes, first_bit: int, bit_count: int) -> Iterator[Run]:
    """Yield the runs that tile `bit_count` bits from `first_bit` on; neighbours differ."""
    pending = Run(present=False, sector_count=0)
    position = -first_bit
    for present, count in _iter_stretches(bitmap):
        start, end = max(position, 0), min(position + count, bit_count)
        position += count
        if start >= end:
            continue
        if present == pending.present:
            pending = Run(present, pending.sector_count + end - start)
        else:
            if pending.sector_count:
                yield pending
            pending = Run(present, end - start)
    if pending.sector_count:
        yield pending


def _iter_stretches(bitmap: bytes) -> Iterator[Run]:
    for match in _STRETCH.finditer(bitmap):
        stretch = match.group()
        if stretch[0] in (0x00, 0xFF):
            yield Run(stretch[0] == 0xFF, 8 * len(stretch))  # noqa: PLR2004
        else:
            for byte in stretch:
                yield from _runs_of_byte(byte)
