"""What every range of the virtual disk is: the walk down a chain, from each image to its parent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.layers import Inherited, Mixed, Part, iter_layer
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule


def iter_extents(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[Extent]:
    """Yield the extents that tile a range of the virtual disk, by default all of it.

    They come in order and without gaps, and no two neighbours could be one.

    Args:
        chain: The disk.
        virtual_offset: Where the range begins, in bytes.
        length: Bytes of the range; what lies past the end of the disk is left out.

    Raises:
        CorruptImageError: A range is lost, and the chain was not opened to be salvaged.
        OSError: The host could not read a table.
    """
    return iter_joined(chain, iter_parts(chain, virtual_offset, length))


def iter_joined(chain: Chain, parts: Iterable[Part]) -> Iterator[Extent]:
    """Yield parts of a disk as extents, as few as possible."""
    pending: Extent | None = None
    for part in parts:
        image = chain.images[part.depth] if part.file_offset else None
        size = part.end - part.start
        extent = Extent(part.kind, part.start, size, image, part.file_offset)
        if pending is not None and extent.continues(pending):
            pending = pending.joined(extent)
            continue
        if pending is not None:
            yield pending
        pending = extent
    if pending is not None:
        yield pending


def iter_parts(chain: Chain, virtual_offset: int = 0, length: int | None = None) -> Iterator[Part]:
    """Yield what the images of a chain say about a range of the disk, in order and without gaps.

    The arguments and errors are those of `iter_extents`.
    """
    for part in _walk(chain, virtual_offset, length, mixed=False):
        assert isinstance(part, Part), "nothing is left mixed"
        yield part


def iter_mixed_parts(
    chain: Chain, virtual_offset: int = 0, length: int | None = None
) -> Iterator[Part | Mixed]:
    """Do what `iter_parts` does, but do not look into what changes its owner often."""
    return _walk(chain, virtual_offset, length, mixed=True)


def _walk(
    chain: Chain, virtual_offset: int, length: int | None, *, mixed: bool
) -> Iterator[Part | Mixed]:
    """Go down to the parents where an image leaves something to them.

    No recursion: a chain may be deeper than the stack of a calling program allows.
    """
    end = chain.virtual_disk_size
    if length is not None:
        end = min(end, virtual_offset + length)
    layers = [iter_layer(chain, 0, virtual_offset, end, mixed=mixed)]
    while layers:
        part = next(layers[-1], None)
        if part is None:
            layers.pop()
        elif isinstance(part, Inherited):
            layers.append(iter_layer(chain, len(layers), part.start, part.end, mixed=mixed))
        else:
            if isinstance(part, Part) and part.kind is ExtentKind.LOST:
                require_salvaging(chain, part.start)
            yield part


def require_salvaging(chain: Chain, virtual_offset: int) -> None:
    """Make sure that a range may be lost.

    Raises:
        CorruptImageError: The tables were found to be sound, so nothing can be.
    """
    if not chain.salvaging:
        problem = f"no table shows where the disk has its bytes from {virtual_offset:#x} on"
        finding = Finding(Rule.BLOCK_STATE, "BAT", f"{problem}, as it did when the file was opened")
        raise CorruptImageError(finding, path=chain.child.source.name)
