"""The map of the space in use is a set of units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory import peak_memory
from vhdx2raw.vhdx.space import PAGE_BITS, SpaceMap

near_page_borders = st.builds(
    lambda page, distance: max(0, page * PAGE_BITS + distance),
    st.integers(0, 3),
    st.integers(-40, 40),
)
claims = st.tuples(near_page_borders, st.one_of(st.integers(0, 100), st.just(PAGE_BITS + 5)))


@pytest.mark.slow
@given(st.lists(claims, max_size=12))
def test_claims_behave_like_a_set(sequence: list[tuple[int, int]]) -> None:
    space = SpaceMap()
    taken: set[int] = set()
    for first, count in sequence:
        units = set(range(first, first + count))
        assert space.claim(first, count) is units.isdisjoint(taken)
        taken |= units


@given(st.integers(0, 1 << 44), st.integers(1, 1 << 18))
def test_neighbours_stay_free(first: int, count: int) -> None:
    space = SpaceMap()
    assert space.claim(first, count)
    assert space.claim(first + count, 1)
    assert first == 0 or space.claim(first - 1, 1)
    assert not space.claim(first + count - 1, 1)
    assert not space.claim(first, 1)


def test_blocks_of_the_largest_disk_take_eight_mib() -> None:
    space = SpaceMap()
    claimed: list[bool] = []
    assert peak_memory(lambda: claimed.append(space.claim(4, 64 << 20))) < 10 << 20
    assert claimed == [True]
    assert not space.claim(64 << 20, 1)
