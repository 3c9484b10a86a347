"""Disks in binary file objects of any kind, which read like files and stay open."""

import bz2
import errno
import gzip
import io
import mmap
import os
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.builder import (
    KIB,
    MIB,
    Block,
    BlockState,
    ImageSpec,
    child_of,
    log_sectors,
    make_dirty,
    same_bytes_guid,
)
from tests.support.chains import PARTIAL, chain_bytes
from tests.support.cli import TIMEOUT
from tests.support.files import has_expected_bytes
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    OutputError,
    ParentCycleError,
    ParentMismatchError,
    ParentNotFoundError,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.source.file import FileSource
from vhdx2raw.source.file_object import AnyFile, BinaryFile, FileObjectSource
from vhdx2raw.vhdx.image import open_image

SIZE = 5 * MIB + 1536
BINARY_ONLY = "expected a path or a binary file object, not"


def disk_spec() -> ImageSpec:
    """Describe data, zeros, and data that is stored in another order than it has on the disk."""
    blocks = {4: Block(), 0: Block(), 2: Block(BlockState.ZERO), 5: Block()}
    return ImageSpec(SIZE, MIB, blocks)


def family() -> tuple[ImageSpec, ImageSpec, ImageSpec]:
    """Describe a child, its parent, and the parent of that one."""
    base = disk_spec()
    bits = {0: Block(PARTIAL, sector_bits={0, 3, 2047}), 1: Block()}
    middle = child_of(base, ".\\base.vhdx", tag="middle", blocks=bits)
    blocks = {4: Block(PARTIAL, sector_bits={1})}
    guid = same_bytes_guid(0x68)
    top = child_of(middle, ".\\middle.vhdx", tag="top", blocks=blocks, data_write_guid=guid)
    return top, middle, base


SPEC = disk_spec()
TOP, MIDDLE, BASE = family()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    for name, spec in {"top": TOP, "middle": MIDDLE, "base": BASE}.items():
        spec.write(folder / f"{name}.vhdx")
    return folder


@pytest.fixture(scope="module")
def raw(folder: Path) -> bytes:
    """Give the bytes of the file that `SPEC` describes."""
    return (folder / "base.vhdx").read_bytes()


def bytes_of(spec: ImageSpec, folder: Path) -> bytes:
    spec.write(folder / "made.vhdx")
    return (folder / "made.vhdx").read_bytes()


class ShortReads(io.RawIOBase):
    """A file of which a read never gives more than a few bytes."""

    def __init__(self, data: bytes, most: int = 7_919) -> None:
        super().__init__()
        self._file = io.BytesIO(data)
        self._most = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._most))


class Named(io.BytesIO):
    """Bytes that have a name, which need not be a path."""

    def __init__(self, data: bytes, name: object) -> None:
        super().__init__(data)
        self.name = name


def in_zip(data: bytes, _folder: Path) -> BinaryFile:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr("disk.vhdx", data)
    return zipfile.ZipFile(packed).open("disk.vhdx")


def in_tar(data: bytes, _folder: Path) -> BinaryFile:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        member = tarfile.TarInfo("disk.vhdx")
        member.size = len(data)
        made.addfile(member, io.BytesIO(data))
    packed.seek(0)
    opened = tarfile.TarFile(fileobj=packed).extractfile("disk.vhdx")
    assert opened
    return opened


def in_file(data: bytes, folder: Path, buffering: int) -> BinaryFile:
    (folder / "disk.vhdx").write_bytes(data)
    return (folder / "disk.vhdx").open("rb", buffering=buffering)


def in_spool(data: bytes, _folder: Path) -> BinaryFile:
    file = tempfile.SpooledTemporaryFile(max_size=1 << 30)  # noqa: SIM115 - closed by the test
    file.write(data)
    return file


def in_memory_map(data: bytes, _folder: Path) -> BinaryFile:
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    return mapped  # type: ignore[return-value]  # as Python itself describes it, a bit narrower


OBJECTS: dict[str, Callable[[bytes, Path], BinaryFile]] = {
    "bytes": lambda data, _folder: io.BytesIO(data),
    "buffered file": lambda data, folder: in_file(data, folder, -1),
    "raw file": lambda data, folder: in_file(data, folder, 0),
    "short reads": lambda data, _folder: ShortReads(data),
    "gzip": lambda data, _folder: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data, 1))),
    "bzip2": lambda data, _folder: bz2.BZ2File(io.BytesIO(bz2.compress(data, 1))),
    "zip": in_zip,
    "tar": in_tar,
    "spooled file": in_spool,
    "memory map": in_memory_map,
}


def close(file: object) -> None:
    file.close()  # type: ignore[attr-defined]  # every object of these tests can


