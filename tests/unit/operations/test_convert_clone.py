"""Blocks that the output shares with the images, where the file system can do that."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, log_sectors
from tests.support.cli import small_disk
from tests.support.files import has_expected_bytes, names_in, stored_ranges
from tests.support.peers import needs_mounts, run_as_superuser
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.operations.convert import ConversionResult
from vhdx2raw.output.sparse_file import SparseFileSink

SIZE = 5 * MIB + 512
CLONING_FILE_SYSTEMS = {
    "xfs": (["mkfs.xfs", "-q"], 320 * MIB),
    "btrfs": (["mkfs.btrfs", "-q"], 128 * MIB),
}


def disk_with_a_tail() -> ImageSpec:
    """Describe two blocks that lie side by side, one that does not, and half a page at the end."""
    order = {0: Block(), 1: Block(content=0), 5: Block(), 3: Block()}
    return ImageSpec(SIZE, MIB, {**order, 2: Block(BlockState.ZERO)})


def convert_to(sink: RecordingSink, path: Path, **options: bool | int) -> ConversionResult:
    with open_disk(path) as disk:
        return convert(disk, sink, **options)  # type: ignore[arg-type]  # any of them


@pytest.fixture
def path(tmp_path: Path) -> Path:
    disk_with_a_tail().write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


def test_extents_are_cloned_and_the_rest_copied(path: Path) -> None:
    """Even zeros that are stored: to find them they would have to be read."""
    sink = RecordingSink(clones=True)
    result = convert_to(sink, path, workers=1)
    assert sorted(sink.calls[:-2], key=lambda call: call[1:]) == [
        ("clone", 0, 2 * MIB),
        ("zero", 2 * MIB, MIB),
        ("clone", 3 * MIB, MIB),
        ("zero", 4 * MIB, MIB),
        ("write", 5 * MIB, 512),
    ]
    assert sink.names[-2:] == ["flush", "commit"]
    assert sink.contents(SIZE) == disk_with_a_tail().expected_disk(0, SIZE)
    assert result == ConversionResult(SIZE, 3 * MIB + 512, 3 * MIB, 512)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_progress_counts_what_is_cloned(path: Path, workers: int) -> None:
    steps: list[tuple[int, int]] = []
    sink = RecordingSink(clones=True)
    with open_disk(path) as disk:
        convert(disk, sink, workers=workers, progress=lambda *step: steps.append(step))
    assert steps[-1] == (3 * MIB + 512, 3 * MIB + 512)
    assert steps == sorted(steps)
    assert sink.contents(SIZE) == disk_with_a_tail().expected_disk(0, SIZE)


@pytest.mark.parametrize(
    ("sink", "options"),
    [
        (RecordingSink(clones=True), {"clone": False}),
        (RecordingSink(clones=True), {"sparse_size": 0}),
        (RecordingSink(clones=True, sequential=True, makes_holes=False), {}),
        (RecordingSink(clones=False), {}),
    ],
    ids=["switched off", "everything", "stream", "refused"],
)
def test_without_cloning_everything_is_copied(
    path: Path, sink: RecordingSink, options: dict[str, bool | int]
) -> None:
    result = convert_to(sink, path, **options)
    assert "clone" not in sink.names
    assert (sink.refused_clones > 0) == (not sink.clones)
    assert result.cloned_bytes == 0
    assert sink.contents(SIZE) == disk_with_a_tail().expected_disk(0, SIZE)


def test_without_sync_nothing_is_flushed(path: Path) -> None:
    sink = RecordingSink()
    convert_to(sink, path, sync=False)
    assert "flush" not in sink.names
    assert sink.names[-1] == "commit"


def test_what_a_log_changed_is_never_cloned(tmp_path: Path) -> None:
    """The file itself still holds the old bytes there."""
    spec = disk_with_a_tail()
    places = {0: b"first", 3 * MIB + 8192: b"middle", 4 * MIB - 4096: b"last"}
    sectors = {offset: data.ljust(4096, b"!") for offset, data in places.items()}
    expected = bytearray(spec.expected_disk(0, SIZE))
    for offset, data in sectors.items():
        expected[offset : offset + 4096] = data
    in_file = {spec.block_file_offset(o // MIB) + o % MIB: data for o, data in sectors.items()}
    log_sectors(spec, in_file).write(tmp_path / "disk.vhdx")
    sink = RecordingSink(clones=True)
    result = convert_to(sink, tmp_path / "disk.vhdx")
    is_right = sink.contents(SIZE) == expected
    assert is_right
    cloned = [call for call in sink.ranges if call[0] == "clone"]
    assert [call[1:] for call in cloned] == [
        (4096, 2 * MIB - 4096),
        (3 * MIB, 8192),
        (3 * MIB + 12288, MIB - 12288 - 4096),
    ]
    assert result.cloned_bytes == 3 * MIB - 3 * 4096


@pytest.mark.parametrize("clones", [True, False], ids=["cloned", "copied"])
def test_whole_pages_of_a_child_are_cloned(tmp_path: Path, *, clones: bool) -> None:
    """What is left over is copied, even a sector of a piece that is otherwise zeros."""
    parent = disk_with_a_tail()
    bits = {0, 1, 2, *range(16, 33), 100}
    partial = Block(BlockState.PARTIALLY_PRESENT, sector_bits=bits)
    child = child_of(parent, ".\\disk.vhdx", blocks={0: partial, 2: partial, 4: Block()})
    parent.write(tmp_path / "disk.vhdx")
    child.write(tmp_path / "child.avhdx")
    sink = RecordingSink(clones=clones)
    result = convert_to(sink, tmp_path / "child.avhdx")
    is_right = sink.contents(SIZE) == child.expected_disk(0, SIZE)
    assert is_right
    for start in (0, 2 * MIB):
        assert (("clone", start + 16 * 512, 8192) in sink.calls) == clones
    assert (result.cloned_bytes > 3 * MIB) == clones


# -- the sparse file ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_a_refusal_of_the_file_system_is_remembered(
    path: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def refuse(_descriptor: int, _request: int, _argument: bytes) -> bytes:
        nonlocal calls
        calls += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with open_disk(path) as disk:
        result = convert(disk, SparseFileSink(tmp_path / "out.img", SIZE))
    assert calls == 1
    assert result.cloned_bytes == 0
    assert has_expected_bytes(tmp_path / "out.img", disk_with_a_tail())


@pytest.fixture(params=CLONING_FILE_SYSTEMS)
def cloning_place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a folder on a file system that can share blocks: takes the superuser and a loop."""
    command, size = CLONING_FILE_SYSTEMS[request.param]
    needs_mounts()
    image, folder = tmp_path / "fs.img", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    for step in ([*command, str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        run_as_superuser(*step)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def used_bytes(folder: Path) -> int:
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.slow
@pytest.mark.parametrize("make", [disk_with_a_tail, small_disk])
def test_cloned_disk_takes_no_more_space(
    cloning_place: Path, make: Callable[[], ImageSpec]
) -> None:
    spec = make()
    image, out = cloning_place / "disk.vhdx", cloning_place / "out.img"
    spec.write(image)
    before = used_bytes(cloning_place)
    with open_disk(image) as disk:
        result = convert(disk, SparseFileSink(out, disk.size))
    assert result.cloned_bytes == 3 * MIB
    assert used_bytes(cloning_place) - before < MIB
    assert has_expected_bytes(out, spec)
    assert names_in(cloning_place) == ["disk.vhdx", "out.img"]
    # The two share blocks, but a change of one does not show in the other.
    with out.open("r+b") as file:
        file.write(b"changed".ljust(MIB, b"\0"))
    out.unlink()
    with open_disk(image) as disk:
        convert(disk, SparseFileSink(out, disk.size), clone=False)
    assert has_expected_bytes(out, spec)


@pytest.mark.slow
def test_stored_zeros_that_are_a_hole_of_the_file_are_written(cloning_place: Path) -> None:
    """To share them would make a hole of them; what is stored nowhere becomes one."""
    spec = disk_with_a_tail()
    image, out = cloning_place / "disk.vhdx", cloning_place / "out.img"
    spec.write(image)
    with open_disk(image) as disk:
        result = convert(disk, SparseFileSink(out, disk.size), holes="source")
    assert has_expected_bytes(out, spec)
    assert result.cloned_bytes == 2 * MIB
    assert result.written_bytes == MIB + 512
    assert stored_ranges(out) == [(0, 2 * MIB), (3 * MIB, 4 * MIB), (5 * MIB, SIZE)]
