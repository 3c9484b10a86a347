"""What the kernel, and other programs, see of a disk that is mounted."""

import hashlib
import json
import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.peer_cases import DISK
from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.corpus import CORPUS
from tests.support.docs import MAKERS
from tests.support.files import has_expected_bytes, sha256_of, stored_ranges
from tests.support.mounts import Mount, mounted
from tests.support.partitions import PLACES, fragmented_child, gpt_disk
from tests.support.paths import SAMPLE
from tests.support.peers import needs_program, run_as_superuser, run_peer
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image
from tests.support.salvage import with_lost

HELLO = "Hello from inside a VHDX.\n"
TWIN = "swap.vhdx.gz"
"""10 GiB with one block of zeros in between; the dirty image is as long, and has more to tell."""
NTFS = ("dissect-dynamic.vhdx.gz", "dissect-fixed.vhdx.gz")


@contextmanager
def loop_mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mount a file system that lies in a file, read-only."""
    folder.mkdir()
    run_as_superuser("mount", "-o", "loop,ro", image, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# -- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORPUS)
def test_every_image_has_its_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    spec = CORPUS[name](tmp_path / "images")
    before = {path: sha256_of(path) for path in (tmp_path / "images").iterdir()}
    with mounted(tmp_path / "images" / DISK, tmp_path / "mnt", "-q") as mount:
        digest = hashlib.sha256(mount.disk.read_bytes()).hexdigest()
        assert mount.disk.stat().st_size == spec.virtual_disk_size
        assert (digest, sha256_of(mount.disk)) == (spec.expected_sha256(), digest)
        assert mount.end() == ""
    assert {path: sha256_of(path) for path in before} == before


def test_partitions_have_their_bytes(tmp_path: Path) -> None:
    base = gpt_disk()
    base.write(tmp_path / "base.vhdx")
    child = fragmented_child(base)
    child.write(tmp_path / "child.vhdx")
    with mounted(tmp_path / "child.vhdx", tmp_path / "mnt") as mount:
        names = ["disk.img", *(f"disk.p{number}.img" for number in PLACES)]
        assert sorted(path.name for path in mount.folder.iterdir()) == names
        for number, (first, end) in PLACES.items():
            data = (mount.folder / f"disk.p{number}.img").read_bytes()
            assert data == child.expected_disk(first * 512, (end - first) * 512)


def test_a_damaged_disk_shows_what_is_left(tmp_path: Path) -> None:
    spec = ImageSpec(4 * MIB, MIB, {index: Block() for index in range(4)})
    spec.write(tmp_path / "disk.vhdx")
    os.truncate(tmp_path / "disk.vhdx", (tmp_path / "disk.vhdx").stat().st_size - MIB)
    expected = with_lost(spec.expected_disk(0, 4 * MIB), [(3 * MIB, MIB)])
    with mounted(tmp_path / "disk.vhdx", tmp_path / "mnt", "--salvage") as mount:
        assert mount.disk.read_bytes() == expected
        said = mount.end(exit_code=3)
    assert "damaged: BAT entry of payload block 3" in said


def test_eight_threads_read_anywhere(tmp_path: Path) -> None:
    base = gpt_disk()
    base.write(tmp_path / "base.vhdx")
    child = fragmented_child(base)
    child.write(tmp_path / "child.vhdx")
    first, end = PLACES[2]
    truths = {
        "disk.img": child.expected_disk(0, 8 * MIB),
        "disk.p2.img": child.expected_disk(first * 512, (end - first) * 512),
    }

    def read(mount: Mount, seed: int) -> list[str]:
        """Read at random, every other thread past the page cache; return what was wrong."""
        chance, wrong = random.Random(seed), []
        name = chance.choice(list(truths))
        descriptor = os.open(mount.folder / name, os.O_RDONLY | os.O_DIRECT * (seed % 2))
        buffer = mmap.mmap(-1, MIB)  # aligned, as reads past the cache need it
        for _ in range(60):
            size = chance.choice([512, 4096, 65536, 73 * 4096])
            offset = chance.randrange(len(truths[name])) // 4096 * 4096
            count = os.preadv(descriptor, [memoryview(buffer)[:size]], offset)
            if buffer[:count] != truths[name][offset : offset + size]:
                wrong.append(f"{name} {size} {offset}")
        os.close(descriptor)
        return wrong

    with (
        mounted(tmp_path / "child.vhdx", tmp_path / "mnt") as mount,
        ThreadPoolExecutor(8) as pool,
    ):
        assert list(pool.map(lambda seed: read(mount, seed), range(8))) == [[]] * 8


@needs_real_images
@pytest.mark.parametrize("name", [name for name in REAL_IMAGES if name != TWIN])
def test_a_real_image_has_its_known_bytes(tmp_path: Path, name: str) -> None:
    size, expected = REAL_IMAGES[name]
    image = unpack_real_image(name, tmp_path)
    with mounted(image, tmp_path / "mnt", "-q") as mount:
        assert mount.disk.stat().st_size == size
        assert sha256_of(mount.disk) == expected


# -- holes and attributes -----------------------------------------------------------------------


def test_holes_and_blocks_follow_what_is_stored(tmp_path: Path) -> None:
    spec = ImageSpec(9 * MIB + 512, MIB, {9: Block(), 2: Block(), 3: Block(), 5: Block()})
    spec.write(tmp_path / "disk.vhdx")
    with mounted(tmp_path / "disk.vhdx", tmp_path / "mnt") as mount:
        with mount.disk.open("rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0
            assert os.lseek(file.fileno(), 2 * MIB + 7, os.SEEK_DATA) == 2 * MIB + 7
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with pytest.raises(OSError, match="No such device or address"):
                    os.lseek(file.fileno(), spec.virtual_disk_size, whence)
        ranges = stored_ranges(mount.disk)
        assert ranges == [(2 * MIB, 4 * MIB), (5 * MIB, 6 * MIB), (9 * MIB, 9 * MIB + 512)]
        assert mount.disk.stat().st_blocks == (3 * MIB + 512) // 512
        copy = tmp_path / "copy.img"
        subprocess.run(["cp", "--sparse=auto", mount.disk, copy], check=True)
    assert has_expected_bytes(copy, spec)
    assert copy.stat().st_blocks < 4 * MIB // 512


def test_attributes_are_those_of_something_to_read(tmp_path: Path) -> None:
    image = tmp_path / "disk.vhdx"
    gpt_disk().write(image)
    os.utime(image, ns=(5, 1_600_000_000_123_456_789))
    with mounted(image, tmp_path / "mnt") as mount:
        status = mount.disk.stat()
        assert (status.st_mode, status.st_size) == (0o100444, 8 * MIB)
        assert status.st_mtime_ns == 1_600_000_000_123_456_789
        assert status.st_uid == os.getuid()
        assert mount.folder.stat().st_mode == 0o40555
        for flags in (os.O_WRONLY, os.O_RDWR | os.O_CREAT):
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(mount.disk, flags)
        with pytest.raises(OSError, match="Read-only file system"):
            mount.disk.unlink()
        with pytest.raises(FileNotFoundError):
            (mount.folder / "disk.p9.img").stat()


# -- other programs -----------------------------------------------------------------------------


def test_an_ext4_file_system_is_checked_and_walked(tmp_path: Path) -> None:
    MAKERS["server.vhdx"](tmp_path / "server.vhdx")
    with mounted(tmp_path / "server.vhdx", tmp_path / "mnt") as mount:
        volume = mount.folder / "disk.p2.img"
        run_peer("e2fsck", "-f", "-n", volume)
        with loop_mounted(volume, tmp_path / "files") as files:
            found = {path.relative_to(files).as_posix() for path in files.rglob("*")}
            assert found == {"hello.txt", "lost+found"}
            assert (files / "hello.txt").read_text() == HELLO
        assert "hello.txt" in run_peer("7zz", "l", volume)
        assert run_peer("debugfs", "-R", "cat /hello.txt", volume) == HELLO
        assert mount.end() == ""


def test_a_whole_disk_is_a_file_system_too(tmp_path: Path) -> None:
    with mounted(SAMPLE, tmp_path / "mnt") as mount:
        with loop_mounted(mount.disk, tmp_path / "files") as files:
            assert (files / "hello.txt").read_text() == HELLO
        assert mount.end() == ""


def test_partitions_of_other_programs_are_those_of_the_folder(tmp_path: Path) -> None:
    gpt_disk().write(tmp_path / "disk.vhdx")
    with mounted(tmp_path / "disk.vhdx", tmp_path / "mnt") as mount:
        table = json.loads(run_peer("sfdisk", "--json", mount.disk))["partitiontable"]
        found = [(part["start"] * 512, part["size"] * 512) for part in table["partitions"]]
        sizes = [(mount.folder / f"disk.p{number}.img").stat().st_size for number in PLACES]
        assert found == [(PLACES[n][0] * 512, size) for n, size in zip(PLACES, sizes, strict=True)]


@needs_real_images
@pytest.mark.parametrize("name", NTFS)
def test_an_ntfs_partition_of_windows_is_checked_and_walked(tmp_path: Path, name: str) -> None:
    needs_program("ntfsfix")
    image = unpack_real_image(name, tmp_path)
    with mounted(image, tmp_path / "mnt") as mount:
        volume = mount.folder / "disk.p1.img"
        assert volume.stat().st_size == 7 * MIB
        assert "processed successfully" in run_peer("ntfsfix", "--no-action", volume)
        assert "$Bitmap" in run_peer("ntfsls", "--system", "--force", volume)
        with loop_mounted(volume, tmp_path / "files") as files:
            assert [path for path in files.rglob("*") if path.is_symlink()] == []
        assert mount.end() == ""


def test_a_chain_is_mounted_with_its_parents(tmp_path: Path) -> None:
    base = ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()})
    (tmp_path / "elsewhere").mkdir()
    base.write(tmp_path / "elsewhere" / "base.vhdx")
    child = child_of(base, "base.vhdx", blocks={1: Block()})
    child.write(tmp_path / "child.vhdx")
    options = ("--parent", str(tmp_path / "elsewhere" / "base.vhdx"))
    with mounted(tmp_path / "child.vhdx", tmp_path / "mnt", *options) as mount:
        assert has_expected_bytes(mount.disk, child)
