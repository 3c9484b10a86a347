"""The size of the table, and the memory that a large one takes (R74, R115, R116)."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench
from tests.support.builder import GIB, MIB, TIB, Block, BlockState, ImageSpec, child_of, golden_g1
from tests.support.chains import disk_bytes
from tests.support.memory import peak_memory
from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.findings import Severity
from vhdx2raw.vhdx.image import VhdxImage, open_image
from vhdx2raw.vhdx.layout import PayloadBlockState

# -- the size of the table -------------------------------------------------------------------


def test_a_region_that_just_holds_the_table_is_read(bench: Bench) -> None:
    spec = ImageSpec(131041 * MIB, MIB, {131040: Block(content=7)}, bat_length=MIB)
    assert bench.assert_reads(spec).geometry.bat_entry_count == MIB // 8


@pytest.mark.parametrize("more", [1, 100000])
def test_region_without_a_payload_entry_is_refused(bench: Bench, more: int) -> None:
    spec = ImageSpec((131041 + more) * MIB, MIB, bat_length=MIB)
    needed = 8 * spec.geometry.bat_entry_count(differencing=False)
    pattern = (
        "BAT region at file offset 0x300000: is too short for the disk: "
        rf"found 1048576 bytes, expected at least {needed} \(MS-VHDX 2.5\)"
    )
    bench.assert_refused(spec, CorruptImageError, "R74", pattern)


# -- memory ----------------------------------------------------------------------------------


def test_largest_disk_takes_modest_memory(bench: Bench) -> None:
    """64 TiB in blocks of 1 MiB: a table of 513 MiB, three blocks present."""
    last = 64 * TIB // MIB - 1
    spec = ImageSpec(64 * TIB, MIB, {k: Block(content=k % 200 + 1) for k in (last, 4096, 0)})
    opened: list[VhdxImage] = []
    extents: list[Extent] = []

    def walk() -> None:
        opened.append(bench.open(spec))
        extents.extend(iter_extents(Chain((opened[0],))))

    assert peak_memory(walk) < 16 * MIB
    (image,) = opened
    assert image.warnings == ()
    assert image.regions.bat.length == 513 * MIB
    found = [(e.virtual_offset, e.length) for e in extents if e.kind is ExtentKind.DATA]
    assert found == [(0, MIB), (4 * GIB, MIB), (last * MIB, MIB)]
    assert sum(extent.length for extent in extents) == 64 * TIB
    for offset, length in found:
        assert disk_bytes(image, offset, length) == spec.expected_disk(offset, length)


@pytest.mark.slow
def test_large_fragmented_disk_takes_modest_memory(bench: Bench) -> None:
    """No block follows another one."""
    count = 40000
    spec = ImageSpec(count * MIB, MIB, file_size=(4 + count) * MIB)
    index = spec.geometry.payload_bat_index
    spec.bat_overrides = {index(k): (3 + count - k) * MIB | 6 for k in range(count)}
    spec.write(bench.path)

    def walk() -> None:
        with open_image(bench.path) as image:
            assert sum(1 for _ in iter_extents(Chain((image,)))) == count

    assert peak_memory(walk) < 4 * MIB


# -- tables of children ----------------------------------------------------------------------


def child_with_short_table(last_block: int) -> ImageSpec:
    """Give a child whose last sector bitmap entry lies past its region, as DiscUtils does."""
    size = 127 * GIB
    child = child_of(golden_g1(), ".\\g1.vhdx", virtual_disk_size=size, bat_length=MIB)
    child.blocks[last_block] = Block(BlockState.PARTIALLY_PRESENT, content=7)
    child.bitmaps[31] = None
    return child


def test_region_without_unneeded_bitmap_entry_is_a_note(bench: Bench) -> None:
    image = bench.open(child_with_short_table(0))
    assert image.warnings == ()
    ((severity, finding),) = bench.reported()
    assert (severity, finding.rule) == (Severity.NOTE, "R74")
    assert str(finding) == (
        "BAT region at file offset 0x300000: lacks the last entry, of a sector bitmap: "
        "found 1048576 bytes, expected at least 1048832 (MS-VHDX 2.5)"
    )
    assert image.allocation.block_counts[PayloadBlockState.PARTIALLY_PRESENT] == 1


def test_region_without_needed_bitmap_entry_is_refused(bench: Bench) -> None:
    pattern = (
        "BAT entry of the sector bitmap block of chunk 31 at file offset 0x4000f8: "
        "it is not present, but a block of the chunk is partially present"
    )
    spec = child_with_short_table(31 * 4096)
    bench.assert_refused(spec, CorruptImageError, "R83", pattern)


def test_child_without_a_payload_entry_is_refused(bench: Bench) -> None:
    spec = child_of(golden_g1(), ".\\g1.vhdx", virtual_disk_size=131042 * MIB, bat_length=MIB)
    bench.assert_refused(spec, CorruptImageError, "R74", "is too short for the disk")
