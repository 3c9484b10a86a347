"""What makes an entry of a log valid, and what it does (R18 to R26, R34, R35).

In most tests the entry in question is the second one of a run, so that the disk shows whether it
was taken: the first one marks page 0, the second one page 1.
"""

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    DEFAULT_LOG_GUID,
    KIB,
    MIB,
    DataDescriptorSpec,
    Descriptor,
    LogContext,
    LogEntrySpec,
    ZeroDescriptorSpec,
    same_bytes_guid,
)
from tests.support.chains import disk_bytes
from tests.support.logs import (
    BLOCK,
    FILE_SIZE,
    PAGE,
    RING,
    blank_disk,
    disk_with,
    entry,
    erase,
    mark,
    marks_in,
    marks_on,
)
from vhdx2raw.vhdx.image import open_image

TAKEN = {0: 1, 1: 2}
NOT_TAKEN = {0: 1}
SECOND = 2
"""Page of the ring where the second entry begins."""


def marks_with(second: LogEntrySpec, path: Path) -> dict[int, int]:
    return marks_on(disk_with(entry(0, 7, mark(0, 1)), second), path)


def second_entry(*descriptors: Descriptor, **fields: Any) -> LogEntrySpec:  # noqa: ANN401
    return entry(SECOND, 8, *(descriptors or [mark(1, 2)]), **({"tail": 0} | fields))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "disk.vhdx"


def test_plain_entry_is_taken(path: Path) -> None:
    assert marks_with(second_entry(), path) == TAKEN


# -- the header of an entry (R19) ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"signature": b"logf"},
        {"signature": bytes(4)},
        {"entry_length": 0},
        {"entry_length": 2 * PAGE - 1},
        {"entry_length": 2 * PAGE + 512},
        {"entry_length": PAGE},
        {"entry_length": MIB + PAGE},
        {"entry_length": 0xFFFFF000},
        {"tail": 512},
        {"tail": MIB},
        {"tail": MIB + PAGE},
        {"tail": 0xFFFFFFFF},
        {"log_guid": same_bytes_guid(0x45)},
        {"log_guid": same_bytes_guid(0)},
        {"descriptor_count": 2},
        {"descriptor_count": 127},
        {"descriptor_count": 0xFFFFFFFF},
        {"checksum": 0},
        {"checksum": 0xFFFFFFFF},
    ],
    ids=lambda fields: "{}={}".format(*next(iter(fields.items()))),
)
def test_entry_with_an_impossible_field_ends_the_run(fields: dict[str, Any], path: Path) -> None:
    """R19 to R21: it is as if it were not there."""
    second = second_entry()
    for name, value in fields.items():
        setattr(second, name, value)
    assert marks_with(second, path) == NOT_TAKEN


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"reserved": 0xFFFFFFFF},
        {"flushed_file_offset": 0},
        {"last_file_offset": 0},
        {"flushed_file_offset": FILE_SIZE - PAGE},
        {"last_file_offset": FILE_SIZE + PAGE},
        {"padding_sectors": 1},
        {"padding_sectors": 14},
        {"descriptor_count": 1},
    ],
    ids=lambda fields: "{}={}".format(*next(iter(fields.items()))),
)
def test_entry_with_an_unusual_field_is_taken(fields: dict[str, Any], path: Path) -> None:
    """R19, R21: reserved bits, unusual file sizes and surplus sectors are tolerated."""
    assert marks_with(second_entry(**fields), path) == TAKEN


def test_entry_number_zero_is_invalid(path: Path) -> None:
    """R19: the run begins after it."""
    spec = disk_with(entry(0, 0, mark(0, 1)), entry(2, 1, mark(1, 2), tail=2))
    assert marks_on(spec, path) == {1: 2}


def test_entry_that_begins_between_pages_is_not_seen(path: Path) -> None:
    """R18: nothing but multiples of 4096 counts, however right the bytes are."""
    spec = disk_with(entry(0, 1, mark(0, 1)))
    spec.log.entries.append(LogEntrySpec(5 * PAGE + 512, 9, [mark(1, 2)], tail=5 * PAGE))
    assert marks_on(spec, path) == NOT_TAKEN


def test_entries_aligned_to_one_page_only_are_found(path: Path) -> None:
    """R18: a run of entries of one page each, at odd pages."""
    entries = [entry(33 + n, 5 + n, tail=33) for n in range(7)]
    spec = disk_with(*entries, entry(40, 12, mark(0, 1), tail=33))
    assert marks_on(spec, path) == NOT_TAKEN


