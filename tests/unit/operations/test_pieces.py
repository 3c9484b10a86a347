"""Pieces tile the disk at fixed cuts, whatever the extents are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.operations.pieces import (
    MAX_PIECES_AHEAD,
    Piece,
    cut_zeros,
    iter_pieces,
    iter_prefetched,
)

PIECE = 100


def data(virtual_offset: int, length: int, file_offset: int) -> Extent:
    return Extent(ExtentKind.DATA, virtual_offset, length, None, file_offset)


def zero(virtual_offset: int, length: int) -> Extent:
    return Extent(ExtentKind.ZERO, virtual_offset, length)


def lay_out(lengths: list[tuple[bool, int]]) -> list[Extent]:
    """Give extents of these kinds and lengths, every one of data in a place of its own."""
    offsets = [0, *accumulate(length for _, length in lengths)]
    return [
        data(offset, length, 100_000 * (number + 1)) if is_data else zero(offset, length)
        for number, ((is_data, length), offset) in enumerate(zip(lengths, offsets, strict=False))
    ]


disks = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(1, 350), st.sampled_from([100, 200, 1000]))),
    max_size=12,
).map(lay_out)


def bytes_of(extents: list[Extent]) -> dict[int, int]:
    """Give the place in the file of every stored byte of the disk."""
    return {
        extent.virtual_offset + i: extent.file_offset + i
        for extent in extents
        if extent.kind is ExtentKind.DATA
        for i in range(extent.length)
    }


@pytest.mark.slow
@given(disks, st.integers(1, 300), st.booleans())
def test_pieces_tile_the_disk(extents: list[Extent], size: int, cut_zeros: bool) -> None:  # noqa: FBT001
    pieces = list(iter_pieces(extents, size, cut_zeros=cut_zeros))
    cuts = [0] + [piece.virtual_offset + piece.length for piece in pieces]
    assert [piece.virtual_offset for piece in pieces] == cuts[:-1]
    assert cuts[-1] == (extents[-1].virtual_end if extents else 0)
    assert all(piece.length > 0 for piece in pieces)
    assert all(cut % size == 0 for cut in cuts[:-1])


@pytest.mark.slow
@given(disks, st.integers(1, 300), st.booleans())
def test_data_is_clipped_to_its_piece(
    extents: list[Extent],
    size: int,
    cut_zeros: bool,  # noqa: FBT001
) -> None:
    pieces = list(iter_pieces(extents, size, cut_zeros=cut_zeros))
    for piece in pieces:
        end = piece.virtual_offset + piece.length
        assert all(piece.virtual_offset <= part.virtual_offset for part in piece.data)
        assert all(part.virtual_end <= end for part in piece.data)
        assert all(part.kind is ExtentKind.DATA for part in piece.data)
        ordered = pairwise(piece.data)
        assert all(one.virtual_end <= other.virtual_offset for one, other in ordered)
        assert piece.data_length == sum(part.length for part in piece.data)
    assert bytes_of(
        [part for p in pieces for part in p.data if isinstance(part, Extent)]
    ) == bytes_of(extents)


@given(disks, st.integers(1, 300))
def test_pieces_with_data_and_cut_zeros_fit_a_buffer(extents: list[Extent], size: int) -> None:
    assert all(p.length <= size for p in iter_pieces(extents, size, cut_zeros=True))
    assert all(p.length <= size for p in iter_pieces(extents, size) if p.data)


@pytest.mark.slow
@given(disks, st.integers(1, 300))
def test_zeros_are_not_cut_inside(extents: list[Extent], size: int) -> None:
    pieces = list(iter_pieces(extents, size))
    for extent in extents:
        first_cut = -(-extent.virtual_offset // size) * size
        last_cut = extent.virtual_end // size * size
        if extent.kind is ExtentKind.ZERO:
            inside = [p for p in pieces if first_cut < p.virtual_offset < last_cut]
            assert inside == []


@pytest.mark.slow
@given(disks, st.integers(1, 300))
def test_no_piece_is_needlessly_short(extents: list[Extent], size: int) -> None:
    for piece in list(iter_pieces(extents, size))[:-1]:
        assert piece.length % size == 0


@pytest.mark.parametrize(
    ("extents", "pieces"),
    [
        ([], []),
        ([zero(0, 1000)], [Piece(0, 1000, ())]),
        ([zero(0, 1050)], [Piece(0, 1050, ())]),
        ([zero(0, 30), zero(30, 470), zero(500, 7)], [Piece(0, 507, ())]),
        (
            [zero(0, 30), zero(30, 270), data(300, 9, 0)],
            [Piece(0, 300, ()), Piece(300, 9, (data(300, 9, 0),))],
        ),
        ([data(0, 100, 7)], [Piece(0, 100, (data(0, 100, 7),))]),
        (
            [data(0, 250, 1000)],
            [
                Piece(0, 100, (data(0, 100, 1000),)),
                Piece(100, 100, (data(100, 100, 1100),)),
                Piece(200, 50, (data(200, 50, 1200),)),
            ],
        ),
        (
            [data(0, 10, 500), zero(10, 980), data(990, 20, 900)],
            [
                Piece(0, 100, (data(0, 10, 500),)),
                Piece(100, 800, ()),
                Piece(900, 100, (data(990, 10, 900),)),
                Piece(1000, 10, (data(1000, 10, 910),)),
            ],
        ),
        (
            [data(0, 10, 500), zero(10, 10), data(20, 10, 300), zero(30, 5)],
            [Piece(0, 35, (data(0, 10, 500), data(20, 10, 300)))],
        ),
    ],
)
def test_pieces_of_plain_disks(extents: list[Extent], pieces: list[Piece]) -> None:
    assert list(iter_pieces(extents, PIECE)) == pieces


def test_zeros_are_cut_on_demand() -> None:
    pieces = list(iter_pieces([zero(0, 250)], PIECE, cut_zeros=True))
    assert pieces == [Piece(0, 100, ()), Piece(100, 100, ()), Piece(200, 50, ())]


@pytest.mark.slow
@given(disks, st.integers(1, 300), st.booleans(), st.data())
def test_gaps_between_extents_are_in_no_piece(
    extents: list[Extent],
    size: int,
    cut_zeros: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    kept = [extent for extent in extents if data.draw(st.booleans())]
    pieces = list(iter_pieces(kept, size, cut_zeros=cut_zeros))
    kept_bytes = [i for e in kept for i in range(e.virtual_offset, e.virtual_end)]
    covered = [i for p in pieces for i in range(p.virtual_offset, p.virtual_offset + p.length)]
    assert covered == kept_bytes
    assert bytes_of(
        [part for p in pieces for part in p.data if isinstance(part, Extent)]
    ) == bytes_of(kept)
    assert sum(p.data_length for p in pieces) == len(bytes_of(kept)), "data is in two pieces"
    assert all(p.length <= size for p in pieces if p.data or cut_zeros)
    for piece in pieces:
        if piece.data or cut_zeros:
            last = piece.virtual_offset + piece.length - 1
            assert piece.virtual_offset // size == last // size, "a cut lies inside of the piece"


def test_pieces_come_as_soon_as_they_are_complete() -> None:
    """Nothing is collected: a disk may have more extents than fit into memory."""
    endless = (data(100 * i, 100, 1000 * i) for i in iter(int, 1))
    assert next(iter_pieces(endless, PIECE)) == Piece(0, 100, (data(0, 100, 0),))


def test_holes_that_come_one_by_one_are_one_piece() -> None:
    extents = (zero(100 * at, 100) if at != 500 else data(50_000, 100, 0) for at in range(2000))
    assert list(iter_pieces(extents, PIECE)) == [
        Piece(0, 50_000, ()),
        Piece(50_000, 100, (data(50_000, 100, 0),)),
        Piece(50_100, 149_900, ()),
    ]


def test_few_pieces_of_zeros_are_planned_ahead() -> None:
    """Of a large empty disk that is written to a stream."""
    taken = 0

    def pieces() -> Iterator[Piece]:
        nonlocal taken
        for taken in count():
            yield Piece(100 * taken, 100, ())

    planned = iter_prefetched(pieces())
    assert [next(planned).virtual_offset for _ in range(1000)] == list(range(0, 100_000, 100))
    assert taken <= 1000 + MAX_PIECES_AHEAD


# -- pieces without data, cut once more ------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "cut"),
    [
        ([], []),
        ([Piece(0, 100, ())], [Piece(0, 100, ())]),
        ([Piece(500, 200, ())], [Piece(500, 100, ()), Piece(600, 100, ())]),
        (
            [Piece(500, 201, ())],
            [Piece(500, 100, ()), Piece(600, 100, ()), Piece(700, 1, ())],
        ),
        (
            [Piece(0, 300, (data(0, 1, 7),)), Piece(300, 150, ()), Piece(450, 10, ())],
            [
                Piece(0, 300, (data(0, 1, 7),)),
                Piece(300, 100, ()),
                Piece(400, 50, ()),
                Piece(450, 10, ()),
            ],
        ),
    ],
)
def test_only_pieces_without_data_are_cut(pieces: list[Piece], cut: list[Piece]) -> None:
    assert list(cut_zeros(pieces, PIECE)) == cut


@pytest.mark.slow
@given(disks, st.integers(1, 300))
def test_pieces_with_zeros_cut_later_tile_the_disk(extents: list[Extent], size: int) -> None:
    later = list(cut_zeros(iter_pieces(extents, size), size))
    assert [p for p in later if p.data] == [p for p in iter_pieces(extents, size) if p.data]
    assert all(p.length <= size for p in later)
    cuts = [0] + [piece.virtual_offset + piece.length for piece in later]
    assert [piece.virtual_offset for piece in later] == cuts[:-1]
