"""What lies inside a disk: real file systems and tables, and volumes made by hand."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builder import KIB, MIB, TIB
from tests.support.contents import (
    BOOT_MARK,
    PROTECTIVE,
    UUID_TEXT,
    FileDisk,
    MadeDisk,
    call,
    contents_of,
    places,
    record,
)
from vhdx2raw.disk.contents import Contents, Scheme, Usage, Volume, read_contents
from vhdx2raw.disk.contents.partition_types import GPT_TYPES, MBR_TYPES
from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.source.formats import name_image_format
from vhdx2raw.vhdx.image import open_image

# -- file systems that their own programs made ---------------------------------------------------

FS = Usage.FILE_SYSTEM
EXT = f"-q -L root -U {UUID_TEXT} FILE"
MADE = {
    "ext2": (8, f"mke2fs -t ext2 {EXT}", ("ext2", FS, "root", UUID_TEXT)),
    "ext3": (8, f"mke2fs -t ext3 {EXT}", ("ext3", FS, "root", UUID_TEXT)),
    "ext4": (8, f"mke2fs -t ext4 {EXT}", ("ext4", FS, "root", UUID_TEXT)),
    "xfs": (320, f"mkfs.xfs -q -L a -m uuid={UUID_TEXT} FILE", ("XFS", FS, "a", UUID_TEXT)),
    "btrfs": (128, f"mkfs.btrfs -q -L b -U {UUID_TEXT} FILE", ("Btrfs", FS, "b", UUID_TEXT)),
    "swap": (1, f"mkswap -L c -U {UUID_TEXT} FILE", ("swap", Usage.SWAP, "c", UUID_TEXT)),
    "swap of large pages": (
        1,
        f"mkswap -p 65536 -U {UUID_TEXT} FILE",
        ("swap", Usage.SWAP, "", UUID_TEXT),
    ),
    "fat12": (2, "mkfs.vfat -F 12 -n BOOT FILE", ("FAT12", FS, "BOOT", "")),
    "fat16": (16, "mkfs.vfat -F 16 -n BOOT FILE", ("FAT16", FS, "BOOT", "")),
    "fat32": (64, "mkfs.vfat -F 32 FILE", ("FAT32", FS, "", "")),
    "ntfs": (8, "mkfs.ntfs -q -F -Q FILE", ("NTFS", FS, "", "")),
    "exfat": (8, "mkfs.exfat FILE", ("exFAT", FS, "", "")),
    "squashfs": (0, "mksquashfs FOLDER FILE -noappend -quiet", ("squashfs", FS, "", "")),
    "iso": (0, "genisoimage -quiet -V DISC -o FILE FOLDER", ("ISO 9660", FS, "DISC", "")),
    "luks": (
        32,
        "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 FILE -",
        ("LUKS", Usage.ENCRYPTED, "", ""),
    ),
}
"""MiB of the file, the command that makes a volume in it; its kind, usage, label and UUID."""


def facts_of(volume: Volume | None) -> tuple[str, Usage, str, str]:
    """Give what the table lists of a volume, which must be there."""
    assert volume
    return volume.kind, volume.usage, volume.label, volume.uuid


def make_volume(name: str, folder: Path) -> Path:
    """Make a file with a volume of the table."""
    size, command, _ = MADE[name]
    file, tree = folder / "volume.img", folder / "tree"
    tree.mkdir()
    with file.open("wb") as stream:
        stream.truncate(size * MIB)
    names = {"FILE": file, "FOLDER": tree}
    call(*(names.get(word, word) for word in command.split()), text="password")
    return file


@pytest.mark.parametrize("name", MADE)
def test_volume_of_its_own_program_is_recognized(name: str, tmp_path: Path) -> None:
    contents = read_contents(FileDisk(make_volume(name, tmp_path)), 512)
    assert facts_of(contents.volume) == MADE[name][2]
    assert contents.table is None
    assert (contents.image_format, contents.problems) == ("", ())


# -- volumes made by hand ------------------------------------------------------------------------

FAT_FIELDS = {0: b"\xeb\x3c\x90", 11: b"\0\x02\x04\x01\0\x02", **BOOT_MARK}
BUILT: dict[str, tuple[Mapping[int, bytes], str, Usage]] = {
    "ReFS": ({3: b"ReFS\0\0\0\0"}, "ReFS", FS),
    "NTFS": ({3: b"NTFS    ", **BOOT_MARK}, "NTFS", FS),
    "exFAT": ({3: b"EXFAT   ", **BOOT_MARK}, "exFAT", FS),
    "FAT16": ({**FAT_FIELDS, 54: b"FAT16   "}, "FAT16", FS),
    "BitLocker": ({3: b"-FVE-FS-", **BOOT_MARK}, "BitLocker", Usage.ENCRYPTED),
    "BitLocker To Go": (
        {**FAT_FIELDS, 82: b"FAT32   ", 424: bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")},
        "BitLocker",
        Usage.ENCRYPTED,
    ),
    "LUKS": ({0: b"LUKS\xba\xbe\0\x02"}, "LUKS", Usage.ENCRYPTED),
    "LVM2 in sector 1": ({512: b"LABELONE"}, "LVM2 physical volume", Usage.CONTAINER),
    "LVM2 in sector 3": ({1536: b"LABELONE"}, "LVM2 physical volume", Usage.CONTAINER),
    "RAID": ({4096: struct.pack("<I", 0xA92B4EFC)}, "Linux RAID member", Usage.CONTAINER),
    "ZFS": (
        {16384: struct.pack(">4BII II I8s", 1, 1, 0, 0, 0, 1, 36, 32, 7, b"version\0")},
        "ZFS member",
        Usage.CONTAINER,
    ),
    "ISO 9660": ({32768: b"\x01CD001\x01"}, "ISO 9660", FS),
    "squashfs": ({0: b"hsqs"}, "squashfs", FS),
    "EROFS": ({1024: struct.pack("<I", 0xE0F5E1E2)}, "EROFS", FS),
    "F2FS": ({1024: struct.pack("<I", 0xF2F52010)}, "F2FS", FS),
    "HFS+": ({1024: b"H+\0\x04"}, "HFS+", FS),
    "APFS": ({32: b"NXSB"}, "APFS", FS),
    "ext journal": ({1080: b"\x53\xef", 1120: b"\x08"}, "ext journal", FS),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_volume_is_recognized_by_its_signature(name: str) -> None:
    pieces, kind, usage = BUILT[name]
    contents = contents_of(pieces)
    assert contents.volume
    assert (contents.volume.kind, contents.volume.usage) == (kind, usage)
    assert contents.table is None
    assert contents.problems == ()


def test_label_with_bad_bytes_is_text() -> None:
    contents = contents_of({0: b"XFSB", 108: b"\x1b[31m\xff" + b"x" * 20})
    assert contents.volume
    assert contents.volume.label == "\x1b[31m\N{REPLACEMENT CHARACTER}xxxxxx"


@pytest.mark.parametrize(
    "pieces",
    [
        {54: b"FAT16   ", **BOOT_MARK},
        {**FAT_FIELDS, 54: b"FAT16   ", 13: b"\x03"},
        {**FAT_FIELDS, 54: b"FAT16   ", 16: b"\0"},
        {54: b"FAT16   ", 0: b"\xeb", 11: FAT_FIELDS[11]},
    ],
    ids=["text alone", "wrong cluster size", "no FAT", "no mark"],
)
def test_the_word_fat_alone_makes_no_fat(pieces: Mapping[int, bytes]) -> None:
    assert contents_of(pieces).volume is None


@pytest.mark.parametrize("size", [512, 1024, 1081, 4095, 32770, 65607])
def test_signature_past_the_end_is_not_read(size: int) -> None:
    pieces = {1080: b"\x53\xef", 4086: b"SWAPSPACE2", 32769: b"CD001", 65600: b"_BHRfS_M"}
    found = contents_of(
        {size - 1: b"\0", **{k: v for k, v in pieces.items() if k >= size - 4}}, size
    )
    assert found.volume is None


def test_an_empty_disk_holds_nothing_that_is_known() -> None:
    assert contents_of({}) == Contents(None, None, "", ())


# -- tables made by sfdisk and others ------------------------------------------------------------


def read_by_sfdisk(path: Path) -> dict[str, Any]:
    """Give the table as sfdisk sees it."""
    table: dict[str, Any] = json.loads(call("sfdisk", "--json", path))["partitiontable"]
    return table


def assert_as_sfdisk_sees_it(path: Path, contents: Contents) -> None:
    theirs = read_by_sfdisk(path)
    assert contents.table
    assert len(theirs["partitions"]) == len(contents.table.partitions)
    for ours, their in zip(contents.table.partitions, theirs["partitions"], strict=True):
        assert their["node"] == f"{path}{ours.number}"
        assert (ours.start, ours.size) == (512 * their["start"], 512 * their["size"])
        type_id = ours.type_id.upper() if "-" in ours.type_id else f"{int(ours.type_id, 16):x}"
        assert type_id == their["type"]
        assert ours.name == their.get("name", "")
        assert ours.uuid.upper() == their.get("uuid", "")
    disk_id = contents.table.disk_id
    assert theirs["id"] in (disk_id.upper(), f"0x{disk_id}")


def blank(path: Path, size: int = 64 * MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.slow
def test_mbr_is_read_like_sfdisk(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    script = "label: dos\n,8M,83\n,8M,7\n,,5\n,4M,82\n,4M,8e\n,,c\n"
    call("sfdisk", "-q", disk, text=script)
    contents = read_contents(FileDisk(disk), 512)
    assert contents.table
    assert (contents.table.scheme, contents.table.sector_size) == (Scheme.MBR, 512)
    assert [part.number for part in contents.table.partitions] == [1, 2, 3, 5, 6, 7]
    assert contents.problems == ()
    assert_as_sfdisk_sees_it(disk, contents)


@pytest.mark.slow
def test_gpt_is_read_like_sfdisk(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    script = 'label: gpt\nsize=8M,type=uefi,name="EFI \N{SNOWMAN}"\nsize=8M,type=swap\ntype=linux\n'
    call("sfdisk", "-q", disk, text=script)
    contents = read_contents(FileDisk(disk), 512)
    assert contents.table
    assert (contents.table.scheme, contents.table.sector_size) == (Scheme.GPT, 512)
    names = [part.type_name for part in contents.table.partitions]
    assert names == ["EFI System", "Linux swap", "Linux filesystem"]
    assert contents.problems == ()
    assert_as_sfdisk_sees_it(disk, contents)


@pytest.mark.slow
def test_volumes_are_found_in_their_partitions(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    call("sfdisk", "-q", disk, text="label: gpt\nsize=8M,type=swap\nsize=16M,type=linux\n")
    volume = make_volume("ext4", tmp_path)
    with disk.open("r+b") as file:
        file.seek(512 * read_by_sfdisk(disk)["partitions"][1]["start"])
        file.write(volume.read_bytes())
    contents = read_contents(FileDisk(disk), 512)
    assert contents.volume is None
    assert contents.table
    swap, ext4 = contents.table.partitions
    assert swap.volume is None
    assert facts_of(ext4.volume) == MADE["ext4"][2]


@pytest.fixture
def large_sectors(tmp_path: Path) -> Path:
    """Give a disk with a GPT for sectors of 4096 bytes, one partition from sector 256 on."""
    disk = blank(tmp_path / "disk")
    call("fdisk", "-b", "4096", disk, text="g\nn\n1\n256\n+8M\nw\n")
    return disk


def test_gpt_for_large_sectors_is_read(large_sectors: Path) -> None:
    contents = read_contents(FileDisk(large_sectors), 4096)
    assert contents.table
    assert (contents.table.scheme, contents.table.sector_size) == (Scheme.GPT, 4096)
    [(number, start, size)] = places(contents)
    assert (number, start) == (1, MIB)
    assert size in (8 * MIB, 8 * MIB + 4096)  # versions of fdisk disagree about "+8M"
    assert contents.problems == ()


def test_gpt_for_other_sectors_is_a_problem(large_sectors: Path) -> None:
    contents = read_contents(FileDisk(large_sectors), 512)
    assert contents.table
    assert contents.table.sector_size == 4096
    assert places(contents)[0][:2] == (1, MIB)
    [problem] = contents.problems
    assert problem == (
        "the GPT is one for sectors of 4096 bytes, but those of the disk have 512: an operating"
        " system finds no partition"
    )


@pytest.mark.slow
def test_hybrid_mbr_is_recognized(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    call("sgdisk", "-n", "1:2048:+8M", "-n", "2:0:+8M", "--hybrid", "1:2", disk)
    contents = read_contents(FileDisk(disk), 512)
    assert contents.table
    assert contents.table.scheme is Scheme.HYBRID
    assert [number for number, _, _ in places(contents)] == [1, 2]
    assert contents.problems == ()


@pytest.mark.parametrize(("label", "names"), [("dos", MBR_TYPES), ("gpt", GPT_TYPES)])
def test_partition_types_have_the_names_of_sfdisk(
    label: str, names: Mapping[int | str, str]
) -> None:
    lines = call("sfdisk", "--list-types", "--label", label).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if len(line.split()) > 1]
    theirs = {key.lower(): name.strip() for key, name in pairs}
    ours = {key if isinstance(key, str) else f"{key:x}": name for key, name in names.items()}
    assert {key: theirs.get(key) for key in ours} == ours


# -- disks that look like an image ---------------------------------------------------------------

IMAGES = {
    "VHDX": b"vhdxfile",
    "qcow2": b"QFI\xfb\0\0\0\x03",
    "QED": b"QED\0",
    "legacy VHD": b"conectix",
    "VDI": b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe",
    "Parallels": b"WithoutFreeSpace",
    "VMDK": b"KDMV\x01\0\0\0",
}


@pytest.mark.parametrize("name", IMAGES)
def test_the_format_of_an_image_is_named(name: str) -> None:
    assert name_image_format(IMAGES[name].ljust(512, b"\0")) == name


@pytest.mark.parametrize("name", sorted(IMAGES.keys() - {"VHDX"}))
def test_other_image_format_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    path.write_bytes(IMAGES[name].ljust(4096, b"\0"))
    with pytest.raises(UnsupportedImageError, match=f"is a {name} image, not a VHDX"):
        open_image(path)


@pytest.mark.parametrize(
    "start",
    [b"# Disk DescriptorFile\nversion=1\nCID=123", b"# a\n \r\n# b\n  \nversion=3\r\n", b"COWD"],
)
def test_all_that_qemu_takes_for_a_vmdk_is_one(start: bytes) -> None:
    assert name_image_format(start) == "VMDK"


@pytest.mark.parametrize("start", [b"", bytes(512), b" QFI\xfb", b"# a\nCID=1\n", record()])
def test_what_is_no_image_has_no_name(start: bytes) -> None:
    assert name_image_format(start) == ""


@pytest.mark.slow
def test_a_long_comment_is_searched_in_linear_time() -> None:
    assert name_image_format(b"#\n" * (4 * MIB) + b"#") == ""


def test_image_format_before_a_partition_table_is_named() -> None:
    contents = contents_of({0: IMAGES["qcow2"] + record((0x83, 100, 100))[8:]})
    assert contents.image_format == "qcow2"
    assert places(contents) == [(1, 51200, 51200)]
    [problem] = contents.problems
    assert problem == (
        "the disk begins like a qcow2 image: tell every program that reads the raw disk that its"
        " format is raw"
    )


# -- anything at all -----------------------------------------------------------------------------

PLACES = [0, 440, 446, 510, 512, 584, 1024, 1080, 4096, 4168, 32769, 65600, 131071 * 512]
PIECES = st.dictionaries(
    st.sampled_from(PLACES),
    st.binary(max_size=200)
    | st.sampled_from([PROTECTIVE, record((5, 0, 9)), b"\x55\xaa", b"EFI PART", *IMAGES.values()]),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    pieces=PIECES,
    sector_size=st.sampled_from([512, 4096]),
    size=st.sampled_from([512, 4 * KIB, 64 * MIB, 64 * TIB]),
)
def test_any_contents_are_read_in_bounds(
    pieces: dict[int, bytes], sector_size: int, size: int
) -> None:
    disk = MadeDisk(size, {0: bytes(size and 1), **pieces})
    contents = read_contents(disk, sector_size)
    assert all(problem.isprintable() for problem in contents.problems)
    assert disk.read_bytes < 8 * MIB
