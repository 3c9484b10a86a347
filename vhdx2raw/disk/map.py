"""The map of a disk: which file says what each range holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.layers import Part
from vhdx2raw.disk.walk import iter_parts


class MapEntry(NamedTuple):
    """A range of the virtual disk, and the file of the chain that says what it holds.

    Attributes:
        kind: Stored data, zeros, or lost.
        start: Where it begins in the virtual disk, in bytes.
        length: In bytes.
        depth: Which file: 0 the child, 1 its parent, and so on.
        filename: That file as the user named it, or as it was found.
        present: Whether that file says what is here. If not, no file does: it was the last one
            to be asked, and the range reads as zeros.
        file_offset: Where the bytes stand in that file just as they read, in bytes. None for data
            that is in the log of the file, and for anything else.
    """

    kind: ExtentKind
    start: int
    length: int
    depth: int
    filename: str
    present: bool
    file_offset: int | None = None

    @property
    def end(self) -> int:
        return self.start + self.length

    def moved(self, distance: int) -> MapEntry:
        """Return the same in a disk that begins `distance` bytes earlier."""
        return self._replace(start=self.start + distance)

    def continues(self, before: MapEntry) -> bool:
        """Return whether this entry and the one before it could be one."""
        expected = None if before.file_offset is None else before.file_offset + before.length
        return self.file_offset == expected and (
            (self.kind, self.depth, self.present) == (before.kind, before.depth, before.present)
        )


def iter_map(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[MapEntry]:
    """Yield the entries that tile a range of the virtual disk, by default all of it.

    They come in order and without gaps, and no two neighbours could be one. The arguments and
    errors are those of `iter_extents`.
    """
    pending: MapEntry | None = None
    for part in iter_parts(chain, virtual_offset, length):
        for entry in _iter_entries(chain, part):
            if pending is not None and entry.continues(pending):
                pending = pending._replace(length=pending.length + entry.length)
                continue
            if pending is not None:
                yield pending
            pending = entry
    if pending is not None:
        yield pending


def _iter_entries(chain: Chain, part: Part) -> Iterator[MapEntry]:
    """Yield a part; of data, what stands in the file as it reads apart from what does not."""
    source = chain.images[part.depth].source

    def entry(start: int, end: int, file_offset: int | None = None) -> MapEntry:
        return MapEntry(
            part.kind, start, end - start, part.depth, source.name, part.present, file_offset
        )

    done = part.start
    if part.kind is ExtentKind.DATA:
        for file_offset, length in source.iter_in_file(part.file_offset, part.end - part.start):
            start = part.start + file_offset - part.file_offset
            if done < start:
                yield entry(done, start)
            done = start + length
            yield entry(start, done, file_offset)
    if done < part.end:
        yield entry(done, part.end)
