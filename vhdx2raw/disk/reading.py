"""What is read of a disk, and how: as few and as long reads as its chain allows.

A differencing disk can change its owner every sector. Each image is then read once for a window of
the disk, straight to the places of the sectors that are its own; the rest goes to a buffer that is
never read. So time goes by bytes, and not by fragments times layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_
from typing import NamedTuple

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.layers import ALL_SECTORS, Inherited, Mixed, Part, iter_layer, iter_stored
from vhdx2raw.disk.walk import iter_extents, iter_joined, iter_mixed_parts, require_salvaging
from vhdx2raw.source.base import Source
from vhdx2raw.units import KIB, ceil_div
from vhdx2raw.vhdx.image import VhdxImage
from vhdx2raw.zeros import fill_zeros

FEW_RUNS = 16
"""A window of so many runs is read as extents, which can be cloned, and may be holes of a file."""
MAX_GAP = 16 * KIB
"""Bytes between two sectors of one image that are read with them rather than in two reads."""
MOST_JOINED = 100_000
"""Parts of the disk that become one extent."""
MAX_BUFFERS = 1000
"""Of one read; Linux allows 1024."""
KINDS = (ExtentKind.DATA, ExtentKind.ZERO, ExtentKind.LOST)
"""What a blend can be made of."""
_UNUSED = memoryview(bytearray(MAX_GAP))
"""Takes what lies between; every thread may write to it."""
_RUN = re.compile("1+")


class Share(NamedTuple):
    """What one image holds of a blend.

    Attributes:
        image: The image.
        distance: How much further on in its file the data lies than in the disk, in bytes.
        sectors: A bit for each sector of the blend, set if it is here.
    """

    image: VhdxImage
    distance: int
    sectors: int


def _sectors_of(shares: Iterable[Share]) -> int:
    """Return the sectors that are in any of some shares, as bits."""
    return reduce(or_, (share.sectors for share in shares), 0)


class Blend(NamedTuple):
    """A range of the virtual disk whose owner changes often. In no share are zeros.

    Attributes:
        virtual_offset: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        sector_size: Bytes of a sector.
        shares: What each image holds of it; no sector is in two of them.
        lost: A bit for each sector that is lost.
        promised: What each image has blocks for that only its log promises: zeros.
    """

    virtual_offset: int
    length: int
    sector_size: int
    shares: tuple[Share, ...]
    lost: int = 0
    promised: tuple[Share, ...] = ()

    @property
    def kind(self) -> ExtentKind:
        """As a whole it is something to be read."""
        return ExtentKind.DATA

    @property
    def virtual_end(self) -> int:
        return self.virtual_offset + self.length

    @property
    def stored(self) -> int:
        """A bit for each sector, set if any image stores it."""
        return _sectors_of(self.shares)

    @property
    def data_length(self) -> int:
        """Bytes that are stored in any image."""
        stored = self.stored
        missing = self.virtual_offset % self.sector_size if stored & 1 else 0
        if stored.bit_length() == self._sector_count:
            missing += -self.virtual_end % self.sector_size
        return stored.bit_count() * self.sector_size - missing

    @property
    def run_count(self) -> int:
        """How often something begins that lies elsewhere than what is before it."""
        masks = (*(share.sectors for share in self.shares + self.promised), self.lost)
        return sum((mask & ~(mask << 1)).bit_count() for mask in masks)

    @property
    def _sector_count(self) -> int:
        end = ceil_div(self.virtual_end, self.sector_size)
        return end - self.virtual_offset // self.sector_size

    def places(self) -> list[tuple[Source, int, int]]:
        """Return (source, file offset, length) of where each image holds what it has of it."""
        return [
            (share.image.source, self.virtual_offset + share.distance, self.length)
            for share in self.shares
        ]

    def prefetch(self) -> None:
        """Expect that it is read soon."""
        for share in self.shares:
            source, distance = share.image.source, self.virtual_offset + share.distance
            # What asks for all that it reads joins the ranges itself.
            spans = self.spans(share.sectors) if source.read_ahead else [(0, self.length)]
            for start, end in spans:
                source.prefetch(start + distance, end - start)

    def cut(self, virtual_offset: int, virtual_end: int) -> Blend:
        """Return the part between two offsets in the virtual disk."""
        if virtual_end - virtual_offset == self.length:
            return self
        skipped = virtual_offset // self.sector_size - self.virtual_offset // self.sector_size
        cut = Blend(virtual_offset, virtual_end - virtual_offset, self.sector_size, ())
        mask = (1 << cut._sector_count) - 1
        shares, promised = (
            tuple(
                share._replace(sectors=sectors)
                for share in every
                if (sectors := share.sectors >> skipped & mask)
            )
            for every in (self.shares, self.promised)
        )
        return cut._replace(shares=shares, lost=self.lost >> skipped & mask, promised=promised)

    def block_spans(self) -> list[tuple[int, int]]:
        """Return (start, end), from its beginning, of what any image has blocks for."""
        return self.spans(_sectors_of(self.shares + self.promised))

    def moved(self, distance: int) -> Blend:
        """Return the same in a disk that begins `distance` bytes earlier, a number of sectors."""
        shares, promised = (
            tuple(share._replace(distance=share.distance - distance) for share in every)
            for every in (self.shares, self.promised)
        )
        start = self.virtual_offset + distance
        return self._replace(virtual_offset=start, shares=shares, promised=promised)

    def iter_without_holes(self) -> Iterator[Blend]:
        """Yield the blend without those shares that are nothing but holes of their files."""
        shares = tuple(filter(self._may_be_data, self.shares))
        if shares:
            yield self if len(shares) == len(self.shares) else self._replace(shares=shares)

    def _may_be_data(self, share: Share) -> bool:
        start, end = self.virtual_offset + share.distance, self.virtual_end + share.distance
        # Past the end of the file lies nothing, and the sectors that are used lie before it.
        source = share.image.source
        return any(source.iter_without_holes(start, min(end, source.size) - start))

    def spans(self, sectors: int) -> list[tuple[int, int]]:
        """Return (start, end) of the runs of set bits, in order, in bytes from its beginning."""
        size, skew = self.sector_size, self.virtual_offset % self.sector_size
        runs = [run.span() for run in _RUN.finditer(f"{sectors:b}"[::-1])]
        spans = [(start * size - skew, end * size - skew) for start, end in runs]
        if spans:  # the first sector and the last one may belong to it in part
            spans[0] = max(0, spans[0][0]), spans[0][1]
            spans[-1] = spans[-1][0], min(self.length, spans[-1][1])
        return spans

    def iter_extents(self) -> Iterator[Extent]:
        """Yield the extents that tile it, in order."""
        base = self.virtual_offset
        found = [
            Extent(kind, base + start, end - start, share.image, base + start + share.distance)
            for kind, shares in ((ExtentKind.DATA, self.shares), (ExtentKind.ZERO, self.promised))
            for share in shares
            for start, end in self.spans(share.sectors)
        ]
        absent = self._zeros & ~_sectors_of(self.promised)
        for kind, sectors in ((ExtentKind.LOST, self.lost), (ExtentKind.ZERO, absent)):
            spans = self.spans(sectors)
            found += (Extent(kind, base + start, end - start) for start, end in spans)
        found.sort(key=lambda extent: extent.virtual_offset)
        yield from found

    @property
    def _zeros(self) -> int:
        return ~(self.stored | self.lost) & ((1 << self._sector_count) - 1)

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer`, which is as long as the blend; what is lost becomes zeros.

        Raises:
            TruncatedImageError: A file has become shorter since it was opened.
            OSError: The host could not read.
        """
        for start, end in self.spans(self._zeros | self.lost):
            fill_zeros(buffer[start:end])
        for share in self.shares:
            self._read_share(share, buffer)

    def _read_share(self, share: Share, buffer: memoryview) -> None:
        """Read the sectors of one image, those together between which little is unused."""
        source, distance = share.image.source, self.virtual_offset + share.distance
        max_gap = 0 if source.read_ahead else MAX_GAP
        buffers: list[memoryview] = []
        first = done = 0
        for start, end in self.spans(share.sectors):
            if buffers and (start - done > max_gap or len(buffers) >= MAX_BUFFERS):
                _read(source, first + distance, buffers)
                buffers = []
            if not buffers:
                first = start
            elif done < start:
                buffers.append(_UNUSED[: start - done])
            buffers.append(buffer[start:end])
            done = end
        if buffers:
            _read(source, first + distance, buffers)


