"""The commands of `info` that lead to what a disk holds, and how it reports a missing parent."""

import uuid
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import run
from tests.support.contents import gpt

Capture = pytest.CaptureFixture[str]
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ATTACH = "losetup --read-only --find --show disk.img"
ATTACH_PARTITIONS = "losetup --read-only --partscan --find --show disk.img"
EXT = {1080: b"\x53\xef"}
COMPATIBLE, INCOMPATIBLE, READ_ONLY = 1024 + 0x5C, 1024 + 0x60, 1024 + 0x64


def ext4(*, dirty: bool) -> dict[int, bytes]:
    """Describe an ext4: extents, and a journal that may have to be replayed."""
    features = 0x40 | (0x4 if dirty else 0)
    return EXT | {
        COMPATIBLE: (4).to_bytes(4, "little"),
        INCOMPATIBLE: features.to_bytes(4, "little"),
    }


VOLUMES = {
    "ext4": (ext4(dirty=False), "mount -o {}ro {} /mnt"),
    "ext4 with a dirty journal": (ext4(dirty=True), "mount -o {}ro,noload {} /mnt"),
    "XFS": ({0: b"XFSB"}, "mount -o {}ro,norecovery {} /mnt"),
    "NTFS": ({3: b"NTFS    "}, "mount -o {}ro {} /mnt"),
}
CONTAINERS = {
    "LVM": (
        {512: b"LABELONE"},
        "vgchange --activate y  # then mount -o ro /dev/GROUP/VOLUME /mnt",
    ),
    "LUKS": (
        {0: b"LUKS\xba\xbe"},
        "cryptsetup open --readonly {} disk  # then mount -o ro /dev/mapper/disk /mnt",
    ),
    "BitLocker": (
        {3: b"-FVE-FS-"},
        "cryptsetup open --readonly --type bitlk {} disk  # then mount -o ro /dev/mapper/disk /mnt",
    ),
    "RAID": ({4096: b"\xfc\x4e\x2b\xa9"}, "mdadm --assemble --readonly /dev/md0 {}"),
}


def mount_lines(capfd: Capture, folder: Path, content: dict[int, bytes]) -> list[str]:
    """Return the lines of `info` that say how to reach the contents."""
    path = folder / "disk.vhdx"
    ImageSpec(4 * MIB, 4 * MIB, {0: Block(content=content)}).write(path)
    lines = run(capfd, "info", path).out.splitlines()
    names = [line.partition(":")[0] if not line.startswith(" ") else "" for line in lines]
    if "mount" not in names:
        return []
    start = names.index("mount")
    rest = names[start + 1 :]
    count = next((index for index, name in enumerate(rest) if name), len(rest))
    return [line[16:] for line in lines[start : start + 1 + count]]


def in_partition(content: dict[int, bytes]) -> dict[int, bytes]:
    pieces = gpt((LINUX, MIB // 512, 2 * MIB // 512 - 1, "data"), size=4 * MIB, sector_size=512)
    return pieces | {MIB + offset: data for offset, data in content.items()}


@pytest.mark.parametrize("kind", VOLUMES)
def test_file_system_on_the_whole_disk_is_mounted(
    capfd: Capture, tmp_path: Path, kind: str
) -> None:
    content, command = VOLUMES[kind]
    assert mount_lines(capfd, tmp_path, content) == [command.format("loop,", "disk.img")]


@pytest.mark.parametrize("kind", VOLUMES)
def test_file_system_in_a_partition_is_mounted(capfd: Capture, tmp_path: Path, kind: str) -> None:
    content, command = VOLUMES[kind]
    assert mount_lines(capfd, tmp_path, in_partition(content)) == [
        ATTACH_PARTITIONS,
        command.format("", "/dev/loop0p1"),
    ]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_container_is_opened(capfd: Capture, tmp_path: Path, kind: str) -> None:
    content, command = CONTAINERS[kind]
    assert mount_lines(capfd, tmp_path, content) == [ATTACH, command.format("/dev/loop0")]
    assert mount_lines(capfd, tmp_path, in_partition(content)) == [
        ATTACH_PARTITIONS,
        command.format("/dev/loop0p1"),
    ]


def test_file_system_without_a_driver_is_not_mounted(capfd: Capture, tmp_path: Path) -> None:
    refs = {3: b"ReFS\0\0\0\0"}
    assert mount_lines(capfd, tmp_path, refs) == []
    assert mount_lines(capfd, tmp_path, in_partition(refs)) == [ATTACH_PARTITIONS]


def test_salvage_without_losses_names_none(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reserved bits of an entry are damage that costs no range."""
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(4 * MIB, MIB, {0: Block(reserved_bits=1)})
    spec.write("disk.vhdx")
    outcome = run(capfd, "--salvage", "disk.vhdx", "out.img")
    assert outcome.exit_code == 3
    assert outcome.err_lines[-1] == "vhdx2raw: disk.vhdx: salvaged; no range of the disk was lost"
