"""The definition of a chain: everywhere it shows what the description and a slow reader show."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chains import chain_bytes
from tests.support.naive_reader import NaiveDisk
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains, ranges, write_chain
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.vhdx.log import LogState

RANGES_PER_CHAIN = 12


@pytest.mark.slow
@cases(60)
@given(chain=chains(), data=st.data())
def test_any_range_of_any_chain_reads_right(chain: RandomChain, data: st.DataObject) -> None:
    top = chain.specs[0]
    size = top.virtual_disk_size
    expected = top.expected_disk(0, size)
    with TemporaryDirectory() as name:
        paths = write_chain(chain, Path(name))
        naive = NaiveDisk(paths)
        with open_chain(paths[0]) as opened:
            assert opened.virtual_disk_size == naive.size == size
            states = [image.log.state is LogState.REPLAYED for image in opened.images]
            assert states == list(chain.dirty)
            is_right = chain_bytes(opened) == expected
            assert is_right, "the whole disk"
            for _ in range(RANGES_PER_CHAIN):
                offset, length = data.draw(ranges(chain))
                piece = chain_bytes(opened, offset, length)
                where = f"{length} bytes from {offset:#x} on"
                is_described = piece == expected[offset : offset + length]
                assert is_described, where
                is_what_the_naive_reader_says = piece == naive.read(offset, length)
                assert is_what_the_naive_reader_says, where
