"""A partition is a disk of its own: the bytes between its ends, whoever reads them."""

import gc
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vhdx2raw
from tests.support.builder import MIB, ImageSpec
from tests.support.contents import LINUX, gpt, gpt_header, record
from tests.support.files import open_files
from tests.support.partitions import (
    PLACES,
    SIZE,
    disk_with,
    fragmented_child,
    gpt_disk,
    mbr_disk,
)
from tests.support.raw import break_file
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.partition import PartitionFile
from vhdx2raw.disk.reading import Blend
from vhdx2raw.disk.virtual_disk import VirtualDisk

BASE = gpt_disk()
SPEC = fragmented_child(BASE)


def expected(number: int, offset: int = 0, length: int | None = None) -> bytes:
    """Give bytes of a partition as the description has them."""
    first, end = (sector * 512 for sector in PLACES[number])
    longest = max(0, end - first - offset)
    return SPEC.expected_disk(first + offset, min(longest, longest if length is None else length))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("partitions")
    BASE.write(folder / "base.vhdx")
    SPEC.write(folder / "child.vhdx")
    return folder / "child.vhdx"


@pytest.fixture
def disk(path: Path) -> Iterator[VirtualDisk]:
    with vhdx2raw.open(path) as opened:
        yield opened


def write(folder: Path, spec: ImageSpec) -> Path:
    spec.write(folder / "disk.vhdx")
    return folder / "disk.vhdx"


# -- bytes --------------------------------------------------------------------------------------


def test_partitions_are_those_of_the_table(disk: VirtualDisk) -> None:
    found = [(part.number, part.start, part.start + part.size) for part in disk.partitions()]
    assert found == [(number, first * 512, end * 512) for number, (first, end) in PLACES.items()]
    assert [part.entry.name for part in disk.partitions()] == ["boot", "root", "in"]


@pytest.mark.slow
@pytest.mark.parametrize("number", PLACES)
def test_a_partition_reads_as_a_whole(disk: VirtualDisk, number: int) -> None:
    with disk.partition(number) as part:
        assert part.pread(part.size, 0) == expected(number)
        assert part.read() == expected(number)
        assert part.read() == b""
        assert part.seek(-512, io.SEEK_END) == part.size - 512
        assert part.read() == expected(number)[-512:]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    number=st.sampled_from(sorted(PLACES)),
    offset=st.integers(0, SIZE),
    length=st.integers(0, 2 * MIB),
)
def test_any_range_of_a_partition_is_read_right(
    path: Path, number: int, offset: int, length: int
) -> None:
    with vhdx2raw.open(path) as disk, disk.partition(number) as part:
        assert part.pread(length, offset) == expected(number, offset, length)


def test_what_is_read_in_one_go_counts_from_the_start_of_the_partition(disk: VirtualDisk) -> None:
    """Fragments are blends here, too; nothing falls back to a read for each sector."""
    part = disk.partition(2)
    stretches = list(part.stretches())
    assert any(isinstance(stretch, Blend) for stretch in stretches)
    done = 0
    for stretch in stretches:
        assert stretch.virtual_offset == done
        done = stretch.virtual_end
        if stretch.kind is ExtentKind.DATA:
            buffer = bytearray(stretch.length)
            stretch.read_into(memoryview(buffer))
            assert buffer == expected(2, stretch.virtual_offset, stretch.length)
    assert done == part.size


@pytest.mark.slow
def test_extents_and_map_entries_tile_the_partition(disk: VirtualDisk) -> None:
    part = disk.partition(2)
    extents = [(extent.virtual_offset, extent.virtual_end) for extent in part.extents()]
    entries = [(entry.start, entry.end) for entry in part.map_entries()]
    for ranges in (extents, entries):
        assert ranges[0][0] == 0
        assert ranges[-1][1] == part.size
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))
    zeros = [extent for extent in part.extents() if extent.kind is ExtentKind.ZERO]
    assert [(zero.virtual_offset, zero.length) for zero in zeros] == [(4 * MIB - part.start, MIB)]