# -- contents --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_every_kind_of_object_is_read_and_stays_open(
    make: Callable[[bytes, Path], BinaryFile], raw: bytes, tmp_path: Path
) -> None:
    file = make(raw, tmp_path)
    file.seek(12_345, io.SEEK_SET)
    with vhdx2raw.open(file) as disk:
        assert disk.size == SIZE
        is_right = disk.read() == SPEC.expected_disk(0, SIZE)
        assert is_right
        assert disk.warnings == ()
    file.seek(0, io.SEEK_SET)
    assert file.read(8) == b"vhdxfile"
    close(file)


def test_a_disk_may_lie_in_a_disk(raw: bytes, tmp_path: Path) -> None:
    outer = ImageSpec(64 * MIB, MIB, {})
    pieces = range(0, len(raw), MIB)
    outer.blocks = {start // MIB: Block(content=raw[start : start + MIB]) for start in pieces}
    with vhdx2raw.open(io.BytesIO(bytes_of(outer, tmp_path))) as disk:
        inner = vhdx2raw.open(disk)
        is_right = inner.read() == SPEC.expected_disk(0, SIZE)
        assert is_right
        inner.close()
        assert not disk.closed


def test_a_dirty_image_is_replayed(tmp_path: Path) -> None:
    before = ImageSpec(SIZE, MIB, {0: Block(content=1)})
    dirty = bytes_of(make_dirty(before, SPEC, entry_count=3), tmp_path)
    with vhdx2raw.open(io.BytesIO(dirty)) as disk:
        assert disk.chain.child.log.entry_count == 3
        is_right = disk.read() == SPEC.expected_disk(0, SIZE)
        assert is_right


@pytest.mark.parametrize("most", [None, 4099])
def test_threads_read_without_disturbing_each_other(raw: bytes, most: int | None) -> None:
    file = ShortReads(raw, most) if most else io.BytesIO(raw)
    places = [(90_000, index * 70_001 % SIZE) for index in range(200)]
    with vhdx2raw.open(file) as disk, ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda place: disk.pread(*place), places))
    for (size, offset), piece in zip(places, pieces, strict=True):
        assert piece == SPEC.expected_disk(offset, min(size, SIZE - offset))


def test_seek_and_read_are_one_step_among_threads(raw: bytes) -> None:
    """Without luck: the second reader is let go while the first one has only moved."""
    moved, second_is_there = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
            position = super().seek(offset, whence)
            if offset == 100:
                moved.set()
                second_is_there.wait(0.2)  # in vain, as it has to be
            elif offset == 200:
                second_is_there.set()
            return position

    source = FileObjectSource(Slow(raw))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(source.pread, 100, 50)
        assert moved.wait(TIMEOUT)
        second = pool.submit(source.pread, 200, 50)
        assert first.result() == raw[100:150]
        assert second.result() == raw[200:250]


@pytest.mark.parametrize("workers", [1, 4])
def test_it_is_converted_to_a_file(raw: bytes, tmp_path: Path, workers: int) -> None:
    with vhdx2raw.open(io.BytesIO(raw)) as disk:
        convert(disk, SparseFileSink(tmp_path / "out.img", SIZE), workers=workers)
    assert has_expected_bytes(tmp_path / "out.img", SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["buffered file", "gzip file", "bytes"])
@pytest.mark.parametrize("is_dirty", [False, True], ids=["clean", "dirty"])
def test_nothing_is_cloned_from_an_object(name: str, tmp_path: Path, *, is_dirty: bool) -> None:
    """The file of an object may hold other bytes: that of a gzip object does."""
    spec = disk_spec()
    sector = SPEC.expected_disk(8192, 4096)
    data = bytes_of(
        log_sectors(spec, {spec.block_file_offset(0) + 8192: sector}) if is_dirty else spec,
        tmp_path,
    )
    packed = tmp_path / "disk.vhdx.gz"
    packed.write_bytes(gzip.compress(data, 1))
    file = gzip.GzipFile(packed) if name == "gzip file" else OBJECTS[name](data, tmp_path)
    sink = RecordingSink(clones=True)
    with vhdx2raw.open(file) as disk:
        result = convert(disk, sink)
    close(file)
    assert "clone" not in sink.names
    assert result.cloned_bytes == 0
    is_right = sink.contents(SIZE) == SPEC.expected_disk(0, SIZE)
    assert is_right


def test_an_object_hands_no_descriptor_to_the_kernel(folder: Path) -> None:
    with (folder / "base.vhdx").open("rb") as file:
        source = FileObjectSource(file)
        assert list(source.iter_in_file(0, 4096)) == []
        with pytest.raises(io.UnsupportedOperation, match="nothing can be taken from a file"):
            _ = source.descriptor


