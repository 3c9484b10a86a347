"""Which parts of a file are in use: a map with one bit for each MiB, which only integers enter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vhdx2raw.units import KIB, ceil_div

PAGE_SIZE = 4 * KIB
PAGE_BITS = PAGE_SIZE * 8
_FULL_PAGE = b"\xff" * PAGE_SIZE


class SpaceMap:
    """Units of 1 MiB that are taken.

    Memory is one bit a unit, in pages that exist where something was claimed. So blocks of a
    64 TiB disk cost 8 MiB, against 512 MiB for their offsets.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def claim(self, first_unit: int, unit_count: int) -> bool:
        """Take `unit_count` units; return whether all of them were free."""
        free = True
        while unit_count:
            page_index, bit = divmod(first_unit, PAGE_BITS)
            count = min(unit_count, PAGE_BITS - bit)
            free = self._claim_in_page(page_index, bit, count) and free
            first_unit += count
            unit_count -= count
        return free

    def claim_each(self, units: Sequence[int]) -> int:
        """Take single units up to the first that is not free; return how many were."""
        pages = self._pages
        for index, unit in enumerate(units):
            page = pages.get(unit // PAGE_BITS)
            if page is None:
                page = pages[unit // PAGE_BITS] = bytearray(PAGE_SIZE)
            place, bit = unit % PAGE_BITS // 8, 1 << unit % 8
            taken = page[place]
            if taken & bit:
                return index
            page[place] = taken | bit
        return len(units)

    def _claim_in_page(self, page_index: int, bit: int, count: int) -> bool:
        page = self._pages.setdefault(page_index, bytearray(PAGE_SIZE))
        piece = slice(bit // 8, (bit + count + 7) // 8)
        taken = int.from_bytes(page[piece], "little")
        wanted = ((1 << count) - 1) << bit % 8
        page[piece] = (taken | wanted).to_bytes(piece.stop - piece.start, "little")
        return not taken & wanted

    def iter_free(self, unit_count: int) -> Iterator[tuple[int, int]]:
        """Yield (first unit, count) of what nobody has claimed of the first `unit_count` units.

        In order, cut at the borders of pages.
        """
        for page_index in range(ceil_div(unit_count, PAGE_BITS)):
            first = page_index * PAGE_BITS
            size = min(PAGE_BITS, unit_count - first)
            page = self._pages.get(page_index)
            if page is None:
                yield first, size
            elif page != _FULL_PAGE:
                free = ~int.from_bytes(page, "little") & ((1 << size) - 1)
                while free:
                    start = (free & -free).bit_length() - 1
                    taken = ~(free >> start)
                    count = (taken & -taken).bit_length() - 1
                    yield first + start, count
                    free &= -1 << (start + count)