def test_ranges_end_with_the_partition(disk: VirtualDisk) -> None:
    part = disk.partition(1)
    (last,) = part.extents(part.size - 512, MIB)
    assert (last.virtual_offset, last.length) == (part.size - 512, 512)
    assert list(part.extents(part.size)) == []
    assert list(part.extents(part.size + 5 * MIB)) == []
    assert part.pread(MIB, part.size) == b""


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_table_for_other_sectors_has_partitions_too(tmp_path: Path, sector_size: int) -> None:
    """Such as a disk that was copied to another one; its partitions begin anywhere."""
    other = 4096 + 512 - sector_size
    rows = [(LINUX, 777 * 512 // other, SIZE // other - 100, "odd")]
    base = disk_with(gpt(*rows, size=SIZE, sector_size=other), logical_sector_size=sector_size)
    spec = fragmented_child(base)
    base.write(tmp_path / "base.vhdx")
    with vhdx2raw.open(write(tmp_path, spec)) as disk, disk.partition(1) as part:
        assert part.start == 777 * 512 // other * other
        assert part.pread(part.size, 0) == spec.expected_disk(part.start, part.size)


def test_logical_partitions_are_files_and_what_holds_them_is_none(tmp_path: Path) -> None:
    pieces = {
        0: record((0x83, 2048, 2048), (0x05, 4096, 8192)),
        4096 * 512: record((0x83, 64, 1000), (0x05, 4096, 4096)),
        8192 * 512: record((0x83, 2048, 2048)),
    }
    spec = disk_with(pieces)
    with vhdx2raw.open(write(tmp_path, spec)) as disk:
        places = {part.number: part.start // 512 for part in disk.partitions()}
        assert places == {1: 2048, 5: 4160, 6: 10240}
        for part in disk.partitions():
            assert part.read() == spec.expected_disk(part.start, part.size)
        with pytest.raises(
            vhdx2raw.PartitionError, match="partition 2 only holds the logical partitions"
        ):
            disk.partition(2)


def test_a_partition_can_hold_a_table_too(tmp_path: Path) -> None:
    """Such as the disk of a VM in a volume of its host."""
    pieces = {0: record((0x83, 2048, 8192)), 2048 * 512: record((0x83, 100, 300))}
    spec = disk_with(pieces)
    with vhdx2raw.open(write(tmp_path, spec)) as disk:
        inner = disk.partition(1).partition(1)
        assert inner.read() == spec.expected_disk(2148 * 512, 300 * 512)
        assert next(iter(inner.extents())).virtual_offset == 0


# -- hostile tables -----------------------------------------------------------------------------


def test_what_reaches_past_the_end_is_refused(tmp_path: Path) -> None:
    sectors = SIZE // 512
    entries = (0x83, 2048, sectors - 2048), (0x83, 4096, sectors), (0x83, sectors + 9, 7)
    with vhdx2raw.open(write(tmp_path, mbr_disk(*entries))) as disk:
        assert [part.number for part in disk.partitions()] == [1]
        for number in (2, 3):
            with pytest.raises(
                vhdx2raw.PartitionError, match=f"partition {number} ends past the end of the disk"
            ) as refusal:
                disk.partition(number)
            assert refusal.value.remedy == "there are: 1"


@pytest.mark.parametrize(("first", "last"), [(2048, 2047), (2**64 - 1, 0), (2048, 2**64 - 1)])
def test_impossible_places_in_a_gpt_are_refused(tmp_path: Path, first: int, last: int) -> None:
    rows = [(LINUX, first, last, "bad"), (LINUX, 4096, 4097, "good")]
    spec = disk_with(gpt(*rows, size=SIZE))
    with vhdx2raw.open(write(tmp_path, spec)) as disk:
        (good,) = disk.partitions()
        assert good.read() == spec.expected_disk(4096 * 512, 1024)
        problem = "partition 1 (is empty|ends past the end of the disk)"
        with pytest.raises(vhdx2raw.PartitionError, match=problem):
            disk.partition(1)


def test_a_loop_of_logical_partitions_has_an_end(tmp_path: Path) -> None:
    pieces = {
        0: record((0x05, 2048, 4096)),
        2048 * 512: record((0x83, 1, 10), (0x05, 1024, 1024)),
        3072 * 512: record((0x83, 1, 10), (0x05, 0, 1024)),
    }
    with vhdx2raw.open(write(tmp_path, disk_with(pieces))) as disk:
        assert [part.number for part in disk.partitions()] == [5, 6]


def test_a_gpt_that_cannot_be_used_is_no_partition(tmp_path: Path) -> None:
    broken = gpt(size=SIZE) | {
        sector * 512: gpt_header(b"", sector, 1, 2, checksum=1) for sector in (1, SIZE // 512 - 1)
    }
    with vhdx2raw.open(write(tmp_path, disk_with(broken))) as disk:
        assert disk.partitions() == ()
        problem = "partition 1 only stands for a GPT, which cannot be used"
        with pytest.raises(vhdx2raw.PartitionError, match=problem):
            disk.partition(1)


def test_unknown_numbers_are_refused(disk: VirtualDisk) -> None:
    with pytest.raises(vhdx2raw.PartitionError, match=r"child\.vhdx: has no partition 4") as error:
        disk.partition(4)
    assert error.value.hint == "there are: 1, 2, 3"


def test_a_disk_without_a_table_has_no_partition(tmp_path: Path) -> None:
    with vhdx2raw.open(write(tmp_path, disk_with({}))) as disk:
        assert disk.partitions() == ()
        with pytest.raises(vhdx2raw.PartitionError, match="has no partitions") as refusal:
            disk.partition(1)
    assert refusal.value.remedy == "without {partition} all of the disk is taken"


# -- its life -----------------------------------------------------------------------------------


def test_closing_a_partition_closes_nothing_else(disk: VirtualDisk) -> None:
    first, second = disk.partitions()[:2]
    first.close()
    with pytest.raises(ValueError, match="the disk is closed"):
        first.pread(1, 0)
    for generator in (first.extents, first.stretches, first.map_entries):
        with pytest.raises(ValueError, match="the disk is closed"):
            generator()
    assert second.pread(512, 0) == expected(2, 0, 512)
    assert disk.pread(512, 512)[:8] == b"EFI PART"


def test_no_partition_is_read_after_its_disk_is_closed(path: Path) -> None:
    disk = vhdx2raw.open(path)
    part = disk.partition(1)
    disk.close()
    with pytest.raises(ValueError, match="the disk is closed"):
        part.pread(1, 0)


@pytest.mark.slow
def test_a_partition_keeps_its_disk_open(path: Path) -> None:
    part = vhdx2raw.open(path).partition(1)
    gc.collect()
    assert part.read() == expected(1)
    del part
    gc.collect()
    assert str(path) not in open_files()


def test_its_facts_are_short(disk: VirtualDisk) -> None:
    part = disk.partition(3)
    assert isinstance(part, PartitionFile)
    assert repr(part) == f"<PartitionFile 3 of {disk.name!r}, {part.size} bytes>"
    assert (part.name, part.files, part.metadata) == (disk.name, disk.files, disk.metadata)


def test_what_is_lost_counts_from_the_start_of_the_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gpt_disk()
    image = write(tmp_path, spec)
    bad = spec.block_file_offset(3) + 5 * 512
    with vhdx2raw.open(image, salvage=True) as disk:
        part = disk.partition(2)
        break_file(monkeypatch, image, bad)
        data = part.read()
    place = 3 * MIB + 5 * 512 - part.start
    assert part.lost.merged() == ((place, 512),)
    assert data is not None
    assert data[place : place + 512] == bytes(512)
    assert data[:place] == spec.expected_disk(part.start, place)
    assert not part.is_certain