# -- the checksum (R20) ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("place", [4, 28, 96, PAGE - 1, PAGE + 8, 2 * PAGE + 17, 3 * PAGE - 1])
def test_checksum_covers_every_byte_of_the_entry(place: int, path: Path) -> None:
    """R20: the padding and surplus sectors too; one flipped bit makes the entry invalid."""
    spec = disk_with(entry(0, 7, mark(0, 1)), second_entry(padding_sectors=1))
    assert marks_on(spec, path) == TAKEN
    with path.open("r+b") as file:
        file.seek(MIB + SECOND * PAGE + place)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    assert marks_in(path) == NOT_TAKEN


@pytest.mark.parametrize("at", [RING - 1, RING - 2, RING - 3])
def test_checksum_is_taken_in_ring_order(at: int, path: Path) -> None:
    """R18, R20: any page of the entry may be the first after the end of the ring."""
    spec = disk_with(entry(at, 7, mark(0, 1), mark(1, 2), mark(2, 3)))
    assert marks_on(spec, path) == {0: 1, 1: 2, 2: 3}


# -- length and descriptors (R21, R22, R25, R26) ---------------------------------------------


def test_entry_one_page_longer_than_needed_is_taken(path: Path) -> None:
    """R21, item 35: the surplus page is under the checksum."""
    spec = disk_with(entry(0, 1, mark(0, 1), padding_sectors=1), entry(3, 2, mark(1, 2), tail=0))
    assert marks_on(spec, path) == TAKEN


def test_entry_one_page_shorter_than_needed_is_invalid(path: Path) -> None:
    """R21, item 35: also if the data sector that it lacks follows it."""
    second = second_entry(mark(1, 2), mark(2, 3), entry_length=2 * PAGE)
    assert marks_with(second, path) == NOT_TAKEN


