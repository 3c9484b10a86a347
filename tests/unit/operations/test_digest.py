"""Digests of disks: by themselves, and on the way to another sink."""

import errno
import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, make_dirty
from tests.support.chains import PARTIAL, RELATIVE, base_disk
from tests.support.cli import small_disk
from tests.support.files import has_expected_bytes, write_files
from tests.support.peers import needs_program
from tests.support.raw import break_file
from tests.support.sinks import FailingSink, RecordingSink, StopEverything, fail_at
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.digest import digest
from vhdx2raw.output.hashes import ALGORITHMS, new_hash
from vhdx2raw.output.hashing import HashingSink
from vhdx2raw.output.sparse_file import SparseFileSink

SIZE = small_disk().virtual_disk_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the small disk."""
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


def expected_digest(spec: ImageSpec, algorithm: str) -> str:
    disk = spec.expected_disk(0, spec.virtual_disk_size)
    return hashlib.new(algorithm.replace("-", "_"), disk).hexdigest()


# -- algorithms ---------------------------------------------------------------------------------


def test_algorithms_of_a_fixed_size_are_offered() -> None:
    """Those that every Python has."""
    guaranteed = {name for name in hashlib.algorithms_guaranteed if not name.startswith("shake_")}
    assert {name.replace("-", "_") for name in ALGORITHMS} == guaranteed
    assert list(ALGORITHMS) == sorted(ALGORITHMS)


@pytest.mark.parametrize("name", ["sha3-256", "sha3_256", "SHA3-256", "SHA-3-256"])
def test_an_algorithm_may_be_written_in_several_ways(name: str) -> None:
    assert new_hash(name).hexdigest() == hashlib.sha3_256().hexdigest()


@pytest.mark.parametrize("name", ["crc32", "", "shake-128", "sha", "sha512_256"])
def test_another_algorithm_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^'{name}' is none of blake2b, .*sha512$"):
        new_hash(name)


# -- the digest of a disk -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_digest_is_that_of_the_bytes_of_the_disk(path: Path, algorithm: str) -> None:
    with open_disk(path) as disk:
        assert digest(disk, algorithm) == expected_digest(small_disk(), algorithm)


def test_default_digest_is_sha256(path: Path) -> None:
    with open_disk(path) as disk:
        assert digest(disk) == small_disk().expected_sha256()


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, MIB, MIB + 512, 300 * MIB])
def test_an_empty_disk_has_the_digest_of_zeros(tmp_path: Path, size: int) -> None:
    ImageSpec(size, 32 * MIB).write(tmp_path / "disk.vhdx")
    with open_disk(tmp_path / "disk.vhdx") as disk:
        assert digest(disk, "md5") == hashlib.md5(bytes(size)).hexdigest()


def test_digest_covers_parents_and_logs(tmp_path: Path) -> None:
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={1: Block(PARTIAL, sector_bits={5, 6, 2047})})
    dirty = make_dirty(child_of(base, RELATIVE), child)
    path = write_files(tmp_path, {"child.vhdx": dirty, "base.vhdx": base})
    with open_disk(path) as disk:
        assert digest(disk) == child.expected_sha256()


def test_progress_counts_the_bytes_of_the_disk(path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with open_disk(path) as disk:
        digest(disk, progress=lambda done, total: calls.append((done, total)))
    assert {total for _, total in calls} == {SIZE}
    assert calls[-1] == (SIZE, SIZE)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_failing_progress_ends_the_digest(path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise StopEverything

    with open_disk(path) as disk, pytest.raises(StopEverything):
        digest(disk, progress=stop)


def test_an_input_output_error_is_passed_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_disk()
    with open_disk(path) as disk:
        break_file(monkeypatch, path, spec.block_file_offset(4) + 70_000)
        with pytest.raises(OSError, match="Input/output error") as caught:
            digest(disk)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))


# -- on the way to another sink -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sparse_size", [0, 512, 4096, MIB])
def test_hashing_conversion_gives_disk_and_digest(
    path: Path, tmp_path: Path, sparse_size: int
) -> None:
    with open_disk(path) as disk:
        sink = HashingSink(SparseFileSink(tmp_path / "out.img", SIZE))
        convert(disk, sink, sparse_size=sparse_size)
    assert has_expected_bytes(tmp_path / "out.img", small_disk())
    assert sink.hexdigest == small_disk().expected_sha256()
    command = [needs_program("sha256sum"), str(tmp_path / "out.img")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split()[0] == sink.hexdigest


def test_holes_stay_holes_though_zeros_are_hashed(path: Path) -> None:
    """The calls of the inner sink are those that it gets without a hash."""
    plain, inner = RecordingSink(), RecordingSink()
    with open_disk(path) as disk:
        result = convert(disk, plain, workers=1)
        assert convert(disk, HashingSink(inner, "md5"), workers=4) == result
    # What lies in a row may come in other pieces.
    assert stored(inner) == stored(plain)
    assert "zero" in inner.names
    assert inner.contents(SIZE) == small_disk().expected_disk(0, SIZE)
    assert inner.names[-2:] == ["flush", "commit"]


def stored(sink: RecordingSink) -> list[tuple[str, int, int]]:
    return [call for call in sink.ranges if call[0] == "write"]


def test_a_sink_without_holes_gets_zeros_to_write(path: Path) -> None:
    inner = RecordingSink(sequential=True, makes_holes=False)
    with open_disk(path) as disk:
        sink = HashingSink(inner, "sha1")
        convert(disk, sink)
    assert {name for name, _, _ in inner.ranges} == {"write"}
    assert inner.contents(SIZE) == small_disk().expected_disk(0, SIZE)
    assert sink.hexdigest == expected_digest(small_disk(), "sha1")


def test_hashing_sink_clones_nothing(path: Path) -> None:
    inner = RecordingSink(clones=True)
    with open_disk(path) as disk:
        sink = HashingSink(inner)
        result = convert(disk, sink)
    assert result.cloned_bytes == 0
    assert "clone" not in inner.names
    assert inner.refused_clones == 0
    assert sink.hexdigest == small_disk().expected_sha256()


def test_two_hashes_can_be_taken_on_one_way(path: Path) -> None:
    inner = HashingSink(RecordingSink(), "md5")
    outer = HashingSink(inner, "blake2s")
    with open_disk(path) as disk:
        convert(disk, outer)
    assert inner.hexdigest == expected_digest(small_disk(), "md5")
    assert outer.hexdigest == expected_digest(small_disk(), "blake2s")


def test_a_failure_of_the_inner_sink_aborts_it(path: Path) -> None:
    inner = FailingSink("write", fail_at(1, OutputError("is full", path="out.img")))
    with open_disk(path) as disk, pytest.raises(OutputError, match=r"^out\.img: is full$"):
        convert(disk, HashingSink(inner))
    assert inner.names[-1] == "abort"
    assert "commit" not in inner.names


def test_a_byte_that_is_left_out_is_a_fault() -> None:
    sink = HashingSink(RecordingSink())
    sink.write(0, memoryview(b"abc"))
    with pytest.raises(AssertionError, match="a digest needs every byte in its turn"):
        sink.zero(4, 1)


def test_unknown_algorithm_is_refused_by_the_sink() -> None:
    with pytest.raises(ValueError, match=r"^'crc32' is none of "):
        HashingSink(RecordingSink(), "crc32")
