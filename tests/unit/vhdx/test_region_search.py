"""A file without region tables is salvaged by its metadata table and the entries of its BAT."""

from pathlib import Path

import pytest

import vhdx2raw
from tests.support.builder import GIB, KIB, MIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import base_disk
from tests.support.cli import run, small_disk

Capture = pytest.CaptureFixture[str]
TABLES = (192 * KIB, 128 * KIB)
FIRST_MIB = (0, MIB)
METADATA, BAT = 2 * MIB, 3 * MIB


def wiped(path: Path, spec: ImageSpec, *ranges: tuple[int, int]) -> Path:
    """Write an image, and zeros over ranges (offset, length) of it."""
    spec.write(path)
    with path.open("r+b") as file:
        for offset, length in ranges:
            file.seek(offset)
            file.write(bytes(length))
    return path


def salvaged(path: Path, **regions: int) -> bytes:
    """Read the whole disk."""
    with vhdx2raw.open(path, salvage=True, regions=regions) as disk:
        return disk.pread(disk.size, 0)


def large_disk() -> ImageSpec:
    """Describe a disk whose table is longer than one piece of it, with blocks far apart."""
    return ImageSpec(600 * GIB, MIB, {0: Block(), 140_000: Block(), 550_000: Block()})


@pytest.mark.parametrize("lost", [TABLES, FIRST_MIB], ids=["region tables", "first MiB"])
def test_everything_is_found_by_itself(tmp_path: Path, lost: tuple[int, int]) -> None:
    spec = small_disk()
    path = wiped(tmp_path / "disk.vhdx", spec, lost)
    assert salvaged(path) == spec.expected_disk(0, spec.virtual_disk_size)


def test_regions_in_unusual_places_are_found(tmp_path: Path) -> None:
    spec = ImageSpec(
        5 * MIB, MIB, {0: Block(), 2: Block()}, metadata_offset=9 * MIB, bat_offset=12 * MIB
    )
    path = wiped(tmp_path / "disk.vhdx", spec, TABLES)
    assert salvaged(path) == spec.expected_disk(0, spec.virtual_disk_size)


@pytest.mark.slow
def test_a_table_of_several_mib_is_found_from_its_start(tmp_path: Path) -> None:
    spec = large_disk()
    path = wiped(tmp_path / "disk.vhdx", spec, TABLES)
    with vhdx2raw.open(path, salvage=True) as disk:
        for block in spec.blocks:
            expected = spec.expected_disk(block * MIB, MIB)
            assert disk.pread(MIB, block * MIB) == expected


def test_a_differencing_disk_is_found_with_its_bitmaps(tmp_path: Path) -> None:
    base = base_disk()
    base.write(tmp_path / "base.vhdx")
    child = child_of(base, "base.vhdx")
    child.blocks = {0: Block(BlockState.PARTIALLY_PRESENT, content=7, sector_bits={1, 5})}
    path = tmp_path / "child.vhdx"
    child.write(path)
    with vhdx2raw.open(path) as disk:
        expected = disk.pread(2 * MIB, 0)
    assert salvaged(wiped(path, child, TABLES))[: 2 * MIB] == expected


def test_what_was_assumed_is_told(tmp_path: Path, capfd: Capture) -> None:
    path = wiped(tmp_path / "disk.vhdx", small_disk(), TABLES)
    outcome = run(capfd, "--salvage", path, tmp_path / "out.img")
    assert outcome.exit_code == 3
    assert (
        "regions: it is assumed that the metadata region lies at 0x200000, by its signature and the"
        " BAT region lies at 0x300000, by its entries" in outcome.err
    )
    assert outcome.err_lines[-1].endswith("salvaged; no range of the disk was lost")


def test_without_salvage_it_is_refused(tmp_path: Path, capfd: Capture) -> None:
    assert run(capfd, wiped(tmp_path / "1.vhdx", small_disk(), TABLES), "null:").exit_code == 5
    assert run(capfd, wiped(tmp_path / "2.vhdx", small_disk(), FIRST_MIB), "null:").exit_code == 4


def test_regions_can_be_named(tmp_path: Path, capfd: Capture) -> None:
    spec = small_disk()
    path = wiped(tmp_path / "disk.vhdx", spec, TABLES)
    assert salvaged(path, bat=BAT, metadata=METADATA) == spec.expected_disk(
        0, spec.virtual_disk_size
    )
    words = ("--region", "bat=0x300000", "--region", f"metadata={METADATA}")
    outcome = run(capfd, "--salvage", *words, path, tmp_path / "out.img")
    assert outcome.exit_code == 3
    assert "the BAT region lies at 0x300000, as was said" in outcome.err
    assert (tmp_path / "out.img").read_bytes() == spec.expected_disk(0, spec.virtual_disk_size)


def test_a_wiped_table_is_not_guessed(tmp_path: Path) -> None:
    path = wiped(tmp_path / "disk.vhdx", small_disk(), TABLES, (BAT, MIB))
    with vhdx2raw.open(path, salvage=True) as disk:
        assert any("no BAT region" in str(finding) for _, finding in disk.damage)
        assert not any(disk.pread(disk.size, 0))


def test_without_metadata_there_is_no_disk(tmp_path: Path) -> None:
    path = wiped(tmp_path / "1.vhdx", small_disk(), TABLES, (METADATA, MIB))
    with pytest.raises(vhdx2raw.CorruptImageError, match="region tables: none is valid"):
        vhdx2raw.open(path, salvage=True)
    path = wiped(tmp_path / "2.vhdx", small_disk(), FIRST_MIB, (METADATA, MIB))
    with pytest.raises(vhdx2raw.UnsupportedImageError, match="not a VHDX"):
        vhdx2raw.open(path, salvage=True)


def test_a_region_has_a_known_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no region 'log', only bat or metadata"):
        vhdx2raw.open(tmp_path / "disk.vhdx", salvage=True, regions={"log": MIB})


USAGES = {
    "no salvage": (("--region", "bat=1M"), "--region is about a damaged disk; give --salvage"),
    "no number": (("--salvage", "--region", "bat=x"), "--region needs bat=OFFSET"),
    "no name": (("--salvage", "--region", "log=4096"), "--region needs bat=OFFSET"),
    "negative": (("--salvage", "--region", "bat=-1"), "--region needs bat=OFFSET"),
}


@pytest.mark.parametrize(("words", "line"), USAGES.values(), ids=USAGES)
def test_a_region_that_means_nothing_is_a_usage_error(
    tmp_path: Path, capfd: Capture, words: tuple[str, ...], line: str
) -> None:
    outcome = run(capfd, *words, tmp_path / "disk.vhdx", "null:")
    assert outcome.exit_code == 2
    assert line in outcome.err