def _read(source: Source, file_offset: int, buffers: list[memoryview]) -> None:
    if len(buffers) == 1:
        source.pread_into(file_offset, buffers[0])
    else:
        source.pread_scattered(file_offset, buffers)


Stretch = Extent | Blend
"""A range of the disk that is read in one go."""


def iter_stretches(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[Stretch]:
    """Yield what tiles a range of the virtual disk, by default all of it, in order.

    The arguments and errors are those of `iter_extents`, of which these are fewer.
    """
    sector_sizes = {image.geometry.logical_sector_size for image in chain.images}
    odd = any(image.virtual_disk_size % max(sector_sizes) for image in chain.images)
    if len(sector_sizes) > 1 or odd:  # as only a lenient reader puts up with
        yield from iter_extents(chain, virtual_offset, length)
        return
    parts = iter_mixed_parts(chain, virtual_offset, length)
    while True:
        last: list[Part | Mixed] = []
        yield from iter_joined(chain, _until_mixed(parts, last))
        if not last:
            return
        if isinstance(last[0], Mixed):
            yield from _resolve(chain, last[0])


def _until_mixed(parts: Iterator[Part | Mixed], last: list[Part | Mixed]) -> Iterator[Part]:
    """Pass parts on until there is one that is mixed, or there were many; put the last into a list.

    Millions may become one extent, and who waits for it could not be stopped meanwhile.
    """
    for count, part in enumerate(parts, 1):
        if isinstance(part, Part):
            yield part
        if isinstance(part, Mixed) or count == MOST_JOINED:
            last.append(part)
            return


def _resolve(chain: Chain, mixed: Mixed) -> Iterator[Stretch]:
    """Find out who owns each sector of a window, image by image."""
    sector_size = chain.child.geometry.logical_sector_size
    blend = Blend(mixed.start, mixed.end - mixed.start, sector_size, ())
    first = mixed.start // sector_size
    needed = (1 << ceil_div(mixed.end, sector_size) - first) - 1
    shares: list[Share] = []
    promised: list[Share] = []
    lost = 0
    for depth in range(mixed.depth, len(chain.images) + 1):
        layer: Iterator[Part | Inherited | Mixed] = iter((mixed,))
        if depth > mixed.depth:
            low, high = (needed & -needed).bit_length() - 1, needed.bit_length()
            start = max(mixed.start, (first + low) * sector_size)
            end = min(mixed.end, (first + high) * sector_size)
            layer = iter_layer(chain, depth, start, end, mixed=True)
        for part, sectors in _iter_owned(chain, depth, layer):
            shift = part.start // sector_size - first
            count = ceil_div(part.end, sector_size) - part.start // sector_size
            if part.kind not in KINDS or _cuts_a_sector(part, mixed, sector_size):
                yield from iter_extents(chain, mixed.start, mixed.end - mixed.start)
                return
            taken = (sectors & ((1 << count) - 1)) << shift & needed
            if not taken:
                continue
            needed &= ~taken
            if part.file_offset:
                owned = shares if part.kind is ExtentKind.DATA else promised
                image = chain.images[part.depth]
                owned.append(Share(image, part.file_offset - part.start, taken))
            elif part.kind is ExtentKind.LOST:
                require_salvaging(chain, part.start)
                lost |= taken
        if not needed:
            break
    blend = blend._replace(shares=tuple(shares), lost=lost, promised=tuple(promised))
    if (shares or promised) and blend.run_count > FEW_RUNS:
        yield blend
    else:
        yield from blend.iter_extents()


def _iter_owned(
    chain: Chain, depth: int, layer: Iterator[Part | Inherited | Mixed]
) -> Iterator[tuple[Part, int]]:
    """Yield the parts of a layer with the sectors of each that count, as bits."""
    for item in layer:
        if isinstance(item, Part):
            yield item, ALL_SECTORS
        elif isinstance(item, Mixed):
            image = chain.images[depth]
            sector_size = image.geometry.logical_sector_size
            first = item.start // sector_size
            for part in iter_stored(image, depth, item.blocks, item.start, item.end):
                yield part, item.sectors >> part.start // sector_size - first


def _cuts_a_sector(part: Part, window: Mixed, sector_size: int) -> bool:
    """Return whether a part begins or ends inside a sector, as in a file that was cut anywhere."""
    inside = {part.start, part.end} - {window.start, window.end}
    return any(place % sector_size for place in inside)
