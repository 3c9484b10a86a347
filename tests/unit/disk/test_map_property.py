"""The definition of a map: which image says what each sector holds, the same as the extents do."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of
from tests.support.chains import chain_bytes
from tests.support.promised import who_says, with_promised_end, write_promised
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains, ranges
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.map import iter_map
from vhdx2raw.disk.walk import iter_extents


@pytest.mark.slow
@cases(30)
@given(chain=chains(), data=st.data())
def test_every_entry_names_the_image_that_says_what_is_there(
    chain: RandomChain, data: st.DataObject
) -> None:
    specs = chain.specs
    size, sector_size = specs[0].virtual_disk_size, specs[0].logical_sector_size
    with TemporaryDirectory() as name:
        path = write_promised(data, specs, Path(name))
        expected = specs[0].expected_disk(0, size)
        with open_chain(path) as opened:
            is_right = chain_bytes(opened) == expected
            assert is_right
            for start, length in [(0, size), *(data.draw(ranges(chain)) for _ in range(4))]:
                entries = list(iter_map(opened, start, length))
                assert sum(entry.length for entry in entries) == length
                for entry in entries:
                    for at in range(entry.start, entry.end, sector_size):
                        said = who_says(specs, at - at % sector_size)
                        assert (entry.depth, entry.present) == said, f"{at:#x} in {entry}"
                    piece = expected[entry.start : entry.end]
                    assert entry.kind is ExtentKind.DATA or not any(piece)
                data_bytes = sum(e.length for e in entries if e.kind is ExtentKind.DATA)
                assert data_bytes == sum(
                    extent.length
                    for extent in iter_extents(opened, start, length)
                    if extent.kind is ExtentKind.DATA
                )


@pytest.mark.slow
@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("state", [BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT])
def test_what_only_a_log_promises_is_said_by_the_child(
    tmp_path: Path, state: BlockState, missing: int
) -> None:
    """The parent has data there, which the child hides."""
    parent = ImageSpec(2 * MIB, 2 * MIB, {0: Block()}, tag="parent")
    bits = range(0, 4096, 2)
    block = Block(state, sector_bits=bits if state == BlockState.PARTIALLY_PRESENT else None)
    child = child_of(parent, ".\\parent.vhdx", blocks={0: block})
    parent.write(tmp_path / "parent.vhdx")
    with_promised_end(child, missing * MIB).write(tmp_path / "child.vhdx")
    with open_chain(tmp_path / "child.vhdx") as chain:
        entries = list(iter_map(chain))
        is_right = chain_bytes(chain) == child.expected_disk(0, 2 * MIB)
    assert is_right
    for entry in entries:
        for at in range(entry.start, entry.end, 512):
            assert (entry.depth, entry.present) == who_says([child, parent], at)
    promised = [e for e in entries if e.depth == 0 and e.start >= (2 - missing) * MIB]
    assert promised
    assert {entry.kind for entry in promised} == {ExtentKind.ZERO}
