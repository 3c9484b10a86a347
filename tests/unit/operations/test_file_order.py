"""Pieces in the order in which their data lies in the files."""

from unittest.mock import MagicMock

import pytest

from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.operations import pieces
from vhdx2raw.operations.pieces import Piece, iter_in_file_order, iter_prefetched
from vhdx2raw.units import MIB


def image(name: str) -> MagicMock:
    made = MagicMock()
    made.source.name = name
    return made


def piece(number: int, source: MagicMock, place: int) -> Piece:
    start = number * MIB
    extent = Extent(ExtentKind.DATA, start, MIB, source, place * MIB)
    return Piece(start, MIB, (extent,))


ONE, OTHER = image("a.vhdx"), image("b.vhdx")
PIECES = [piece(0, OTHER, 5), piece(1, ONE, 9), Piece(2 * MIB, MIB, ()), piece(3, ONE, 4)]


def numbers(ordered: list[Piece]) -> list[int]:
    return [found.virtual_offset // MIB for found in ordered]


def test_pieces_come_file_by_file_and_zeros_first() -> None:
    assert numbers(list(iter_in_file_order(PIECES))) == [2, 3, 1, 0]


@pytest.mark.parametrize("limit", ["ORDERED_SIZE", "ORDERED_COUNT"])
def test_only_so_many_are_put_in_order_at_a_time(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(pieces, limit, 2 * MIB if limit == "ORDERED_SIZE" else 2)
    assert numbers(list(iter_in_file_order(PIECES))) == [1, 0, 2, 3]


def test_all_that_is_read_is_asked_for_so_far_ahead_as_files_want() -> None:
    source = image("far.vhdx")
    plan = iter_prefetched((piece(index, source, index) for index in range(64)), 24 * MIB)
    next(plan)
    asked = [call.args for call in source.source.prefetch.call_args_list]
    assert asked == [(index * MIB, MIB) for index in range(25)]