# -- names and identities --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/disk.vhdx", "s3://bucket/disk.vhdx"),
        (Path("some/disk.vhdx"), "some/disk.vhdx"),
        (b"disk.vhdx", "disk.vhdx"),
        (7, "<Named>"),
        ("", "<Named>"),
        (None, "<Named>"),
    ],
)
def test_object_is_called_by_its_name_or_class(raw: bytes, name: object, expected: str) -> None:
    with open_image(Named(raw, name)) as image:
        assert image.source.name == expected


def test_errors_name_an_object_by_its_class() -> None:
    with pytest.raises(UnsupportedImageError, match=r"^<BytesIO>: ") as caught:
        open_image(io.BytesIO(b"not a VHDX".ljust(4096, b"!")))
    assert caught.value.path == "<BytesIO>"


def test_an_open_file_is_the_same_as_the_file(folder: Path, tmp_path: Path) -> None:
    path = folder / "base.vhdx"
    packed = tmp_path / "base.vhdx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    with path.open("rb") as file, gzip.open(packed) as unpacking:
        assert FileObjectSource(file).identity == FileSource(path).identity
        assert FileObjectSource(unpacking).identity == FileSource(packed).identity


def test_an_object_is_the_same_only_as_itself(raw: bytes) -> None:
    one, other = io.BytesIO(raw), io.BytesIO(raw)
    identities = [FileObjectSource(file).identity for file in (one, one, other)]
    assert identities[0] == identities[1] != identities[2]
    assert identities[0][0] < 0, "no device of the host"


def test_file_of_an_object_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    path.write_bytes((folder / "base.vhdx").read_bytes())
    with (
        path.open("rb") as file,
        open_chain(file) as chain,
        pytest.raises(OutputError, match="is the input itself"),
    ):
        SparseFileSink(path, SIZE, replace=True, inputs=chain.identities)


# -- chains ----------------------------------------------------------------------------------


def test_a_chain_of_objects_is_flattened(folder: Path) -> None:
    top, middle, base = (
        io.BytesIO((folder / f"{name}.vhdx").read_bytes()) for name in ("top", "middle", "base")
    )
    with open_chain(top, OpenOptions(parents=[middle, base])) as chain:
        assert [image.source.name for image in chain.images] == ["<BytesIO>"] * 3
        is_right = chain_bytes(chain) == TOP.expected_disk(0, SIZE)
        assert is_right
    assert [file.closed for file in (top, middle, base)] == [False] * 3


def test_paths_and_objects_can_be_mixed(folder: Path) -> None:
    expected = TOP.expected_disk(0, SIZE)
    with (folder / "middle.vhdx").open("rb") as middle:
        some: list[AnyFile] = [middle]
        for parents in (some, [*some, folder / "base.vhdx"]):
            with vhdx2raw.open(str(folder / "top.vhdx"), parents=parents) as disk:
                is_right = disk.read() == expected
                assert is_right


def test_beside_an_open_file_its_parent_is_found(folder: Path) -> None:
    with (folder / "top.vhdx").open("rb") as file, vhdx2raw.open(file) as disk:
        is_right = disk.read() == TOP.expected_disk(0, SIZE)
        assert is_right


