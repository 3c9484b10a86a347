"""Ways to spoil an image: each changes a file and describes what it did.

A mutation takes all its chance from the generator that it is given, so the same one on the same
file does the same again.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.fuzz.bases import Member
from tests.fuzz.log_mutations import LOG_MUTATIONS
from tests.fuzz.sparse import PAGE, SparseFile
from tests.fuzz.strange_locators import STRANGE_LOCATORS
from tests.fuzz.values import interesting, valid_offset
from tests.support.builder import GIB, MIB, TIB, VIRTUAL_DISK_SIZE
from tests.support.builder.layout import METADATA_TABLE_SIZE, REGION_TABLE_OFFSETS

Mutation = Callable[[random.Random, Member, SparseFile], str]


def set_field(chance: random.Random, member: Member, file: SparseFile) -> str:
    field = chance.choice(member.fields)
    old = int.from_bytes(file.read(field.offset, field.size), "little")
    new = interesting(chance, member, file, field.size, old)
    file.write(field.offset, new.to_bytes(field.size, "little"))
    return f"{field.name} at {field.offset:#x}: {old:#x} becomes {new:#x}"


def set_like_fields(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Put one value into both headers, both region tables, or the table and its logged copy."""
    field = chance.choice(member.fields)
    name = field.name.partition(": ")[2]
    kind = field.name.removeprefix("logged ").split(" ", 1)[0]
    alike = [f for f in member.fields if f.size == field.size and f.name.endswith(f": {name}")]
    alike = [f for f in alike if f.name.removeprefix("logged ").startswith(kind)] or [field]
    old = int.from_bytes(file.read(field.offset, field.size), "little")
    new = interesting(chance, member, file, field.size, old)
    for other in alike:
        if int.from_bytes(file.read(other.offset, other.size), "little") == old:
            file.write(other.offset, new.to_bytes(other.size, "little"))
    return f"every {kind} ... {name} of {old:#x} becomes {new:#x}"


def copy_field(chance: random.Random, member: Member, file: SparseFile) -> str:
    source = chance.choice(member.fields)
    like = [field for field in member.fields if field.size == source.size and field != source]
    target = chance.choice(like or [source])
    file.write(target.offset, file.read(source.offset, source.size))
    return f"{target.name} becomes what {source.name} is"


def flip_bytes(chance: random.Random, member: Member, file: SparseFile) -> str:
    pages = sorted(file.pages)
    changes: list[str] = []
    for _ in range(chance.choice((1, 1, 2, 8))):
        offset = chance.choice(pages) * PAGE + chance.choice(
            (chance.randrange(128), chance.randrange(PAGE))
        )
        mask = chance.choice((1 << chance.randrange(8), chance.randrange(1, 256)))
        file.write(offset, bytes([file.read(offset, 1)[0] ^ mask]))
        changes.append(f"{offset:#x}^{mask:#x}")
    return f"bytes flipped: {', '.join(changes)}"


