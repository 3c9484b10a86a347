"""Which zeros become holes: those that a VHDX does not store, stored ones too, or none."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.devices import OLD_BYTE, loop_devices
from tests.support.files import has_expected_bytes, stored_ranges
from tests.support.promised import has_block, with_promised_end, write_promised
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.operations.copying import Copy, Holes
from vhdx2raw.operations.pieces import Piece

PARTIAL = BlockState.PARTIALLY_PRESENT


def written_sectors(sink: RecordingSink, sector_size: int) -> set[int]:
    """Give the sectors that were written or cloned."""
    return {
        at
        for name, start, length in sink.ranges
        if name != "zero"
        for at in range(start // sector_size, (start + length - 1) // sector_size + 1)
    }


def stored_sectors(specs: tuple[ImageSpec, ...]) -> set[int]:
    """Give the sectors that an image of the chain has a block for, by the description alone."""
    size, sector_size = specs[0].virtual_disk_size, specs[0].logical_sector_size
    return {at for at in range(size // sector_size) if has_block(specs, at * sector_size)}


@pytest.mark.slow
@pytest.mark.parametrize("clones", [False, True], ids=["copied", "cloned"])
def test_exactly_what_has_a_block_is_written(*, clones: bool) -> None:
    @cases(25)
    @given(chain=chains(), data=st.data())
    def check(chain: RandomChain, data: st.DataObject) -> None:
        specs = chain.specs
        size = specs[0].virtual_disk_size
        with (
            TemporaryDirectory() as name,
            open_disk(write_promised(data, specs, Path(name))) as disk,
        ):
            sink = RecordingSink(clones=clones)
            convert(disk, sink, holes="source", workers=data.draw(st.integers(1, 3)))
        is_right = sink.contents(size) == specs[0].expected_disk(0, size)
        assert is_right
        sector_size = specs[0].logical_sector_size
        assert written_sectors(sink, sector_size) == stored_sectors(specs)

    check()


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("state", [BlockState.FULLY_PRESENT, PARTIAL])
def test_zeros_that_only_a_log_promises_are_written(
    tmp_path: Path, state: BlockState, missing: int
) -> None:
    """Their block is there, though the file does not reach it yet; the parent has data there."""
    parent = ImageSpec(2 * MIB, 2 * MIB, {0: Block()}, tag="parent")
    bits = range(0, 4096, 2) if state == PARTIAL else None
    child = child_of(parent, ".\\parent.vhdx", blocks={0: Block(state, sector_bits=bits)})
    parent.write(tmp_path / "parent.vhdx")
    with_promised_end(child, missing * MIB).write(tmp_path / "child.vhdx")
    sink = RecordingSink()
    with open_disk(tmp_path / "child.vhdx") as disk:
        convert(disk, sink, holes="source")
    is_right = sink.contents(2 * MIB) == child.expected_disk(0, 2 * MIB)
    assert is_right
    assert written_sectors(sink, 512) == set(range(4096))


@pytest.mark.slow
@cases(25)
@given(order=st.permutations(range(6)), missing=st.integers(2, 6), data=st.data())
def test_promised_blocks_lie_anywhere(order: list[int], missing: int, data: st.DataObject) -> None:
    """Two of zeros that follow each other on the disk may have one with data between them."""
    spec = ImageSpec(6 * MIB, MIB, {index: Block() for index in order})
    logged = data.draw(st.sets(st.integers(0, missing - 1)))
    sink = RecordingSink()
    with TemporaryDirectory() as name:
        with_promised_end(spec, missing * MIB, logged).write(Path(name, "disk.vhdx"))
        convert(Path(name, "disk.vhdx"), sink, holes="source")
    is_right = sink.contents(6 * MIB) == spec.expected_disk(0, 6 * MIB)
    assert is_right
    assert written_sectors(sink, 512) == set(range(6 * MIB // 512))


def test_promised_zeros_over_nothing_alternate_with_holes(tmp_path: Path) -> None:
    parent = ImageSpec(2 * MIB, 2 * MIB, tag="parent")
    block = Block(PARTIAL, sector_bits=range(0, 4096, 2))
    child = child_of(parent, ".\\parent.vhdx", blocks={0: block})
    parent.write(tmp_path / "parent.vhdx")
    with_promised_end(child, 2 * MIB).write(tmp_path / "child.vhdx")
    for holes, expected in (("source", set(range(0, 4096, 2))), ("zeros", set())):
        sink = RecordingSink()
        with open_disk(tmp_path / "child.vhdx") as disk:
            convert(disk, sink, holes=holes)  # type: ignore[arg-type]  # one of three
        assert written_sectors(sink, 512) == expected
        assert not any(sink.contents(2 * MIB))


def zeros_and_holes(path: Path) -> ImageSpec:
    """Write a disk of data, stored zeros, a hole of the file, a small one, and nothing."""
    spec = ImageSpec(5 * MIB, MIB, {0: Block(), 1: Block(content=0), 2: Block(content=0)})
    spec.blocks[3] = Block(content={0: b"data", 512 * 1024: b"more"})
    spec.write(path)
    with path.open("r+b") as file:
        for index in (0, 1, 3):  # the host stores all of it, zeros too
            place = spec.block_file_offset(index)
            file.seek(place)
            data = os.pread(file.fileno(), MIB, place)
            file.write(data)
    return spec


@pytest.mark.parametrize(
    ("holes", "expected"),
    [
        (
            "zeros",
            [(0, MIB), (3 * MIB, 3 * MIB + 4096), (3 * MIB + 512 * 1024, 3 * MIB + 516 * 1024)],
        ),
        ("source", [(0, 4 * MIB)]),
        ("none", [(0, 5 * MIB)]),
    ],
)
def test_holes_of_a_file(tmp_path: Path, holes: str, expected: list[tuple[int, int]]) -> None:
    """A block that is a hole of the VHDX file itself is stored nevertheless."""
    spec = zeros_and_holes(tmp_path / "disk.vhdx")
    out = tmp_path / "disk.img"
    convert(tmp_path / "disk.vhdx", out, holes=holes)  # type: ignore[arg-type]  # one of three
    assert has_expected_bytes(out, spec)
    assert stored_ranges(out) == expected


def test_a_size_of_0_is_the_same_as_none(tmp_path: Path) -> None:
    zeros_and_holes(tmp_path / "disk.vhdx")
    convert(tmp_path / "disk.vhdx", tmp_path / "disk.img", sparse_size=0, sync=False)
    assert stored_ranges(tmp_path / "disk.img") == [(0, 5 * MIB)]


def test_a_wrong_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holes must be one of zeros, source, none, not 'all'"):
        convert(tmp_path / "disk.vhdx", tmp_path / "disk.img", holes="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"update": True}, {"sparse_size": 0}])
def test_contradictions_are_refused(tmp_path: Path, options: dict[str, bool | int]) -> None:
    with pytest.raises(ValueError, match="not by update or a sparse_size of 0"):
        convert(tmp_path / "disk.vhdx", tmp_path / "disk.img", holes="source", **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_stored_zeros_are_written_to_a_device(tmp_path: Path) -> None:
    """What was never stored may be left out of a device that reads as zeros; this one does not."""
    spec = zeros_and_holes(tmp_path / "disk.vhdx")
    with loop_devices(tmp_path) as devices:
        device = devices.make()
        convert(tmp_path / "disk.vhdx", device, force=True, target_is_zero=True, holes="source")
        expected = spec.expected_disk(0, 4 * MIB) + OLD_BYTE * 4 * MIB
        is_right = devices.contents() == expected
        assert is_right
        convert(tmp_path / "disk.vhdx", device, force=True, holes="source")
        is_right = devices.contents() == spec.expected_disk(0, 5 * MIB) + OLD_BYTE * 3 * MIB
        assert is_right


@pytest.mark.slow
@pytest.mark.parametrize("holes", ["zeros", "source"])
def test_resumed_conversion_keeps_the_holes(
    tmp_path: Path, holes: Holes, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = zeros_and_holes(tmp_path / "disk.vhdx")
    hand_over = Copy._hand_over

    def fail(self: Copy, piece: Piece, data: memoryview) -> None:
        if piece.virtual_offset >= 2 * MIB:
            raise OSError(5, "Input/output error", "out.img")
        hand_over(self, piece, data)

    with monkeypatch.context() as patched:
        patched.setattr(Copy, "_hand_over", fail)
        with pytest.raises(OSError, match="Input/output error"):
            convert(
                tmp_path / "disk.vhdx", tmp_path / "out", resume=True, workers=1, holes="source"
            )
    result = convert(tmp_path / "disk.vhdx", tmp_path / "out", resume=True, holes=holes)
    is_same = holes == "source"
    assert result.resumed_bytes == (2 * MIB if is_same else 0)
    assert result.begun_anew == ("" if is_same else "the earlier run had other options")
    assert has_expected_bytes(tmp_path / "out", spec)
    assert (stored_ranges(tmp_path / "out") == [(0, 4 * MIB)]) is is_same
