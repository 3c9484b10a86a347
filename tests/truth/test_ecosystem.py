"""Other people's programs on an open disk: file systems, archives, streams; no conversion."""

import gzip
import hashlib
import io
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import vhdx2raw
from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.paths import SAMPLE
from tests.support.peers import needs_module
from tests.support.real_images import needs_real_images, unpack_real_image

SAMPLE_SIZE = 16 * MIB
SAMPLE_RAW_SHA256 = "4eb64f66cded1bb94dd82fd4bcfc1d748296d48ecb16df4ab162e03ed9e00f98"
HELLO = b"Hello from inside a VHDX.\n"


def dissect(name: str) -> Any:  # noqa: ANN401 - it has no types
    """Give a module of dissect, a set of readers in pure Python for file systems and the like."""
    return needs_module(f"dissect.{name}")


@pytest.fixture(scope="module")
def raw_sample() -> bytes:
    """Give the disk in the sample, which is known by its hash."""
    with vhdx2raw.open(SAMPLE) as disk:
        data = disk.read()
    assert hashlib.sha256(data).hexdigest() == SAMPLE_RAW_SHA256
    return data


# -- file systems -------------------------------------------------------------------------------


def names_in_root(files: Any) -> set[str]:  # noqa: ANN401 - of dissect
    """List the root of an ext4 file system."""
    return {entry.filename for entry in files.root.iterdir()} - {".", ".."}


def test_an_ext4_file_system_is_listed_and_read() -> None:
    with vhdx2raw.open(SAMPLE) as disk:
        files = dissect("extfs").ExtFS(disk)
        assert names_in_root(files) == {"lost+found", "hello.txt"}
        assert files.get("/hello.txt").open().read() == HELLO
        assert files.volume_name == "sample"


def test_a_file_system_is_read_through_a_buffer() -> None:
    with io.BufferedReader(vhdx2raw.open(SAMPLE)) as disk:
        files = dissect("extfs").ExtFS(disk)
        assert files.get("/hello.txt").open().read() == HELLO


