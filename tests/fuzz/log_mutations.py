"""Ways to spoil a log so that it still makes sense, or almost: checksums are repaired later."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.fuzz.bases import Member
from tests.fuzz.fields import in_ring
from tests.fuzz.sparse import PAGE, SparseFile
from tests.fuzz.values import interesting, valid_offset
from tests.support.builder import KIB, MIB, ZERO_GUID
from tests.support.builder.layout import HEADER_OFFSETS

LOG_GUID = b"\x4c" * 16
BITS_64 = 1 << 64


def renumber(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Give one or all entries other numbers, their descriptors and data sectors too."""
    places = entry_places(member, file)
    if not places:
        return invent_entries(chance, member, file)
    number = int.from_bytes(file.read(places[0] + 16, 8), "little")
    shift = interesting(chance, member, file, 8, number) - number
    chosen = places if chance.randrange(2) else [chance.choice(places)]
    for place in chosen:
        _set_number(member, file, place, shift)
    return f"the numbers of {len(chosen)} log entries change by {shift:#x}"


def _set_number(member: Member, file: SparseFile, place: int, shift: int) -> None:
    length, _, number, count = struct.unpack("<IIQI", file.read(place + 8, 20))
    number = (number + shift) % BITS_64
    file.write(place + 16, number.to_bytes(8, "little"))
    start = place - member.spec.log_offset
    for index in range(min(count, 300)):
        at = in_ring(member.spec, start + 64 + 32 * index)
        file.write(at + 24, number.to_bytes(8, "little"))
    for position in range(start + PAGE, start + min(length, 64 * PAGE), PAGE):
        at = in_ring(member.spec, position)
        if file.read(at, 4) == b"data":
            file.write(at + 4, (number >> 32).to_bytes(4, "little"))
            file.write(at + PAGE - 4, (number % (1 << 32)).to_bytes(4, "little"))


def move_entry(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Copy an entry to another place of the ring, with or without its tail."""
    places = entry_places(member, file)
    if not places:
        return invent_entries(chance, member, file)
    place = chance.choice(places)
    length = min(64 * PAGE, int.from_bytes(file.read(place + 8, 4), "little"))
    start = place - member.spec.log_offset
    ring = [in_ring(member.spec, start + at) for at in range(0, length, PAGE)]
    pages = [file.read(at, PAGE) for at in ring]
    target = chance.randrange(member.spec.log_length // PAGE) * PAGE
    for index, page in enumerate(pages):
        file.write(in_ring(member.spec, target + index * PAGE), page)
    if chance.randrange(2):
        file.write(in_ring(member.spec, target) + 12, target.to_bytes(4, "little"))
    return f"the log entry at {place:#x} stands at {target:#x} of the ring too"


def invent_entries(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Write a run of new entries that update tables, bitmaps and payload; the file is dirty."""
    guid = _make_dirty(file)
    position = chance.randrange(member.spec.log_length // PAGE) * PAGE
    number = chance.choice((1, 100, (1 << 32) - 1, (1 << 64) - 2, chance.getrandbits(48) + 1))
    tail, count = position, chance.choice((1, 1, 2, 3, 20))
    ends = (
        chance.choice((0, file.size, file.size + MIB)),
        chance.choice((file.size, 1 << 45, 1 << 63)),
    )
    for _ in range(count):
        entry = _make_entry(chance, member, file, (tail, number % BITS_64, guid, *ends))
        for at in range(0, len(entry), PAGE):
            file.write(in_ring(member.spec, position + at), entry[at : at + PAGE])
        position += len(entry)
        number += 1
    return f"{count} new log entries up to {position:#x}, the last one is {number - 1:#x}"


def _make_dirty(file: SparseFile) -> bytes:
    """Give both headers a log GUID, unless they have one."""
    for offset in HEADER_OFFSETS:
        if file.read(offset + 48, 16) == ZERO_GUID.bytes:
            file.write(offset + 48, LOG_GUID)
    return file.read(HEADER_OFFSETS[1] + 48, 16)


def _make_entry(
    chance: random.Random,
    member: Member,
    file: SparseFile,
    facts: tuple[int, int, bytes, int, int],
) -> bytes:
    """Make an entry of its tail, number, GUID, flushed and last file offset."""
    tail, number, *rest = facts
    descriptors, sectors = b"", b""
    count = chance.choice((0, 1, 2, 5, 126, 127))
    for _ in range(count):
        target = _target(chance, member, file)
        if chance.randrange(2):
            length = chance.choice((0, PAGE, 64 * KIB, MIB, 1 << 40, (1 << 63) - PAGE))
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, length, target, number)
        else:
            page = file.read(chance.choice((target, valid_offset(chance, file))), PAGE)
            head = struct.pack("<4s4s8sQQ", b"desc", page[-4:], page[:8], target, number)
            descriptors += head
            high, low = divmod(number, 1 << 32)
            sectors += struct.pack("<4sI4084sI", b"data", high, page[8:-4], low)
    size = -(-(64 + len(descriptors)) // PAGE) * PAGE
    numbers = (size + len(sectors), tail % member.spec.log_length, number, count)
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, *numbers, 0, *rest)
    return (head + descriptors).ljust(size, b"\0") + sectors


def _target(chance: random.Random, member: Member, file: SparseFile) -> int:
    """Give a page that a log could update."""
    field = chance.choice(member.fields)
    page = chance.choice(sorted(file.pages)) * PAGE
    choices = (field.offset, page, page, valid_offset(chance, file), chance.getrandbits(62))
    return chance.choice(choices) // PAGE * PAGE


def entry_places(member: Member, file: SparseFile) -> list[int]:
    """Give the file offsets of what looks like a log entry."""
    start = member.spec.log_offset
    numbers = file.numbers_between(start, start + member.spec.log_length)
    return [n * PAGE for n in numbers if file.pages[n].startswith(b"loge")]


LOG_MUTATIONS: tuple[tuple[Callable[[random.Random, Member, SparseFile], str], int], ...] = (
    (renumber, 2),
    (move_entry, 2),
    (invent_entries, 2),
)
