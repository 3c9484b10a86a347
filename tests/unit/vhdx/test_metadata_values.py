"""The values of the known metadata items (R63 to R69)."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    KIB,
    MIB,
    TIB,
    Block,
    ImageSpec,
    golden_g1,
    golden_g3,
    same_bytes_guid,
)
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.vhdx.metadata import Metadata

LIMIT = 64 * TIB


# -- file parameters -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MIB << power for power in range(9)])
def test_every_block_size_is_read(bench: Bench, size: int) -> None:
    spec = ImageSpec(3 * MIB, size, {0: Block(content={5: b"here", size - 9: b"and there"})})
    assert bench.assert_reads(spec).metadata.block_size == size


@pytest.mark.parametrize("size", [0, 1, 512 * KIB, 3 * MIB, MIB + 1, 512 * MIB, 0xFFFFFFFF])
def test_other_block_sizes_are_corrupt(bench: Bench, size: int) -> None:
    spec = ImageSpec(3 * MIB, size)
    pattern = (
        "metadata item File Parameters at file offset 0x210000: the block size is not a power "
        rf"of two from 1 MiB to 256 MiB: found {size} bytes \(MS-VHDX 2.6.2.1\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R63", pattern)


@pytest.mark.parametrize(
    ("flags", "disk_type"), [(0, "dynamic"), (1, "fixed"), (2, "differencing"), (3, "differencing")]
)
def test_the_type_of_the_disk_follows_from_two_flags(
    bench: Bench, flags: int, disk_type: str
) -> None:
    spec = golden_g3()
    spec.file_parameters_flags = flags
    spec.blocks.clear()
    metadata = bench.open(spec).metadata
    assert metadata.disk_type == disk_type
    assert metadata.leave_block_allocated is bool(flags & 1)
    assert metadata.has_parent is bool(flags & 2)


def test_the_table_of_a_fixed_disk_rules(bench: Bench) -> None:
    """QEMU makes fixed disks of blocks that are ZERO, others lie anywhere."""
    spec = ImageSpec(6 * MIB, MIB, {4: Block(), 1: Block(2), 0: Block(), 2: Block(3), 3: Block(1)})
    spec.leave_block_allocated = True
    bench.assert_reads(spec)


@pytest.mark.parametrize("flags", [4, 0x80000000, 0xFFFFFFFC])
def test_reserved_flags_are_a_warning(bench: Bench, flags: int) -> None:
    spec = golden_g1()
    spec.file_parameters_flags = flags
    pattern = f"metadata item File Parameters .*: reserved flags are set: found {flags:#x} "
    image = bench.assert_reads(spec, ("R65", pattern))
    assert image.metadata.disk_type == "dynamic"


# -- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (0, "the disk has no sector at all"),
        (LIMIT + 512, "the disk is larger than 64 TiB"),
        (2**64 - 512, "the disk is larger than 64 TiB"),
        (2**64 - 1, "the disk is larger than 64 TiB"),
        (1, "is not a multiple of the logical sector size of 512 bytes"),
        (3 * MIB + 511, "is not a multiple of the logical sector size of 512 bytes"),
    ],
)
def test_impossible_disk_sizes_are_corrupt(bench: Bench, size: int, problem: str) -> None:
    spec = golden_g1()
    spec.virtual_disk_size, spec.bat_length = size, MIB
    pattern = (
        f"metadata item Virtual Disk Size at file offset 0x210008: {problem}: "
        rf"found {size} bytes \(MS-VHDX 2.6.2.2\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R66", pattern)


def test_the_disk_size_is_measured_in_logical_sectors(bench: Bench) -> None:
    spec = golden_g1()
    spec.logical_sector_size = 4096
    pattern = "not a multiple of the logical sector size of 4096 bytes: found 3146752 bytes"
    bench.assert_refused(spec, CorruptImageError, "R66", pattern)


def test_the_largest_disk_is_opened(bench: Bench) -> None:
    spec = ImageSpec(LIMIT, 256 * MIB, {262143: Block(content={256 * MIB - 4: b"last"})})
    image = bench.assert_reads(spec)
    assert image.geometry.payload_block_count == 262144


@pytest.mark.parametrize("size", [512, 1024, 2 * MIB, 2 * MIB + 512, 4 * MIB - 512])
def test_disks_need_not_fill_their_blocks(bench: Bench, size: int) -> None:
    """An odd number of 512-byte sectors among them."""
    spec = ImageSpec(size, 2 * MIB, {index: Block() for index in range(-(-size // (2 * MIB)))})
    bench.assert_reads(spec)


@pytest.mark.parametrize("size", [0, 1, 256, 1024, 8192, 0x80000200])
def test_other_logical_sector_sizes_are_corrupt(bench: Bench, size: int) -> None:
    spec = golden_g1()
    spec.logical_sector_size = size
    pattern = (
        "metadata item Logical Sector Size at file offset 0x210020: "
        rf"is neither 512 nor 4096 bytes: found {size} \(MS-VHDX 2.6.2.4\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R67", pattern)


@pytest.mark.parametrize("physical", [512, 4096])
@pytest.mark.parametrize("logical", [512, 4096])
def test_all_pairs_of_sector_sizes_are_read(bench: Bench, logical: int, physical: int) -> None:
    spec = ImageSpec(3 * MIB + 4096, MIB, {3: Block(), 1: Block()})
    spec.logical_sector_size, spec.physical_sector_size = logical, physical
    metadata = bench.assert_reads(spec).metadata
    assert (metadata.logical_sector_size, metadata.physical_sector_size) == (logical, physical)


@pytest.mark.parametrize("size", [0, 1024, 0xFFFFFFFF])
def test_another_physical_sector_size_is_a_note(bench: Bench, size: int) -> None:
    spec = golden_g1()
    spec.physical_sector_size = size
    pattern = (
        "metadata item Physical Sector Size at file offset 0x210024: "
        rf"is neither 512 nor 4096 bytes: found {size} "
    )
    image = bench.assert_reads(spec, ("R68", pattern))
    assert image.metadata.physical_sector_size == size


def test_the_value_has_what_the_items_say(bench: Bench) -> None:
    spec = golden_g1()
    spec.virtual_disk_id = same_bytes_guid(0xAB)
    assert bench.assert_reads(spec).metadata == Metadata(
        block_size=MIB,
        leave_block_allocated=False,
        has_parent=False,
        virtual_disk_size=3 * MIB + 1024,
        virtual_disk_id=same_bytes_guid(0xAB),
        logical_sector_size=512,
        physical_sector_size=4096,
        parent_locator=None,
        parent_locator_error=None,
    )