def test_entries_padded_to_64_kib_are_taken(path: Path) -> None:
    """R21, item 40: a run of them, wrapping over the end of the ring."""
    entries = [
        entry((232 + 16 * n) % RING, 1 + n, mark(n, n + 1), padding_sectors=14, tail=232)
        for n in range(5)
    ]
    assert {item.size for item in entries} == {64 * KIB}
    assert marks_on(disk_with(*entries), path) == {n: n + 1 for n in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "descriptor",
    [
        mark(1, 2, signature=b"DESC"),
        mark(1, 2, signature=b"loge"),
        mark(1, 2, signature=bytes(4)),
        mark(1, 2, sequence_number=7),
        mark(1, 2, sequence_number=0),
        mark(1, 2, data_signature=b"Data"),
        mark(1, 2, sequence_high=1),
        mark(1, 2, sequence_low=7),
        erase(0, 1, signature=b"zerO"),
        erase(0, 1, sequence_number=9),
        ZeroDescriptorSpec(BLOCK + 512, PAGE),
        ZeroDescriptorSpec(BLOCK, PAGE + 512),
        ZeroDescriptorSpec(BLOCK, PAGE - 1),
        DataDescriptorSpec(BLOCK + 512, bytes(PAGE)),
        DataDescriptorSpec(BLOCK + PAGE - 1, bytes(PAGE)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_last", [False, True])
def test_one_bad_descriptor_makes_the_entry_invalid(
    descriptor: Descriptor,
    is_last: bool,  # noqa: FBT001
    path: Path,
) -> None:
    """R22, R23: its neighbours are not applied either."""
    others: list[Descriptor] = [mark(2, 3), mark(3, 4)]
    descriptors = [*others, descriptor] if is_last else [descriptor, *others]
    assert marks_with(second_entry(*descriptors), path) == NOT_TAKEN


def test_reserved_field_of_a_zero_descriptor_is_ignored(path: Path) -> None:
    second = second_entry(mark(1, 2), erase(0, 1, reserved=0xFFFFFFFF))
    assert marks_with(second, path) == {1: 2}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 125, 126, 127, 128, 253, 254, 255])
@pytest.mark.parametrize("at", [0, RING - 1, RING - 2, RING - 3])
def test_descriptors_fill_several_sectors(count: int, at: int, path: Path) -> None:
    """R26, item 30: 126 in the first sector, 128 in each other, the ring's end anywhere."""
    length = 4 * MIB
    descriptors = [mark(n, n % 255 + 1) for n in range(count)]
    spec = blank_disk(log_length=length, metadata_offset=5 * MIB, bat_offset=6 * MIB)
    spec.blocks[0].file_offset = 7 * MIB
    for descriptor in descriptors:
        descriptor.file_offset += 3 * MIB
    position = (at - RING) * PAGE % length if at else 0
    spec.log.entries.append(LogEntrySpec(position, 3, list(descriptors)))
    assert marks_on(spec, path) == {n: n % 255 + 1 for n in range(count)}


@pytest.mark.parametrize("before_the_end", [1, 2, 3, 4])
def test_ring_ends_inside_the_descriptors(before_the_end: int, path: Path) -> None:
    """R18, R26: 301 descriptors take three sectors, two of which may lie at the start."""
    descriptors: list[Descriptor] = [mark(n, n + 1) for n in range(150)]
    descriptors += [erase(200, 1)] * 150 + [mark(151, 9)]
    spec = disk_with(entry(RING - before_the_end, 3, *descriptors))
    assert marks_on(spec, path) == {n: n + 1 for n in range(150)} | {151: 9}


def test_data_sectors_belong_to_data_descriptors_only(path: Path) -> None:
    """Section 2.5.4: zero descriptors between them are not counted."""
    second = second_entry(erase(0, 1), mark(1, 2), erase(9, 1), mark(2, 3), erase(0, 0), mark(3, 4))
    assert marks_with(second, path) == {1: 2, 2: 3, 3: 4}


# -- what an entry may not touch (R24) -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [0, 64 * KIB, 128 * KIB, 128 * KIB + PAGE, 192 * KIB - PAGE, MIB, 2 * MIB - PAGE, 2**63],
)
def test_sector_at_a_forbidden_place_is_invalid(place: int, path: Path) -> None:
    """R24, item 33: the identifier, the headers and the log itself."""
    bad = DataDescriptorSpec(place, bytes(PAGE))
    assert marks_with(second_entry(mark(1, 2), bad), path) == NOT_TAKEN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, PAGE),
        (PAGE, 192 * KIB),
        (128 * KIB, 256 * KIB),
        (192 * KIB, MIB + PAGE),
        (2 * MIB - PAGE, 3 * MIB),
        (MIB, 2 * MIB),
        (512 * KIB, 4 * MIB),
        (BLOCK, 2**63),
        (BLOCK, 2**63 + BLOCK),
        (2**63 - PAGE, 2**63),
        (BLOCK, 2**64 - PAGE + BLOCK),
    ],
)
def test_zeros_at_a_forbidden_place_are_invalid(start: int, end: int, path: Path) -> None:
    """R24: by any part of the range; an end of 2^63 or more is too far."""
    bad = ZeroDescriptorSpec(start, end - start)
    assert marks_with(second_entry(mark(1, 2), bad), path) == NOT_TAKEN


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (320 * KIB, MIB),
        (2 * MIB + 512 * KIB, 3 * MIB),
        (BLOCK + 9 * PAGE, BLOCK + 9 * PAGE),
        (MIB + 4 * PAGE, MIB + 4 * PAGE),
    ],
)
def test_other_places_may_become_zeros(start: int, end: int, path: Path) -> None:
    """R24: up to the log and from its end on, and in it those that are none."""
    second = second_entry(mark(1, 2), ZeroDescriptorSpec(start, end - start))
    assert marks_with(second, path) == TAKEN


def test_zeros_of_exabytes_are_replayed(bench: Bench) -> None:
    """R35, item 31: an interval, however long."""
    end = 2**63 - PAGE
    zeros = ZeroDescriptorSpec(BLOCK + PAGE, end - BLOCK - PAGE)
    image = bench.open(disk_with(entry(0, 1, mark(0, 1), zeros)))
    assert image.source.size == end
    assert image.source.pread(2**62, 3) == bytes(3)
    assert image.source.pread(BLOCK, 2 * PAGE) == b"\x01" * PAGE + bytes(PAGE)


# -- sectors put together (R34) --------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 0x6174616464617461])
def test_sector_is_joined_from_descriptor_and_data(number: int, bench: Bench) -> None:
    """R34: the first 8 and the last 4 bytes lie in the descriptor."""
    sector = struct.pack("<1024I", *range(7, 7 + 1024))
    image = bench.open(disk_with(entry(0, number, DataDescriptorSpec(BLOCK, sector))))
    assert image.source.pread(BLOCK, PAGE) == sector


def test_sector_that_looks_like_an_entry_is_data(path: Path) -> None:
    """Section 2.5.4: in the log its first bytes are never those of the guest."""
    looks_like = entry(0, 99, mark(0, 1)).pack(LogContext(DEFAULT_LOG_GUID, MIB, FILE_SIZE))
    sector = bytes(looks_like[:PAGE])
    disk_with(entry(0, 1, DataDescriptorSpec(BLOCK, sector))).write(path)
    with open_image(path) as image:
        assert disk_bytes(image, 0, 2 * PAGE) == sector + bytes(PAGE)
