"""`vhdx2raw.convert`: one call from the names of files to the result."""

import gzip
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.builder import MIB, Block, ImageSpec, child_of, make_dirty
from tests.support.chains import RELATIVE, base_disk
from tests.support.cli import small_disk
from tests.support.devices import loop_devices
from tests.support.files import has_expected_bytes, names_in, open_files
from tests.support.raw import raw_of
from tests.support.sinks import RecordingSink

SIZE = small_disk().virtual_disk_size


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Give the path of an image that lies alone in its folder."""
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_becomes_a_path(disk: Path, kind: Callable[[Path], str | Path]) -> None:
    before = open_files()
    result = vhdx2raw.convert(kind(disk), kind(disk.with_name("out.img")))
    assert isinstance(result, vhdx2raw.ConversionResult)
    assert has_expected_bytes(disk.with_name("out.img"), small_disk())
    assert (result.virtual_disk_size, result.data_bytes) == (SIZE, 3 * MIB)
    assert (result.digest, result.lost_ranges, result.lost_bytes) == (None, (), 0)
    assert result.warnings == ()
    assert open_files() == before


def test_an_open_file_can_be_converted_and_stays_open(disk: Path) -> None:
    data = disk.read_bytes()
    disk.with_name("disk.gz").write_bytes(gzip.compress(data, 1))
    with disk.open("rb") as raw, gzip.open(disk.with_name("disk.gz")) as packed:
        for number, file in enumerate((raw, packed, io.BytesIO(data))):
            vhdx2raw.convert(file, disk.with_name(f"{number}.img"))
            assert not file.closed
            assert has_expected_bytes(disk.with_name(f"{number}.img"), small_disk())


def test_a_disk_can_be_converted_more_than_once(tmp_path: Path) -> None:
    base = base_disk()
    base.write(tmp_path / "elsewhere.vhdx")
    child = child_of(base, RELATIVE, blocks={1: Block()})
    child.write(tmp_path / "child.avhdx")
    parents = [tmp_path / "elsewhere.vhdx"]
    with vhdx2raw.open(tmp_path / "child.avhdx", parents=parents) as opened:
        for name in ("1.img", "2.img"):
            vhdx2raw.convert(opened, tmp_path / name)
            assert has_expected_bytes(tmp_path / name, child)
        assert opened.pread(8, 0) == child.expected_disk(0, 8)


def test_a_sink_can_be_given_in_place_of_a_name(disk: Path) -> None:
    sink = RecordingSink()
    vhdx2raw.convert(disk, sink)
    assert sink.names[-2:] == ["flush", "commit"]
    is_right = sink.contents(SIZE) == raw_of(small_disk())
    assert is_right
    assert names_in(disk.parent) == ["disk.vhdx"]


def test_an_existing_file_is_replaced_only_by_force(disk: Path) -> None:
    out = disk.with_name("out.img")
    out.write_bytes(b"precious")
    with pytest.raises(vhdx2raw.OutputError, match=r"out\.img: exists already"):
        vhdx2raw.convert(disk, out)
    assert out.read_bytes() == b"precious"
    vhdx2raw.convert(disk, out, force=True)
    assert has_expected_bytes(out, small_disk())


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "parent"])
def test_no_file_of_the_chain_is_ever_replaced(tmp_path: Path, way: str) -> None:
    base = base_disk()
    base.write(tmp_path / "base.vhdx")
    child_of(base, RELATIVE, blocks={1: Block()}).write(tmp_path / "child.vhdx")
    out = tmp_path / "out.img"
    if way == "symbolic link":
        out.symlink_to("child.vhdx")
    elif way == "hard link":
        out.hardlink_to(tmp_path / "child.vhdx")
    else:
        out = tmp_path / ("base.vhdx" if way == "parent" else "child.vhdx")
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    with pytest.raises(vhdx2raw.OutputError, match="is the input itself"):
        vhdx2raw.convert(tmp_path / "child.vhdx", out, force=True)
    is_same = before == {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    assert is_same


def test_a_device_is_overwritten_only_by_force(disk: Path) -> None:
    with loop_devices(disk.parent) as devices:
        device = devices.make()
        with pytest.raises(vhdx2raw.OutputError, match="is a block device, whose contents would"):
            vhdx2raw.convert(disk, device)
        vhdx2raw.convert(disk, device, force=True, verify=True)
        is_right = devices.contents()[:SIZE] == raw_of(small_disk())
        assert is_right


def test_the_digest_is_taken_on_the_way(disk: Path) -> None:
    result = vhdx2raw.convert(disk, disk.with_name("out.img"), hash_algorithm="sha256")
    assert result.digest == hashlib.sha256(raw_of(small_disk())).hexdigest()


def test_the_output_is_read_back_before_it_appears(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_flush = vhdx2raw.SparseFileSink.flush

    def flush(sink: vhdx2raw.SparseFileSink) -> None:
        real_flush(sink)
        assert sink.readable_path
        os.truncate(sink.readable_path, 4096)
        os.truncate(sink.readable_path, SIZE)

    monkeypatch.setattr(vhdx2raw.SparseFileSink, "flush", flush)
    with pytest.raises(vhdx2raw.OutputError, match=r"out\.img: is not what was written"):
        vhdx2raw.convert(disk, disk.with_name("out.img"), verify=True)
    assert names_in(disk.parent) == ["disk.vhdx"]
    with pytest.raises(ValueError, match="cannot be read back"):
        vhdx2raw.convert(disk, vhdx2raw.NullSink(), verify=True)


def test_changed_source_is_refused_unless_allowed(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_flush = vhdx2raw.SparseFileSink.flush

    def flush(sink: vhdx2raw.SparseFileSink) -> None:
        real_flush(sink)
        os.utime(disk, ns=(0, disk.stat().st_mtime_ns + 1))

    monkeypatch.setattr(vhdx2raw.SparseFileSink, "flush", flush)
    with pytest.raises(vhdx2raw.CorruptImageError, match="it was written to"):
        vhdx2raw.convert(disk, disk.with_name("out.img"))
    assert names_in(disk.parent) == ["disk.vhdx"]
    result = vhdx2raw.convert(disk, disk.with_name("out.img"), allow_changed=True)
    [(name, finding)] = result.warnings
    assert (name, finding.rule) == (str(disk), "R119")


def test_lost_ranges_are_in_the_result(disk: Path) -> None:
    os.truncate(disk, disk.stat().st_size - MIB)
    out = disk.with_name("out.img")
    with pytest.raises(vhdx2raw.TruncatedImageError):
        vhdx2raw.convert(disk, out)
    with vhdx2raw.open(disk, salvage=True) as opened:
        result = vhdx2raw.convert(opened, out)
    assert result.lost_bytes == MIB
    [(start, length)] = result.lost_ranges
    expected = raw_of(small_disk())
    expected[start : start + length] = bytes(length)
    is_right = out.read_bytes() == expected
    assert is_right


def test_a_log_is_replayed(tmp_path: Path) -> None:
    after = small_disk()
    make_dirty(ImageSpec(SIZE, MIB), after).write(tmp_path / "dirty.vhdx")
    vhdx2raw.convert(tmp_path / "dirty.vhdx", tmp_path / "out.img")
    assert has_expected_bytes(tmp_path / "out.img", after)


def test_progress_counts_bytes_and_can_stop(disk: Path) -> None:
    calls: list[tuple[int, int]] = []
    vhdx2raw.convert(
        disk,
        disk.with_name("out.img"),
        progress=lambda done, total: calls.append((done, total)),
        clone=False,
        workers=1,
    )
    assert calls[-1] == (3 * MIB, 3 * MIB)
    assert calls == sorted(calls)

    def stop(_done: int, _total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        vhdx2raw.convert(disk, disk.with_name("other.img"), progress=stop)
    assert names_in(disk.parent) == ["disk.vhdx", "out.img"]


@pytest.mark.parametrize("sync", [True, False])
def test_sync_decides_on_flush(disk: Path, monkeypatch: pytest.MonkeyPatch, *, sync: bool) -> None:
    flushed: list[str] = []

    def flush(sink: vhdx2raw.SparseFileSink) -> None:
        flushed.append(sink.name)

    monkeypatch.setattr(vhdx2raw.SparseFileSink, "flush", flush)
    vhdx2raw.convert(disk, disk.with_name("out.img"), sync=sync)
    assert len(flushed) == sync


def test_sparse_size_zero_allocates_everything(disk: Path) -> None:
    result = vhdx2raw.convert(disk, disk.with_name("out.img"), sparse_size=0)
    assert result.written_bytes == SIZE
    assert disk.with_name("out.img").stat().st_blocks * 512 >= SIZE