class CountingFile(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(-1 if size is None else size) or b""
        self.count += len(data)
        return data


def test_reading_one_file_reads_no_more_than_it_needs() -> None:
    with CountingFile(SAMPLE) as file, vhdx2raw.open(file) as disk:
        file.count = 0
        files = dissect("extfs").ExtFS(disk)
        assert files.get("/hello.txt").open().read() == HELLO
        assert len(HELLO) < file.count < MIB


def test_file_system_across_a_chain_is_read(tmp_path: Path, raw_sample: bytes) -> None:
    """The child has every second block, and the parent has wrong bytes there."""
    blocks = range(SAMPLE_SIZE // MIB)
    parts = {index: raw_sample[index * MIB : (index + 1) * MIB] for index in blocks}
    own = {index: Block(content={0: parts[index]}) for index in blocks[::2]}
    left = {index: Block(content={0: parts[index]}) for index in blocks[1::2]}
    garbage = {index: Block(content={0: b"wrong" * 1000}) for index in blocks[::2]}
    base = ImageSpec(SAMPLE_SIZE, MIB, left | garbage)
    base.write(tmp_path / "base.vhdx")
    child_of(base, "base.vhdx", blocks=own).write(tmp_path / "child.avhdx")
    with vhdx2raw.open(tmp_path / "child.avhdx") as disk:
        files = dissect("extfs").ExtFS(disk)
        assert names_in_root(files) == {"lost+found", "hello.txt"}
        assert files.get("/hello.txt").open().read() == HELLO


@needs_real_images
@pytest.mark.parametrize("name", ["dissect-dynamic", "dissect-fixed"])
def test_ntfs_partition_of_a_real_image_is_listed(tmp_path: Path, name: str) -> None:
    image = unpack_real_image(f"{name}.vhdx.gz", tmp_path)
    volume, ntfs = dissect("volume.disk"), dissect("ntfs")
    with vhdx2raw.open(image) as disk:
        (partition,) = volume.Disk(disk).partitions
        assert (partition.offset, partition.size) == (65536, 7 * MIB)
        files = ntfs.NTFS(partition.open())
        assert files.volume_name == "New Volume"
        assert {"$MFT", "$Boot", "$Bitmap"} <= set(files.mft.get("/").listdir())
        boot_sector = files.mft.get("$Boot").open().read(512)
    assert boot_sector[3:11] == b"NTFS    "
    assert boot_sector[510:] == b"\x55\xaa"


# -- the standard library -----------------------------------------------------------------------


def test_shutil_copies_the_whole_disk(tmp_path: Path) -> None:
    with vhdx2raw.open(SAMPLE) as disk, (tmp_path / "disk.img").open("wb") as target:
        shutil.copyfileobj(disk, target)
    assert hashlib.sha256((tmp_path / "disk.img").read_bytes()).hexdigest() == SAMPLE_RAW_SHA256


def test_tar_unpacks_a_disk_that_tarfile_packed(tmp_path: Path) -> None:
    with vhdx2raw.open(SAMPLE) as disk, tarfile.open(tmp_path / "disk.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("disk.raw")
        member.size = disk.size
        archive.addfile(member, disk)
    subprocess.run(["tar", "-xzf", "disk.tar.gz"], cwd=tmp_path, check=True)
    assert hashlib.sha256((tmp_path / "disk.raw").read_bytes()).hexdigest() == SAMPLE_RAW_SHA256


def test_gzip_packs_the_disk(tmp_path: Path) -> None:
    with vhdx2raw.open(SAMPLE) as disk, gzip.open(tmp_path / "disk.gz", "wb") as target:
        shutil.copyfileobj(disk, target)
    unpacked = subprocess.run(
        ["gzip", "-dc", tmp_path / "disk.gz"], capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(unpacked).hexdigest() == SAMPLE_RAW_SHA256


def test_buffered_reader_reads_in_any_order(raw_sample: bytes) -> None:
    chance = random.Random(1)
    with io.BufferedReader(vhdx2raw.open(SAMPLE), buffer_size=4096) as disk:
        for _ in range(300):
            offset, length = chance.randrange(SAMPLE_SIZE + 100), chance.randrange(10000)
            assert disk.seek(offset) == offset
            expected = raw_sample[offset : offset + length]
            assert len(disk.peek(1)) > 0 or offset >= SAMPLE_SIZE
            is_right = disk.read(length) == expected
            assert is_right, (offset, length)
        assert disk.seek(-512, io.SEEK_END) == SAMPLE_SIZE - 512
        assert disk.read() == raw_sample[-512:]


def test_a_disk_within_a_disk_is_read(tmp_path: Path, raw_sample: bytes) -> None:
    """What `open` gives is a file object, and so is something that `open` takes."""
    blocks = range(-(-SAMPLE.stat().st_size // MIB))
    inner = SAMPLE.read_bytes()
    outer = ImageSpec(
        len(blocks) * MIB,
        MIB,
        {i: Block(content={0: inner[i * MIB : (i + 1) * MIB]}) for i in blocks},
    )
    outer.write(tmp_path / "outer.vhdx")
    with vhdx2raw.open(tmp_path / "outer.vhdx") as disk, vhdx2raw.open(disk) as inner_disk:
        is_right = inner_disk.read() == raw_sample
    assert is_right


def test_nothing_can_be_written_through_an_open_disk() -> None:
    with vhdx2raw.open(SAMPLE) as disk:
        assert not disk.writable()
        # The class of the standard library that it is made from refuses, in either way.
        with pytest.raises((io.UnsupportedOperation, NotImplementedError)):
            disk.write(b"x")
        with pytest.raises((io.UnsupportedOperation, NotImplementedError)):
            disk.truncate(0)
        with pytest.raises(OSError, match="not writable"):
            io.BufferedWriter(disk)
