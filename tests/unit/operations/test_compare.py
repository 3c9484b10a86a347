"""Two disks held against each other: what differs, how much of it, and what is never read."""

import errno
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import MIB, TIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import PARTIAL, RELATIVE, base_disk
from tests.support.cli import small_disk
from tests.support.files import write_files
from tests.support.peers import needs_shared_memory, run_as_superuser
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains, numbers, write_chain
from tests.support.raw import break_file, raw_of, write_sparse
from tests.support.sinks import StopEverything
from tests.support.sources import forget_holes
from vhdx2raw.disk.virtual_disk import VirtualDisk, open_disk
from vhdx2raw.errors import OutputError, TruncatedImageError, UnsupportedImageError
from vhdx2raw.operations.compare import Comparison, compare, verify
from vhdx2raw.source.raw_file import RawFile

SIZE = small_disk().virtual_disk_size
HINT = "the storage or the memory of this machine may be failing; do not use this output"


@contextmanager
def opened(
    folder: Path, spec: ImageSpec, raw: bytes | bytearray
) -> Iterator[tuple[VirtualDisk, RawFile]]:
    """Give a disk and a raw file."""
    spec.write(folder / "disk.vhdx")
    write_sparse(folder / "disk.img", raw)
    with open_disk(folder / "disk.vhdx") as disk, RawFile(folder / "disk.img") as other:
        yield disk, other


def naive(data: bytes | bytearray, other: bytes | bytearray) -> tuple[int | None, int]:
    """Find the first difference and count them all, one byte at a time where there are any."""
    size = max(len(data), len(other))
    data, other = data.ljust(size, b"\0"), other.ljust(size, b"\0")
    places = [
        start + place
        for start in range(0, size, 4096)
        if data[start : start + 4096] != other[start : start + 4096]
        for place in range(min(4096, size - start))
        if data[start + place] != other[start + place]
    ]
    return (places[0] if places else None), len(places)


# -- what differs -------------------------------------------------------------------------------


def test_a_disk_and_its_raw_image_are_the_same(tmp_path: Path) -> None:
    with opened(tmp_path, small_disk(), raw_of(small_disk())) as (disk, raw):
        result = compare(disk, raw)
    assert (result.same_contents, result.same_size) == (True, True)
    assert (result.first_difference, result.different_bytes) == (None, 0)
    assert result.sizes == (SIZE, SIZE)


BORDERS = [0, 4095, 4096, MIB - 1, MIB, 3 * MIB + 7, 4 * MIB, SIZE - 513, SIZE - 1]


@pytest.mark.parametrize("place", BORDERS)
def test_one_changed_byte_is_found_wherever_it_lies(tmp_path: Path, place: int) -> None:
    """In data, in stored zeros, and where the image has nothing at all."""
    raw = raw_of(small_disk())
    raw[place] ^= 0x40
    with opened(tmp_path, small_disk(), raw) as disks:
        result = compare(*disks)
    assert (result.same_contents, result.same_size) == (False, True)
    assert (result.first_difference, result.different_bytes) == (place, 1)


def test_a_hole_where_data_belongs_is_found(tmp_path: Path) -> None:
    raw = raw_of(small_disk())
    raw[4096 : 3 * 4096] = bytes(8192)
    with opened(tmp_path, small_disk(), raw) as disks:
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == (4096, 8192)


