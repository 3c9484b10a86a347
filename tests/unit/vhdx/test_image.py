"""The order in which a file is read and believed, and what is no VHDX at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    GIB,
    GOLDEN_RAW_SHA256,
    KIB,
    METADATA_REGION,
    MIB,
    PHYSICAL_SECTOR_SIZE,
    BlockState,
    ImageSpec,
    golden_g1,
    golden_g4,
    same_bytes_guid,
)
from tests.support.chains import disk_bytes
from tests.support.files import open_files
from tests.support.peers import needs_program
from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import CorruptImageError, ImageError, UnsupportedImageError
from vhdx2raw.vhdx import image as image_module
from vhdx2raw.vhdx.geometry import Geometry
from vhdx2raw.vhdx.image import open_image
from vhdx2raw.vhdx.layout import ZERO_GUID, PayloadBlockState

Damage = Callable[[ImageSpec], object]


# -- golden images ---------------------------------------------------------------------------


def test_golden_g1(bench: Bench) -> None:
    image = bench.assert_reads(golden_g1())
    assert image.header_section.creator == ""
    assert image.header_section.header_number == 2
    assert image.header_section.header.sequence_number == 2
    assert image.header_section.header.checksum == 0xFC6C224A
    assert image.header_section.header.file_write_guid == same_bytes_guid(0x11)
    assert image.header_section.header.data_write_guid == same_bytes_guid(0x22)
    assert image.header_section.header.log_guid == ZERO_GUID
    places = [(region.name, region.file_offset, region.length) for region in image.regions.reserved]
    assert places == [
        ("header section", 0, MIB),
        ("log", MIB, MIB),
        ("metadata region", 2 * MIB, MIB),
        ("BAT region", 3 * MIB, MIB),
    ]
    size = 3 * MIB + 1024
    assert image.metadata.virtual_disk_id == same_bytes_guid(0x33)
    assert image.geometry == Geometry(size, MIB, 512, has_parent=False)
    assert image.allocation.block_counts == {
        PayloadBlockState.FULLY_PRESENT: 1,
        PayloadBlockState.NOT_PRESENT: 2,
        PayloadBlockState.ZERO: 1,
    }
    digest = hashlib.sha256(disk_bytes(image, 0, size)).hexdigest()
    assert digest == GOLDEN_RAW_SHA256["g1"]


def test_golden_g4(bench: Bench) -> None:
    image = bench.assert_reads(golden_g4())
    assert image.metadata.disk_type == "dynamic"
    assert image.metadata.virtual_disk_id == same_bytes_guid(0x77)
    assert image.geometry == Geometry(5 * GIB, MIB, 512, has_parent=False)
    assert image.geometry.bat_entry_count == 5121
    assert list(iter_extents(Chain((image,)))) == [
        Extent(ExtentKind.DATA, 0, MIB, image, 4 * MIB),
        Extent(ExtentKind.ZERO, MIB, 4094 * MIB),
        Extent(ExtentKind.DATA, 4095 * MIB, 2 * MIB, image, 5 * MIB),
        Extent(ExtentKind.ZERO, 4097 * MIB, 1022 * MIB),
        Extent(ExtentKind.DATA, 5119 * MIB, MIB, image, 7 * MIB),
    ]


# -- the order of opening --------------------------------------------------------------------


def bad_signature(spec: ImageSpec) -> None:
    spec.signature = b"vhdxfilf"


def bad_headers(spec: ImageSpec) -> None:
    spec.headers[0].checksum = spec.headers[1].checksum = 0


def bad_version(spec: ImageSpec) -> None:
    spec.headers[0].version = spec.headers[1].version = 9


def bad_region_tables(spec: ImageSpec) -> None:
    spec.region_tables[0].checksum = spec.region_tables[1].checksum = 0


def bad_region(spec: ImageSpec) -> None:
    for table in spec.region_tables:
        table.entry(METADATA_REGION).length = 0


def bad_metadata_table(spec: ImageSpec) -> None:
    spec.metadata.signature = b"nonsense"


def bad_metadata_value(spec: ImageSpec) -> None:
    spec.logical_sector_size = 513


def bad_table_size(spec: ImageSpec) -> None:
    spec.virtual_disk_size, spec.bat_length = GIB * 1000, MIB


def bad_block(spec: ImageSpec) -> None:
    spec.blocks[0].reserved_bits = 1


IN_ORDER: list[tuple[Damage, type[ImageError], str]] = [
    (bad_signature, UnsupportedImageError, "R1"),
    (bad_headers, CorruptImageError, "R10"),
    (bad_version, UnsupportedImageError, "R11"),
    (bad_region_tables, CorruptImageError, "R43"),
    (bad_region, CorruptImageError, "R47"),
    (bad_metadata_table, CorruptImageError, "R54"),
    (bad_metadata_value, CorruptImageError, "R67"),
    (bad_table_size, CorruptImageError, "R74"),
    (bad_block, CorruptImageError, "R77"),
]


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_first_fault_in_reading_order_counts(bench: Bench, first: int) -> None:
    spec = golden_g1()
    for damage, _, _ in reversed(IN_ORDER[first:]):
        damage(spec)
    _, error, rule = IN_ORDER[first]
    bench.assert_refused(spec, error, rule, r"disk\.vhdx: ")


def test_warnings_stand_in_the_order_of_reading(bench: Bench) -> None:
    spec = golden_g1()
    spec.headers[0].signature = b"\0\0\0\0"
    spec.region_tables[0].checksum = 0
    spec.metadata.reserved = 1
    spec.metadata.remove(PHYSICAL_SECTOR_SIZE)
    spec.blocks[2].state = BlockState.UNMAPPED_V095
    bench.assert_reads(
        spec,
        ("R7", "header 1"),
        ("R42", "region table 1"),
        ("R54", "metadata table"),
        ("R61", "Physical Sector Size"),
        ("R80", "state 5"),
    )


# -- the file as a resource ------------------------------------------------------------------


@pytest.mark.parametrize(("damage", "error", "rule"), IN_ORDER)
def test_a_refused_file_is_named_and_closed(
    tmp_path: Path, damage: Damage, error: type[ImageError], rule: str
) -> None:
    path = tmp_path / "bad disk.vhdx"
    spec = golden_g1()
    damage(spec)
    spec.write(path)
    before = open_files()
    with pytest.raises(error) as caught:
        open_image(str(path))
    assert open_files() == before
    assert caught.value.finding.rule == rule
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.finding}"


def test_any_other_failure_closes_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden_g1().write(tmp_path / "disk.vhdx")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(image_module, "read_metadata", interrupt)
    before = open_files()
    with pytest.raises(KeyboardInterrupt):
        open_image(tmp_path / "disk.vhdx")
    assert open_files() == before


def test_errors_of_the_host_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden_g1().write(tmp_path / "disk.vhdx")
    before = open_files()

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        patched.setattr(os, "preadv", fail)
        with pytest.raises(OSError, match="Input/output error"):
            open_image(tmp_path / "disk.vhdx")
    assert open_files() == before
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.vhdx")


def test_image_may_be_closed_twice(tmp_path: Path) -> None:
    golden_g1().write(tmp_path / "disk.vhdx")
    before = open_files()
    with open_image(tmp_path / "disk.vhdx") as image:
        assert len(open_files()) == len(before) + 1
    image.close()
    assert open_files() == before


def test_reading_leaves_the_file_as_it_was(bench: Bench) -> None:
    spec = golden_g1()
    spec.write(bench.path)
    content, before = bench.path.read_bytes(), bench.path.stat()
    with open_image(bench.path) as image:
        disk_bytes(image, 0, image.virtual_disk_size)
    after = bench.path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert bench.path.read_bytes() == content


def test_a_file_without_write_permission_is_read(bench: Bench) -> None:
    golden_g1().write(bench.path)
    bench.path.chmod(0o400)
    with open_image(bench.path) as image:
        assert image.warnings == ()


# -- what is no VHDX -------------------------------------------------------------------------

BOOT_SECTOR = bytes(510) + b"\x55\xaa"
FOREIGN = {
    "empty": (b"", "is empty, not a VHDX", "fetch it again"),
    "one byte": (b"v", "is something else, not a VHDX", "begins with the text vhdxfile"),
    "zeros": (bytes(5 * MIB), "is something else, not a VHDX", "begins with the text vhdxfile"),
    "only signature": (b"vhdxfile", "is only 8 bytes long, not a VHDX", "fetch it again"),
    "cut": (b"vhdxfile".ljust(519, b"\0"), "is only 519 bytes long", "fetch it again"),
    "vhd": (b"conectix".ljust(4096, b"\0"), "is a legacy VHD image", "convert it to VHDX first"),
    "fixed vhd": (bytes(MIB) + b"conectix".ljust(512, b"\0"), "is a legacy VHD image", "convert"),
    "fixed vhd of a disk": (
        BOOT_SECTOR.ljust(MIB, b"\0") + b"conectix".ljust(511, b"\0"),
        "is a legacy VHD image",
        "convert",
    ),
    "tiny vhd": (b"\0\0conectix", "is a legacy VHD image", "convert"),
    "qcow2": (b"QFI\xfb\0\0\0\x03", "is a qcow2 image", "use qemu-img"),
    "vmdk": (b"KDMV\x01\0\0\0", "is a VMDK image", "use qemu-img"),
    "old vmdk": (b"COWD", "is a VMDK image", "use qemu-img"),
    "gzip": (gzip.compress(b"vhdxfile"), "is a gzip archive", "decompress it first"),
    "bzip2": (bz2.compress(b"vhdxfile"), "is a bzip2 archive", "decompress it first"),
    "xz": (lzma.compress(b"vhdxfile"), "is an xz archive", "decompress it first"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "is a zstd archive", "decompress it first"),
    "zip": (b"PK\x03\x04", "is a zip archive", "unpack it first"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", "unpack it first"),
    "raw disk": (
        BOOT_SECTOR.ljust(64 * KIB, b"\0"),
        "is a disk with a boot sector",
        "it seems to be a raw image already",
    ),
}


def assert_foreign(path: Path, text: str, hint: str) -> None:
    """Open a file that is refused as another kind of file."""
    before = open_files()
    with pytest.raises(UnsupportedImageError) as caught:
        open_image(path)
    assert open_files() == before
    error = caught.value
    assert error.finding.rule == "R1"
    assert str(error).startswith(f"{path}: file: {text}")
    assert str(error).endswith("not a VHDX (MS-VHDX 2.2.1)")
    assert hint in error.hint


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_vhdx_is_named(tmp_path: Path, name: str) -> None:
    content, text, hint = FOREIGN[name]
    path = tmp_path / "disk.vhdx"
    path.write_bytes(content)
    assert_foreign(path, text, hint)


@pytest.mark.parametrize("name", ["set.vhds", "SET.VHDS"])
def test_a_vhd_set_is_named_by_its_extension(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"the start of a VHD Set")
    assert_foreign(path, "is a VHD Set (.vhds)", ".avhdx file beside it")


def test_the_extension_decides_nothing_about_a_vhdx(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhds"
    golden_g1().write(path)
    with open_image(path) as image:
        assert image.virtual_disk_size == golden_g1().virtual_disk_size


def test_vhd_signature_at_the_end_is_ignored(bench: Bench) -> None:
    spec = golden_g1()
    spec.patches[5 * MIB] = b"conectix".ljust(512, b"\0")
    bench.assert_reads(spec)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-f", "qcow2"], "is a qcow2 image"),
        (["-f", "vmdk"], "is a VMDK image"),
        (["-f", "vpc"], "is a legacy VHD image"),
        (["-f", "vpc", "-o", "subformat=fixed"], "is a legacy VHD image"),
    ],
)
def test_other_formats_made_by_qemu_are_named(
    tmp_path: Path, options: list[str], text: str
) -> None:
    path = tmp_path / "disk"
    subprocess.run([needs_program("qemu-img"), "create", "-q", *options, path, "2M"], check=True)
    assert_foreign(path, text, "")
