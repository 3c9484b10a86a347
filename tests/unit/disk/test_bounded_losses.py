"""The list of what is lost, which is bounded however much there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhdx2raw.disk import salvage
from vhdx2raw.disk.salvage import MAX_RANGES, LostRanges


def test_ten_thousand_ranges_are_listed() -> None:
    lost = LostRanges()
    ranges = tuple((2 * index * 512, 512) for index in range(MAX_RANGES))
    for place in reversed(ranges):
        lost.add(*place)
    assert lost.merged() == ranges
    assert (lost.total_bytes, lost.unlisted) == (512 * MAX_RANGES, 0)


def test_of_more_ranges_those_with_least_between_them_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(salvage, "MAX_RANGES", 3)
    lost = LostRanges()
    for place in ((0, 10), (1000, 10), (1020, 10), (3000, 10), (3050, 10)):
        lost.add(*place)
    assert lost.merged() == ((0, 10), (1000, 30), (3000, 60))
    assert (lost.total_bytes, lost.unlisted) == (50, 2)


@given(st.lists(st.integers(0, 400), unique=True), st.integers(2, 20))
def test_all_that_is_lost_lies_in_the_list(units: list[int], most: int) -> None:
    lost = LostRanges()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(salvage, "MAX_RANGES", most)
        for unit in units:
            lost.add(unit * 512, 512)
            assert len(lost._ranges) <= 2 * most + 1
        listed = lost.merged()
    assert len(listed) <= most
    assert lost.total_bytes == 512 * len(units)
    assert all(
        any(start <= unit * 512 and unit * 512 + 512 <= start + length for start, length in listed)
        for unit in units
    )


@given(st.sets(st.integers(0, 400), min_size=1), st.integers(2, 20))
def test_ranges_that_come_in_order_are_all_counted(units: set[int], most: int) -> None:
    lost = LostRanges()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(salvage, "MAX_RANGES", most)
        for unit in sorted(units):
            lost.add(unit * 512, 512)
        listed = lost.merged()
    assert len(listed) + lost.unlisted == sum(unit - 1 not in units for unit in units)
