"""The same bytes from and to every file system, whatever it knows of holes and shared blocks."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, log_sectors
from tests.support.files import has_expected_bytes, sha256_of
from tests.support.peers import needs_mounts, needs_program, run_as_superuser
from vhdx2raw import convert

SIZE = 24 * MIB
MAKERS = {
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "NTFS by FUSE": ["mkfs.ntfs", "-q", "-F", "-Q"],
}


@pytest.fixture(params=[*MAKERS, "tmpfs"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a folder on a file system that is made for this test."""
    needs_mounts()
    folder, image = tmp_path / "mounted", tmp_path / "fs.img"
    folder.mkdir()
    if request.param == "tmpfs":
        run_as_superuser("mount", "-t", "tmpfs", "tmpfs", folder)
    else:
        with image.open("wb") as file:
            file.truncate(320 * MIB)
        run_as_superuser(*MAKERS[request.param], image)
        if "FUSE" in request.param:
            needs_program("ntfs-3g")
            run_as_superuser("ntfs-3g", image, folder)
        else:
            run_as_superuser("mount", "-o", "loop", image, folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write_chain(folder: Path) -> ImageSpec:
    """Write a parent with data, stored zeros, holes and a log, and a child that alternates."""
    hollow = Block(content={0: b"data", 512 * 1024: b"more"})
    kinds = (Block(), Block(content=0), hollow, Block(BlockState.ZERO))
    parent = ImageSpec(SIZE, MIB, {index: kinds[index // 2 % 4] for index in range(24)})
    changed = b"changed by the log".ljust(4096, b"!")
    parent.blocks[0] = Block(content={0: changed, 4096: b"as it was"})
    first = parent.block_file_offset(0)
    parent.patches[first] = b"as it is in the file".ljust(4096, b"?")
    log_sectors(parent, {first: changed}).write(folder / "parent.vhdx")
    bits = {sector for sector in range(2048) if sector // 8 % 2}
    partial = Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)
    blocks = dict.fromkeys(range(1, 24, 3), partial) | {23: Block()}
    child = child_of(parent, ".\\parent.vhdx", block_size=MIB, blocks=blocks)
    child.write(folder / "child.avhdx")
    for path in folder.glob("*.*vhdx"):
        # Where there are no holes, there is nothing to be tried of them.
        subprocess.run(["fallocate", "--dig-holes", path], check=False, stderr=subprocess.DEVNULL)
    return child


@pytest.mark.parametrize("clone", [True, False], ids=["shared", "copied"])
def test_same_bytes_from_and_to_every_file_system(place: Path, clone: bool) -> None:  # noqa: FBT001
    spec = write_chain(place)
    files = sorted(place.glob("*.*vhdx"))
    before = [sha256_of(path) for path in files]
    convert(place / "child.avhdx", place / "disk.img", clone=clone, verify=True)
    assert has_expected_bytes(place / "disk.img", spec)
    assert [sha256_of(path) for path in files] == before
