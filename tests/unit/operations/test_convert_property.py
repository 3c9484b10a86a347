"""The definition of a conversion: whatever the image, the raw file holds the virtual disk."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import KIB, MIB, Block, BlockState, Content, ImageSpec
from tests.support.properties import cases
from vhdx2raw import convert
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.operations.convert import ConversionResult
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.output.stream import StreamSink

BLOCK_SIZES = [MIB, 2 * MIB]
STATES = [
    BlockState.NOT_PRESENT,
    BlockState.UNDEFINED,
    BlockState.ZERO,
    BlockState.UNMAPPED,
    BlockState.FULLY_PRESENT,
    BlockState.FULLY_PRESENT,
    BlockState.FULLY_PRESENT,
]
MAX_BLOCKS = 4


def contents(block_size: int) -> st.SearchStrategy[Content]:
    """Give addresses, fills, or a few bytes near places where something may be cut."""
    unit = st.sampled_from([512, 4 * KIB, 64 * KIB, 256 * KIB])
    place = st.builds(
        lambda unit, number, shift: (unit * number + shift) % block_size,
        unit,
        st.integers(0, 8),
        st.integers(-1, 1),
    )
    pieces = st.dictionaries(place, st.binary(min_size=1, max_size=5), max_size=6)
    return st.one_of(st.none(), st.just(0), st.just(0xAA), pieces)


@st.composite
def specs(draw: st.DrawFn) -> ImageSpec:
    """Give small disks without a parent, their blocks in any order and state."""
    block_size = draw(st.sampled_from(BLOCK_SIZES))
    sector_size = draw(st.sampled_from([512, 4096]))
    sector_count = draw(st.integers(1, MAX_BLOCKS * block_size // sector_size))
    size = sector_count * sector_size
    block_count = -(-size // block_size)
    order = draw(st.permutations(range(block_count)))
    block = st.builds(Block, st.sampled_from(STATES), contents(block_size))
    return ImageSpec(
        size,
        block_size,
        {index: draw(block) for index in order},
        logical_sector_size=sector_size,
        leave_block_allocated=draw(st.booleans()),
    )


def to_file(source: Path, target: Path, sparse_size: int, workers: int) -> ConversionResult:
    with open_disk(source) as disk:
        sink = SparseFileSink(target, disk.size, inputs=disk.chain.identities)
        return convert(disk, sink, sparse_size=sparse_size, workers=workers)


def to_stream(source: Path, target: Path) -> ConversionResult:
    with open_disk(source) as disk, target.open("wb") as stream:
        return convert(disk, StreamSink(stream))


@pytest.mark.slow
@cases(25)
@given(spec=specs(), sparse_size=st.sampled_from([512, 4 * KIB, 64 * KIB, MIB]))
def test_every_way_to_convert_gives_the_same_bytes(spec: ImageSpec, sparse_size: int) -> None:
    """By one thread or several, with holes or without, as a file or as a stream."""
    expected = spec.expected_disk(0, spec.virtual_disk_size)
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "disk.vhdx"
        spec.write(source)
        results = {
            "threads": to_file(source, folder / "threads", sparse_size, workers=3),
            "one": to_file(source, folder / "one", sparse_size, workers=1),
            "everything": to_file(source, folder / "everything", 0, workers=2),
            "stream": to_stream(source, folder / "stream"),
        }
        for way in results:
            # Not in the assert: pytest would word the difference of megabytes.
            is_right = (folder / way).read_bytes() == expected
            assert is_right, way
        assert len(os.listdir(folder)) == 1 + len(results)  # noqa: PTH208 - names are enough
    assert results["threads"] == results["one"]
    assert results["everything"] == results["stream"]
    assert results["stream"].written_bytes == spec.virtual_disk_size
    assert results["one"].data_bytes == results["stream"].data_bytes
