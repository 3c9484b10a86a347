"""What to put into a field: the numbers at which programs go wrong."""

from __future__ import annotations

import random

from tests.fuzz.bases import Member
from tests.fuzz.sparse import SparseFile
from tests.support.builder import KIB, MIB, TIB

STEPS = (1, 2, 8, 512, 4 * KIB, 64 * KIB, MIB, 2 * MIB, 256 * MIB)
"""Differences that matter: bytes, sectors, pages, blocks."""
LIMITS = (
    *(1 << n for n in (3, 12, 15, 16, 19, 20, 23, 28, 30, 31, 32, 40, 46, 48, 52, 62, 63, 64)),
    64 * TIB,
    256 * TIB,
    2047,
    256,
    0xFFFF8,
)


def interesting(
    random_source: random.Random, member: Member, file: SparseFile, size: int, current: int
) -> int:
    """Give a value of `size` bytes for a field that holds `current`."""
    top = 1 << 8 * size
    kind = random_source.randrange(8)
    if kind == 0:
        value = random_source.choice((0, 1, 2, 3, 4, 7, top - 1, top - 2, top // 2, top // 2 - 1))
    elif kind == 1:
        value = current + random_source.choice((-1, 1)) * random_source.choice(STEPS)
    elif kind == 2:
        value = current ^ 1 << random_source.randrange(8 * size)
    elif kind == 3:
        value = random_source.choice(LIMITS) + random_source.choice((-1, 0, 0, 1))
    elif kind == 4:
        other = random_source.choice(member.fields)
        value = int.from_bytes(file.read(other.offset, other.size), "little")
    elif kind == 5:
        value = valid_offset(random_source, file) + random_source.choice((0, 0, 0, 6, 7, 1))
    elif kind == 6:
        value = file.size + random_source.choice((-1, 0, 1)) * random_source.choice(STEPS)
    else:
        value = random_source.getrandbits(8 * size)
    return value % top


def valid_offset(random_source: random.Random, file: SparseFile) -> int:
    """Give an offset at which a region or a block could lie."""
    return random_source.randrange(1 + file.size // MIB) * MIB
