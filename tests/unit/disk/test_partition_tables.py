"""Partition tables made by hand: unusual, broken and hostile ones."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builder import GIB, KIB, MIB, TIB
from tests.support.contents import (
    DISK_GUID,
    EFI,
    LINUX,
    PROTECTIVE,
    MadeDisk,
    Row,
    contents_of,
    gpt,
    places,
    record,
)
from vhdx2raw.disk.contents import Contents, Partition, Scheme, read_contents

# -- a master boot record made by hand -----------------------------------------------------------


def test_an_mbr_counts_in_the_sectors_of_the_disk() -> None:
    contents = contents_of({0: record((0x83, 256, 100))}, sector_size=4096)
    assert contents.table
    assert contents.table.disk_id == "12345678"
    assert contents.table.partitions == (Partition(1, 256 * 4096, 100 * 4096, "0x83", "Linux"),)


def test_an_mbr_without_partitions_is_an_mbr() -> None:
    contents = contents_of({0: record()})
    assert contents.table
    assert (contents.table.scheme, contents.table.partitions) == (Scheme.MBR, ())


def test_boot_sector_of_a_file_system_is_no_table() -> None:
    """Boot loaders such as extlinux write there."""
    contents = contents_of({0: record(), 1080: b"\x53\xef"})
    assert contents.volume
    assert contents.table is None


def test_a_disc_that_is_a_disk_too_has_both() -> None:
    contents = contents_of({0: record((0x17, 0, 100)), 32769: b"CD001"})
    assert contents.volume
    assert contents.volume.kind == "ISO 9660"
    assert places(contents) == [(1, 0, 51200)]


def test_boot_code_is_no_partition_table() -> None:
    contents = contents_of({0: record((0x83, 1, 1), status=0x42)})
    assert contents.table is None
    assert contents.problems == (
        "the first sector has the mark of a boot sector, but no partition table",
    )


def test_partition_past_the_end_is_a_problem() -> None:
    contents = contents_of({0: record((0x83, 2048, 0xFFFFFFFF))})
    assert contents.problems == ("partition 1 ends past the end of the disk",)


def test_overlapping_partitions_are_a_problem() -> None:
    contents = contents_of({0: record((0x83, 2048, 100), (0x83, 100, 10), (0x07, 2147, 9))})
    assert contents.problems == ("partitions 1 and 3 overlap",)


@pytest.mark.parametrize("kind", [0x05, 0x0F, 0x85])
def test_logical_partitions_are_relative_to_their_record(kind: int) -> None:
    first = record((0x83, 10, 20), (kind, 100, 50))
    pieces = {
        0: record((kind, 1000, 5000)),
        1000 * 512: first,
        1100 * 512: record((0x07, 2, 3)),
        1010 * 512 + 1080: b"\x53\xef",
    }
    contents = contents_of(pieces)
    assert places(contents)[1:] == [(5, 1010 * 512, 20 * 512), (6, 1102 * 512, 3 * 512)]
    assert contents.table
    assert [part.volume and part.volume.kind for part in contents.table.partitions] == [
        None,
        "ext2",
        None,
    ]
    assert contents.problems == ()


CIRCLES = {
    "itself": {1000: record((0x83, 1, 1), (5, 0, 9))},
    "two": {1000: record((0x83, 1, 1), (5, 100, 9)), 1100: record((0x83, 1, 1), (5, 0, 9))},
}


@pytest.mark.parametrize("name", CIRCLES)
def test_circle_of_logical_partitions_ends(name: str) -> None:
    records = CIRCLES[name]
    pieces = {sector * 512: data for sector, data in records.items()}
    contents = contents_of({0: record((5, 1000, 5000)), **pieces})
    assert contents.problems == ("the chain of logical partitions runs in a circle",)
    assert len(places(contents)) == 1 + len(records)


def test_endless_logical_partitions_are_cut() -> None:
    pieces = {
        (1000 + 10 * index) * 512: record((0x83, 1, 1), (5, 10 * (index + 1), 9))
        for index in range(200)
    }
    contents = contents_of({0: record((5, 1000, 5000)), **pieces})
    assert contents.problems == (
        "the chain of logical partitions has more than 64 records; the others are left out",
    )
    assert len(places(contents)) == 1 + 64


def test_four_chains_share_one_limit() -> None:
    extended = [(5, start, 9000) for start in (1000, 20000, 40000, 60000)]
    pieces = {
        (start + 10 * index) * 512: record((0x83, 1, 1), (5, 10 * (index + 1), 9))
        for _, start, _ in extended
        for index in range(100)
    }
    assert len(places(contents_of({0: record(*extended), **pieces}))) == 4 + 64


def test_missing_logical_record_is_a_problem() -> None:
    contents = contents_of({0: record((5, 1000, 5000))})
    assert contents.problems == ("the record of a logical partition is missing in sector 1000",)


# -- a GPT made by hand --------------------------------------------------------------------------

ONE: Row = (LINUX, 2048, 4095, "root")


def test_a_built_gpt_is_read() -> None:
    contents = contents_of(gpt(ONE, (EFI, 40, 99, "")))
    assert contents.problems == ()
    assert contents.table
    assert contents.table.disk_id == str(DISK_GUID)
    assert contents.table.partitions == (
        Partition(1, 2048 * 512, MIB, str(LINUX), "Linux filesystem", "root", str(UUID(int=1))),
        Partition(2, 40 * 512, 60 * 512, str(EFI), "EFI System", "", str(UUID(int=2))),
    )


BROKEN_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "signature": ({"signature": b"EFI_PART"}, "its signature is missing"),
    "checksum": ({"checksum": 1}, "the checksum of its header is wrong"),
    "header size 0": ({"header_size": 0}, "its header has 0 bytes"),
    "large header": ({"header_size": 0xFFFFFFFF}, "its header has 4294967295 bytes"),
    "place": ({"own": 7}, "it says that it lies in sector 7"),
    "entry size 0": ({"entry_size": 0}, "its entries have 0 bytes"),
    "uneven entry size": ({"entry_size": 129}, "its entries have 129 bytes"),
    "large entries": ({"entry_size": 1 << 31}, f"its entries have {1 << 31} bytes"),
    "table outside": ({"table_sector": 1 << 63}, "its entries lie past the end of the disk"),
    "table checksum": ({"table_checksum": 1}, "the checksum of its entries is wrong"),
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
def test_the_copy_stands_in_for_a_broken_gpt(name: str) -> None:
    fields, problem = BROKEN_HEADERS[name]
    contents = contents_of(gpt(ONE, **fields))
    assert contents.problems == (f"the primary GPT in sector 1 cannot be used: {problem}",)
    assert places(contents) == [(1, 2048 * 512, MIB)]


def test_announced_but_missing_gpt_is_a_problem() -> None:
    contents = contents_of({0: PROTECTIVE})
    assert contents.problems == (
        "the primary GPT in sector 1 cannot be used: its signature is missing",
        "the backup GPT in sector 131071 cannot be used: its signature is missing",
        "the MBR announces a GPT, but there is no valid one",
    )
    assert contents.table
    assert [part.type_name for part in contents.table.partitions] == ["GPT"]


def test_billions_of_entries_are_not_read() -> None:
    disk = MadeDisk(TIB, gpt(ONE, size=TIB, count=0xFFFFFFFF))
    contents = read_contents(disk, 512)
    [problem] = contents.problems
    assert problem == (
        "the GPT has room for 4294967295 entries; only the first 128 are read, and they are not"
        " checked"
    )
    assert places(contents) == [(1, 2048 * 512, MIB)]
    assert disk.read_bytes < 256 * KIB


def test_full_gpt_is_read_in_bounds() -> None:
    rows = [(LINUX, 2048 + 256 * index, 2048 + 256 * index + 255, "") for index in range(128)]
    disk = MadeDisk(64 * MIB, gpt(*rows))
    contents = read_contents(disk, 512)
    assert len(places(contents)) == 128
    assert disk.read_bytes < 129 * 32 * KIB


def test_gpt_partition_with_negative_size_is_a_problem() -> None:
    contents = contents_of(gpt((LINUX, 4000, 3000, "")))
    assert contents.problems == ("partition 1 ends before it begins",)
    assert places(contents) == [(1, 4000 * 512, 0)]


def test_gpt_partition_at_2_to_64_is_a_problem() -> None:
    contents = contents_of(gpt((LINUX, 2**64 - 2, 2**64 - 1, "")))
    assert contents.problems == ("partition 1 ends past the end of the disk",)


def test_gpt_of_a_grown_disk_is_a_problem() -> None:
    contents = contents_of(gpt(ONE, size=32 * MIB), size=64 * MIB)
    assert contents.problems == ("the backup GPT is not at the end of the disk",)


def test_gpt_without_a_protective_mbr_is_a_problem() -> None:
    pieces = gpt(ONE)
    del pieces[0]
    contents = contents_of(pieces)
    assert contents.problems == (
        "the GPT is not announced by an MBR, so that some programs do not look for it",
    )
    assert places(contents) == [(1, 2048 * 512, MIB)]


def test_a_gpt_beside_an_mbr_of_its_own_is_stale() -> None:
    contents = contents_of(gpt(ONE) | {0: record((0x83, 100, 100))})
    assert contents.table
    assert contents.table.scheme is Scheme.MBR
    assert contents.problems == (
        "there is a GPT too, but the MBR does not announce it: it is ignored",
    )


def test_backup_gpt_without_an_mbr_is_ignored() -> None:
    """Making a file system wipes the start of a disk, and not its end."""
    pieces = gpt(ONE)
    del pieces[0], pieces[512]
    assert contents_of(pieces) == Contents(None, None, "", ())


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "header_size": st.integers(0, 2**32 - 1),
            "own": st.just(1) | st.integers(0, 2**64 - 1),
            "other": st.integers(0, 2**64 - 1),
            "table_sector": st.integers(0, 2**64 - 1),
            "count": st.integers(0, 2**32 - 1),
            "entry_size": st.integers(0, 2**32 - 1) | st.sampled_from([0, 64, 128, 256, 2**14]),
            "table_checksum": st.integers(0, 2**32 - 1),
        },
    ),
    row=st.tuples(st.uuids(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.just("x")),
)
def test_any_gpt_header_is_read_in_bounds(fields: dict[str, Any], row: Row) -> None:
    disk = MadeDisk(GIB, gpt(row, size=GIB, **fields))
    contents = read_contents(disk, 512)
    assert contents.table
    assert disk.read_bytes < MIB