@pytest.mark.parametrize("name", [None, "top.vhdx", "nowhere.vhdx", "x" * 5000, "a\0b"])
def test_no_parent_is_searched_beside_other_objects(
    folder: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if its name is that of a file, and nowhere in the working directory."""
    monkeypatch.chdir(folder)
    data = (folder / "top.vhdx").read_bytes()
    file = io.BytesIO(data) if name is None else Named(data, name)
    with pytest.raises(ParentNotFoundError, match=r"its parent cannot be used: .*tried nothing"):
        open_chain(file)
    with open_chain(file, OpenOptions(parent_dirs=[folder])) as chain:
        is_right = chain_bytes(chain) == TOP.expected_disk(0, SIZE)
        assert is_right
        assert [Path(image.source.name).name for image in chain.images[1:]] == [
            "middle.vhdx",
            "base.vhdx",
        ]


def test_an_object_that_is_its_own_parent_is_a_cycle(folder: Path) -> None:
    file = io.BytesIO((folder / "top.vhdx").read_bytes())
    with pytest.raises(ParentCycleError, match="<BytesIO>: is a file of the chain already"):
        open_chain(file, OpenOptions(parents=[file]))
    assert not file.closed


def test_file_and_its_object_are_a_cycle(folder: Path) -> None:
    path = folder / "top.vhdx"
    with path.open("rb") as file:
        for child, parent in ((file, path), (path, file)):
            with pytest.raises(ParentCycleError, match=r"top\.vhdx: is a file of the chain"):
                open_chain(child, OpenOptions(parents=[parent]))


def test_an_object_that_is_another_parent_is_refused(folder: Path, raw: bytes) -> None:
    with pytest.raises(ParentMismatchError, match=r"base: has the DataWriteGuid"):
        open_chain(folder / "top.vhdx", OpenOptions(parents=[Named(raw, "base")]))


def test_an_object_that_is_not_needed_is_named(folder: Path, raw: bytes) -> None:
    with pytest.raises(ParentMismatchError, match="has no use for the parent <BytesIO>: ") as error:
        open_chain(Named(raw, "disk"), OpenOptions(parents=[io.BytesIO(raw)]))
    assert error.value.path == "disk"


def test_failing_parent_is_reported_with_its_reason(folder: Path) -> None:
    class Failing(io.BytesIO):
        def seek(self, _offset: int, _whence: int = io.SEEK_SET, /) -> int:
            raise OSError("the server is gone")

    with pytest.raises(ParentNotFoundError, match="tried <Failing>: the server is gone"):
        open_chain(folder / "top.vhdx", OpenOptions(parents=[Failing()]))


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 3, b"disk.vhdx", ["disk.vhdx"], object()])
def test_what_is_neither_a_path_nor_a_file_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match=f"{BINARY_ONLY} {type(thing).__name__}"):
        vhdx2raw.open(thing)  # type: ignore[arg-type]


def test_text_is_refused(folder: Path) -> None:
    with (folder / "base.vhdx").open(encoding="latin-1") as text:
        for file in (text, io.StringIO("vhdxfile")):
            with pytest.raises(TypeError, match="not one that was opened as text"):
                vhdx2raw.open(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_a_pipe_is_refused(raw: bytes, buffering: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, raw[:1000])
    os.close(writing)
    with (
        os.fdopen(reading, "rb", buffering=buffering) as pipe,
        pytest.raises(
            UnsupportedImageError, match="file object: cannot seek, as reading"
        ) as caught,
    ):
        vhdx2raw.open(pipe)
    assert caught.value.finding.rule == "R1"
    assert caught.value.path
    assert caught.value.path.startswith("<")


LAST_BLOCK = SPEC.block_file_offset(5)


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (0, UnsupportedImageError),
        (100, UnsupportedImageError),
        (64 * KIB, CorruptImageError),
        (3 * MIB - 1, TruncatedImageError),
        (LAST_BLOCK + 512, TruncatedImageError),
    ],
)
def test_truncated_object_is_refused_and_stays_open(
    raw: bytes, size: int, error: type[ImageError]
) -> None:
    file = io.BytesIO(raw[:size])
    with pytest.raises(error) as caught:
        vhdx2raw.open(file)
    assert caught.value.path == "<BytesIO>"
    assert not file.closed


def test_an_object_that_becomes_shorter_is_truncated(raw: bytes) -> None:
    file = io.BytesIO(raw)
    with vhdx2raw.open(file) as disk:
        file.truncate(LAST_BLOCK + 1535)
        with pytest.raises(TruncatedImageError, match="ends too early: 1536 bytes are needed here"):
            disk.read()


@pytest.mark.parametrize("read", ["pread", "pread_into"])
def test_read_past_the_end_is_truncated(raw: bytes, read: str) -> None:
    source = FileObjectSource(io.BytesIO(raw))
    assert source.pread(len(raw) - 5, 5) == raw[-5:]
    with pytest.raises(TruncatedImageError, match="6 bytes are needed here"):
        getattr(source, read)(len(raw) - 5, 6 if read == "pread" else memoryview(bytearray(6)))


def test_read_of_impossible_length_is_refused(raw: bytes) -> None:
    with pytest.raises(TruncatedImageError, match=f"{1 << 60} bytes are needed here"):
        FileObjectSource(io.BytesIO(raw)).pread(0, 1 << 60)


def test_what_an_object_raises_is_passed_on(raw: bytes) -> None:
    class Failing(io.BytesIO):
        is_gone = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_gone:
                raise OSError(errno.EIO, "the server is gone")
            return super().read(size)

    file = Failing(raw)
    with vhdx2raw.open(file) as disk:
        file.is_gone = True
        with pytest.raises(OSError, match="the server is gone"):
            disk.read()
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            disk.read()


def test_a_failure_to_seek_is_no_lack_of_seeking(raw: bytes) -> None:
    class Failing(io.BytesIO):
        def seek(self, _offset: int, _whence: int = io.SEEK_SET, /) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        vhdx2raw.open(Failing(raw))