def cut(chance: random.Random, member: Member, file: SparseFile) -> str:
    """End the file at or around the border of something."""
    borders = [field.offset for field in member.fields]
    borders += [number * PAGE for number in file.pages]
    borders += [n * MIB for n in range(1 + file.size // MIB)][:64]
    at = chance.choice(borders) + chance.choice((0, 0, 1, -1, 8, 511, 512, 513, PAGE - 1, PAGE))
    file.truncate(max(0, min(file.size, at)))
    return f"the file ends at {file.size:#x}"


def extend(chance: random.Random, member: Member, file: SparseFile) -> str:
    more = chance.choice((1, 511, 512, PAGE, MIB - 1, MIB, 64 * MIB, 5 * GIB, TIB))
    file.truncate(file.size + more)
    return f"the file is {more:#x} bytes longer"


def swap_or_copy(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Exchange two pages or MiBs, or put one in the place of another."""
    unit = chance.choice((PAGE, PAGE, 64 << 10, MIB))
    places = sorted({number * PAGE // unit for number in file.pages})
    first, second = chance.choice(places) * unit, chance.choice(places) * unit
    if chance.randrange(4) == 0:
        second = valid_offset(chance, file)
    one, other = file.read(first, unit), file.read(second, unit)
    file.write(second, one)
    if chance.randrange(2):
        return f"{unit:#x} bytes of {first:#x} stand at {second:#x} too"
    file.write(first, other)
    return f"{unit:#x} bytes of {first:#x} and {second:#x} have changed places"


def erase(chance: random.Random, member: Member, file: SparseFile) -> str:
    page = chance.choice(sorted(file.pages))
    fill = chance.choice((0, 0xFF, chance.randrange(256)))
    length = chance.choice((8, 32, 512, PAGE))
    start = page * PAGE + chance.randrange(PAGE // length) * length
    file.write(start, bytes([fill]) * length)
    return f"{length} bytes at {start:#x} are {fill:#x}"


def spoil_bat(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Write a run of false entries, one after the other in the file or at random."""
    first = chance.choice((0, 0, chance.randrange(64), 4094, 4096))
    count = chance.choice((1, 2, 7, 64, 5000))
    state = chance.randrange(8)
    place = valid_offset(chance, file)
    step = chance.choice((0, MIB, 2 * MIB, member.spec.block_size, -MIB))
    entries = [(place + step * index) % (1 << 64) & ~0xFFFFF | state for index in range(count)]
    if chance.randrange(4) == 0:
        entries = [chance.getrandbits(64) if chance.randrange(2) else entry for entry in entries]
    file.write(member.spec.bat_offset + 8 * first, struct.pack(f"<{count}Q", *entries))
    return f"{count} BAT entries from {first} on: {entries[0]:#x} by steps of {step:#x}"


def spoil_bitmap(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Write noise or a pattern into a sector bitmap, or where one could be."""
    places = list(member.spec.placement().bitmaps.values())
    place = chance.choice(places) if places else valid_offset(chance, file)
    length = chance.choice((1, 8, 256, PAGE))
    pattern = chance.choice((b"\0", b"\xff", b"\x55", b"\x01", b"\x80", chance.randbytes(length)))
    start = place + chance.choice((0, 0, 255, 256, 512, chance.randrange(PAGE)))
    file.write(start, (pattern * length)[:length])
    return f"{length} bytes of a bitmap at {start:#x}: {pattern[:8].hex()}..."


def enlarge(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Make the disk huge in a consistent way: its size, its BAT at the end, the file."""
    size = chance.choice((GIB, 5 * GIB, TIB, 64 * TIB, 64 * TIB - 4096)) + chance.choice((0, 4096))
    offset = -(-file.size // MIB) * MIB
    length = chance.choice((MIB, 16 * MIB, 128 * MIB, 513 * MIB, 4095 * MIB))
    if chance.randrange(8):
        file.truncate(offset + length)
    table = file.read(member.spec.bat_offset, MIB) if file.size > offset else b""
    file.write(offset, table)
    for table_offset in REGION_TABLE_OFFSETS:
        file.write(table_offset + 16 + 16, struct.pack("<QI", offset, length))
    file.write(size_place(member, file), size.to_bytes(8, "little"))
    return f"a disk of {size:#x} bytes with a BAT of {length:#x} bytes at {offset:#x}"


def size_place(member: Member, file: SparseFile) -> int:
    """Give where the Virtual Disk Size item stands."""
    start = member.spec.metadata_offset
    table = file.read(start, METADATA_TABLE_SIZE)
    at = table.find(VIRTUAL_DISK_SIZE.bytes_le)
    return start + int.from_bytes(table[at + 16 : at + 20], "little") if at >= 0 else start


def replace_locator(chance: random.Random, member: Member, file: SparseFile) -> str:
    """Put another locator into the place of the last item, and give it its length."""
    field = next((f for f in member.fields if f.name.endswith(": locator type")), None)
    if field is None:
        return set_field(chance, member, file)
    name, make = chance.choice(STRANGE_LOCATORS)
    item = make(chance, member.spec)
    number = field.name.removeprefix("logged ").partition(":")[0].split()[1]
    length = next(f for f in member.fields if f.name == f"metadata entry {number}: length")
    file.write(field.offset, item[: 900 << 10])
    file.write(length.offset, min(len(item), 900 << 10).to_bytes(4, "little"))
    return f"a locator with {name}"


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (set_field, 12),
    (set_like_fields, 8),
    (copy_field, 3),
    (flip_bytes, 3),
    (cut, 2),
    (extend, 1),
    (swap_or_copy, 2),
    (erase, 1),
    (spoil_bat, 3),
    (spoil_bitmap, 2),
    (enlarge, 1),
    (replace_locator, 1),
    *LOG_MUTATIONS,
)
"""Each with its weight."""


def choose(chance: random.Random) -> Mutation:
    """Choose one by its weight."""
    mutations, weights = zip(*MUTATIONS, strict=True)
    mutation: Mutation = chance.choices(mutations, weights)[0]
    return mutation