def test_empty_raw_image_differs_by_all_data(tmp_path: Path) -> None:
    expected = raw_of(small_disk())
    with opened(tmp_path, small_disk(), bytes(SIZE)) as disks:
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == naive(expected, bytes(SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("seed_number", range(3))
def test_differences_in_noise_are_counted(tmp_path: Path, seed_number: int) -> None:
    noise = random.Random(seed_number)
    raw = raw_of(small_disk())
    start = noise.randrange(SIZE)
    length = noise.randrange(1, 2 * MIB)
    raw[start : start + length] = noise.randbytes(len(raw[start : start + length]))
    expected = naive(raw_of(small_disk()), raw)
    with opened(tmp_path, small_disk(), raw) as disks:
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == expected


def test_two_vhdx_files_are_compared_by_their_disks(tmp_path: Path) -> None:
    """With blocks of another size, in another order, one of them dirty with a parent."""
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={1: Block(PARTIAL, sector_bits={5, 6, 2047})})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    flat = bytes(raw_of(child))
    halves = {1: Block(content=flat[2 * MIB :]), 0: Block(content=flat[: 2 * MIB])}
    ImageSpec(4 * MIB, 2 * MIB, halves).write(tmp_path / "flat.vhdx")
    with open_disk(path) as disk, open_disk(tmp_path / "flat.vhdx") as other:
        assert compare(disk, other).same_contents
    with open_disk(path) as disk, open_disk(tmp_path / "base.vhdx") as other:
        result = compare(disk, other)
    assert (result.first_difference, result.different_bytes) == naive(flat, raw_of(base))


@st.composite
def changes(draw: st.DrawFn, size: int) -> dict[int, bytes]:
    """Give what is written over a disk, by offset: few bytes, each somewhere."""
    places = draw(st.lists(numbers(size), max_size=8))
    return {place: draw(st.binary(min_size=1, max_size=20)) for place in places}


@pytest.mark.slow
@cases(30)
@given(chain=chains(), data=st.data())
def test_any_change_to_any_chain_is_found_and_counted(
    chain: RandomChain, data: st.DataObject
) -> None:
    top = chain.specs[0]
    expected = bytes(raw_of(top))
    raw = bytearray(expected)
    for place, new in data.draw(changes(len(raw))).items():
        raw[place : place + len(new)] = new
    size = data.draw(st.sampled_from([len(raw), len(raw), len(raw) // 2 + 1, len(raw) + 70_000]))
    raw = raw[:size].ljust(size, b"\0")
    with TemporaryDirectory() as name:
        paths = write_chain(chain, Path(name))
        write_sparse(Path(name) / "disk.img", raw)
        with (
            open_disk(paths[0]) as disk,
            RawFile(Path(name) / "disk.img") as other,
        ):
            result = compare(disk, other)
    short = min(len(expected), size)
    if expected[:short] == raw[:short] and not any(expected[short:]):
        assert result.first_difference is None
        assert result.different_bytes == 0
    else:
        assert (result.first_difference, result.different_bytes) == naive(expected, raw)
    assert result.sizes == (len(expected), size)


# -- disks of different sizes -------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 512, 3 * MIB])
def test_zeros_past_the_end_are_no_difference(tmp_path: Path, length: int) -> None:
    with opened(tmp_path, small_disk(), raw_of(small_disk()) + bytes(length)) as disks:
        result = compare(*disks)
    assert (result.same_contents, result.same_size) == (True, False)
    assert result.sizes == (SIZE, SIZE + length)


def test_data_past_the_end_of_the_disk_differs(tmp_path: Path) -> None:
    with opened(tmp_path, small_disk(), raw_of(small_disk()) + b"\0\0more") as disks:
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == (SIZE + 2, 4)


def test_data_past_the_end_of_the_raw_image_differs(tmp_path: Path) -> None:
    raw = raw_of(small_disk())[:5000]
    with opened(tmp_path, small_disk(), raw) as disks:
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == naive(raw_of(small_disk()), raw)
    assert result.first_difference == 5000
    assert result.sizes == (SIZE, 5000)


def test_an_empty_raw_image_is_compared_too(tmp_path: Path) -> None:
    with opened(tmp_path, ImageSpec(5 * MIB, MIB), b"") as disks:
        assert compare(*disks) == Comparison((5 * MIB, 0), 0, None, 0)


# -- the first difference -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_difference_can_be_enough(tmp_path: Path) -> None:
    spec = ImageSpec(64 * MIB, 32 * MIB, {0: Block(content=1), 1: Block(content=2)})
    raw = raw_of(spec)
    raw[5 * MIB + 3] = raw[5 * MIB + 4] = raw[40 * MIB] = 9
    with opened(tmp_path, spec, raw) as disks:
        result = compare(*disks, stop_at_first=True)
    assert (result.first_difference, result.different_bytes) == (5 * MIB + 3, None)
    assert result.compared_bytes < 10 * MIB


def test_same_disks_have_no_first_difference(tmp_path: Path) -> None:
    with opened(tmp_path, small_disk(), raw_of(small_disk())) as disks:
        assert compare(*disks, stop_at_first=True) == Comparison((SIZE, SIZE), 2 * MIB, None, 0)


# -- what is never read -------------------------------------------------------------------------


def test_comparing_64_tib_of_holes_reads_nothing(tmp_path: Path) -> None:
    ImageSpec(64 * TIB, MIB).write(tmp_path / "disk.vhdx")
    with TemporaryDirectory(dir=needs_shared_memory()) as name:
        path = Path(name) / "disk.img"
        with path.open("wb") as file:
            file.truncate(64 * TIB)
        with open_disk(tmp_path / "disk.vhdx") as disk, RawFile(path) as raw:
            assert compare(disk, raw) == Comparison((64 * TIB, 64 * TIB), 0, None, 0)
        with path.open("r+b") as file:
            file.seek(40 * TIB + 5)
            file.write(b"data")
        with open_disk(tmp_path / "disk.vhdx") as disk, RawFile(path) as raw:
            result = compare(disk, raw)
    assert (result.first_difference, result.different_bytes) == (40 * TIB + 5, 4)
    assert result.compared_bytes <= MIB


@pytest.mark.slow
def test_stored_ranges_are_read_once(tmp_path: Path) -> None:
    spec = ImageSpec(64 * MIB, 2 * MIB, {3: Block(), 9: Block(BlockState.ZERO), 31: Block()})
    raw = raw_of(spec)
    raw[20 * MIB : 21 * MIB] = b"x" * MIB
    seen: list[tuple[str, int, int]] = []
    with opened(tmp_path, spec, raw) as (disk, other), pytest.MonkeyPatch.context() as patch:
        for kind in (VirtualDisk, RawFile):
            patch.setattr(kind, "pread_into", recording(kind, seen))
        result = compare(disk, other)
    assert result.compared_bytes == 5 * MIB
    expected = [(k, at * MIB, MIB) for k in ("RawFile", "VirtualDisk") for at in (6, 7, 20, 62, 63)]
    assert sorted(seen) == expected


def recording(kind: type[VirtualDisk | RawFile], seen: list[tuple[str, int, int]]) -> object:
    """Give a method that reads, and remembers what it read."""
    read = kind.pread_into

    def pread_into(disk: VirtualDisk, offset: int, buffer: memoryview) -> None:
        seen.append((kind.__name__, offset, len(buffer)))
        read(disk, offset, buffer)  # type: ignore[arg-type]

    return pread_into


def test_many_small_pieces_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that has every other sector is not read by the sector."""
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={1: Block(PARTIAL, sector_bits=range(0, 2048, 2))})
    path = write_files(tmp_path, {"child.vhdx": child, "base.vhdx": base})
    write_sparse(tmp_path / "disk.img", raw_of(child))
    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr(RawFile, "pread_into", recording(RawFile, seen))
    with open_disk(path) as disk, RawFile(tmp_path / "disk.img") as raw:
        assert compare(disk, raw).same_contents
    assert len(seen) <= 4 * 16
    assert sum(length for _, _, length in seen) == 4 * MIB


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_without_seek_data_all_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real_lseek = os.lseek

    def lseek(descriptor: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(number, os.strerror(number))
        return real_lseek(descriptor, offset, whence)

    raw = raw_of(small_disk())
    raw[SIZE - 1] ^= 1
    with opened(tmp_path, small_disk(), raw) as disks:
        monkeypatch.setattr(os, "lseek", lseek)
        result = compare(*disks)
    assert (result.first_difference, result.different_bytes) == (SIZE - 1, 1)
    assert result.compared_bytes == SIZE


def test_what_is_a_hole_on_both_sides_is_not_read(tmp_path: Path) -> None:
    spec = ImageSpec(4 * MIB, MIB, {1: Block(content=0)})
    with opened(tmp_path, spec, bytes(4 * MIB)) as disks:
        assert compare(*disks) == Comparison((4 * MIB, 4 * MIB), 0, None, 0)


def test_holes_that_the_file_system_does_not_know_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageSpec(4 * MIB, MIB, {1: Block(content=0)})
    with opened(tmp_path, spec, bytes(4 * MIB)) as disks:
        forget_holes(monkeypatch)
        assert compare(*disks) == Comparison((4 * MIB, 4 * MIB), 4 * MIB, None, 0)


# -- progress and failures ----------------------------------------------------------------------


def test_progress_counts_what_has_to_be_read(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with opened(tmp_path, small_disk(), raw_of(small_disk())) as disks:
        compare(*disks, progress=lambda done, total: calls.append((done, total)))
    assert {total for _, total in calls} == {2 * MIB}
    assert calls[-1] == (2 * MIB, 2 * MIB)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_failing_progress_ends_the_comparison(tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise StopEverything

    spec = ImageSpec(64 * MIB, 32 * MIB, {0: Block(content=0), 1: Block(content=0)})
    with opened(tmp_path, spec, bytes(64 * MIB)) as disks, pytest.raises(StopEverything):
        compare(*disks, progress=stop)


def test_shrunken_raw_image_is_truncated(tmp_path: Path) -> None:
    with opened(tmp_path, small_disk(), raw_of(small_disk())) as disks:
        os.truncate(tmp_path / "disk.img", 5000)
        with pytest.raises(TruncatedImageError, match=r"disk\.img: .*ends too early"):
            compare(*disks)


def test_growth_of_a_raw_image_is_not_read(tmp_path: Path) -> None:
    spec = ImageSpec(4 * MIB, MIB, {1: Block(content=0)})
    with opened(tmp_path, spec, bytes(4 * MIB)) as disks:
        with (tmp_path / "disk.img").open("r+b") as file:
            file.seek(6 * MIB)
            file.write(b"new")
        assert compare(*disks) == Comparison((4 * MIB, 4 * MIB), 0, None, 0)


def test_an_input_output_error_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageSpec(8 * MIB, MIB, {index: Block() for index in range(8)})
    with opened(tmp_path, spec, raw_of(spec)) as (disk, raw):
        break_file(monkeypatch, tmp_path / "disk.img", 5 * MIB)
        with pytest.raises(OSError, match="Input/output error") as caught:
            compare(disk, raw)
    assert (caught.value.errno, caught.value.filename) == (
        errno.EIO,
        str(tmp_path / "disk.img"),
    )


@pytest.mark.parametrize(("make", "kind"), [(Path.mkdir, "directory"), (os.mkfifo, "FIFO")])
def test_unseekable_file_is_no_raw_disk(tmp_path: Path, make: object, kind: str) -> None:
    assert callable(make)
    make(tmp_path / "thing")
    with pytest.raises(UnsupportedImageError, match=kind):
        RawFile(tmp_path / "thing")


# -- reading back -------------------------------------------------------------------------------


def verify_raw(folder: Path, raw: bytes | bytearray) -> None:
    """Verify a raw file that stands for what a conversion made."""
    with opened(folder, small_disk(), raw) as (disk, _):
        verify(disk, folder / "disk.img")


def test_verify_accepts_the_right_output(tmp_path: Path) -> None:
    verify_raw(tmp_path, raw_of(small_disk()))


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    raw = raw_of(small_disk())
    raw[4 * MIB + 12345] ^= 1
    where = f"{4 * MIB + 12345:#x}"
    with pytest.raises(OutputError) as caught:
        verify_raw(tmp_path, raw)
    assert str(caught.value) == (
        f"{tmp_path / 'disk.img'}: is not what was written"
        f" (bytes that differ: 1, the first at {where})"
    )
    assert caught.value.hint == HINT


def test_verify_finds_a_hole_in_place_of_data(tmp_path: Path) -> None:
    raw = raw_of(small_disk())
    raw[4096:8192] = bytes(4096)
    with pytest.raises(
        OutputError,
        match=r"\(bytes that differ: 4096, the first at 0x1000\)",
    ):
        verify_raw(tmp_path, raw)


def test_verify_finds_data_in_place_of_a_hole(tmp_path: Path) -> None:
    raw = raw_of(small_disk())
    raw[MIB] = 1
    with pytest.raises(
        OutputError,
        match=r"\(bytes that differ: 1, the first at 0x100000\)",
    ):
        verify_raw(tmp_path, raw)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, SIZE + MIB])
def test_verify_finds_another_length(tmp_path: Path, size: int) -> None:
    """The disk ends with zeros, so that the contents are the same."""
    spec = ImageSpec(SIZE, MIB, {0: Block()})
    raw = raw_of(spec)[:size].ljust(size, b"\0")
    with opened(tmp_path, spec, raw) as (disk, _), pytest.raises(OutputError) as caught:
        verify(disk, tmp_path / "disk.img", name="final.img")
    message = f"final.img: is {size} bytes long, and not {SIZE} as it was made"
    assert (str(caught.value), caught.value.hint) == (message, HINT)


def test_verify_reads_from_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not stored yet cannot be forgotten, so it is stored first."""
    steps: list[tuple[object, ...]] = []
    real_preadv = os.preadv

    def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        steps.append(("read", os.fstat(descriptor).st_ino))
        return real_preadv(descriptor, buffers, offset)

    with opened(tmp_path, small_disk(), raw_of(small_disk())) as (disk, _):
        inode = (tmp_path / "disk.img").stat().st_ino
        monkeypatch.setattr(os, "fsync", lambda fd: steps.append(("sync", os.fstat(fd).st_ino)))
        monkeypatch.setattr(
            os, "posix_fadvise", lambda fd, *words: steps.append(("forget", *words))
        )
        monkeypatch.setattr(os, "preadv", preadv)
        verify(disk, tmp_path / "disk.img")
    assert steps[:2] == [("sync", inode), ("forget", 0, 0, os.POSIX_FADV_DONTNEED)]
    assert ("read", inode) in steps[2:]


def test_verify_works_where_the_cache_cannot_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    verify_raw(tmp_path, raw_of(small_disk()))


def test_failing_sync_in_verify_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        verify_raw(tmp_path, raw_of(small_disk()))
    assert caught.value.filename == str(tmp_path / "disk.img")


# -- block devices ------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """Give a block device that is longer than the small disk, full of old data."""
    backing = tmp_path / "device.bin"
    backing.write_bytes(b"\xaa" * (8 * MIB))
    path = run_as_superuser("losetup", "--find", "--show", backing)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["losetup", "--detach", path], check=True)
        yield Path(path)


def test_device_is_verified_up_to_the_disk_size(tmp_path: Path, device: Path) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    with device.open("r+b") as file:
        file.write(raw_of(small_disk()))
    with open_disk(tmp_path / "disk.vhdx") as disk:
        verify(disk, device)
        with device.open("r+b") as file:
            file.seek(SIZE - 1)
            file.write(b"\1")
        with pytest.raises(OutputError, match=r"differ: 1, the first at 0x5001ff\)"):
            verify(disk, device)


def test_a_device_is_compared_as_a_whole(tmp_path: Path, device: Path) -> None:
    small_disk().write(tmp_path / "disk.vhdx")
    with device.open("r+b") as file:
        file.write(raw_of(small_disk()))
    with open_disk(tmp_path / "disk.vhdx") as disk, RawFile(device) as raw:
        result = compare(disk, raw)
    assert result.sizes == (SIZE, 8 * MIB)
    assert (result.first_difference, result.different_bytes) == (SIZE, 8 * MIB - SIZE)
