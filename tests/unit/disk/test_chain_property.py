"""The definition of a chain: at every place it shows what the description and a slow reader show.

`VHDX2RAW_EXAMPLES` sets how many ranges are read, `VHDX2RAW_SEED` which chains they are read
from; without them each run reads the same 4800.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.support.chains import chain_bytes
from tests.support.naive_reader import NaiveDisk
from tests.support.random_chains import RandomChain, chains, ranges, write_chain
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.vhdx.log import LogState

RANGES_PER_CHAIN = 24
EXAMPLES = int(os.environ.get("VHDX2RAW_EXAMPLES", "4800"))
SEED = int(os.environ.get("VHDX2RAW_SEED", "20251121"))


@seed(SEED)
@settings(
    max_examples=max(1, EXAMPLES // RANGES_PER_CHAIN),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(chain=chains(), data=st.data())
@pytest.mark.parametrize("_seed", [SEED], ids=lambda number: f"seed {number}")
def test_any_range_of_any_chain_reads_right(
    _seed: int, chain: RandomChain, data: st.DataObject
) -> None:
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
