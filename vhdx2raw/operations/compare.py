"""Whether two disks hold the same bytes, read no further than either of them stores any."""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.reading import Stretch
from vhdx2raw.disk.salvage import Range
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.errors import OutputError
from vhdx2raw.operations.progress import ProgressCallback, no_progress, throttled
from vhdx2raw.operations.threads import Ending, map_ahead
from vhdx2raw.output.shape import Shape
from vhdx2raw.source.raw_file import RawFile
from vhdx2raw.units import KIB, MIB, ceil_div

SPAN_SIZE = MIB
"""Most bytes of each disk that are held against each other at once."""
SPAN_ALIGNMENT = 64 * KIB
"""What is stored in small pieces is read with its surroundings, to read less often."""
PART_SIZE = 16 * KIB
"""The bytes that differ are counted in parts that stay in the cache of a processor."""
THREADS = 2
Watch = Callable[[Iterator[Stretch]], Iterator[Stretch]]
VERIFY_REMEDY = "the storage or the memory of this machine may be failing; do not use this output"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        sizes: Bytes of the first disk and of the other one.
        compared_bytes: What was read; all the rest is stored on neither side, and so is zeros.
        first_difference: Offset of the first byte that differs, or None if there is none.
        different_bytes: How many bytes differ; None if the comparison stopped at the first one.
            Where one disk has ended, the other one differs by what is not zero.
    """

    sizes: tuple[int, int]
    compared_bytes: int
    first_difference: int | None
    different_bytes: int | None

    @property
    def same_contents(self) -> bool:
        """Whether no byte differs, though one disk may have more zeros at its end."""
        return self.first_difference is None

    @property
    def same_size(self) -> bool:
        """Whether the disks are equally long."""
        return self.sizes[0] == self.sizes[1]


def compare(
    disk: VirtualDisk,
    other: VirtualDisk | RawFile,
    *,
    stop_at_first: bool = False,
    progress: ProgressCallback = no_progress,
) -> Comparison:
    """Hold two disks against each other, byte by byte.

    Args:
        disk: A virtual disk.
        other: Another one, or a raw disk.
        stop_at_first: Whether to end at the first difference, and not to count them.
        progress: Called from this thread about ten times a second, and once more at the end.
            What it raises ends the comparison.

    Raises:
        ImageError: A file turned out to be truncated, or was changed meanwhile.
        OSError: The host could not read.
    """
    chains = [one.chain for one in (disk, other) if isinstance(one, VirtualDisk)]
    for chain in chains:
        chain.watch()
    result = _compare_all(disk, other, progress, stop_at_first=stop_at_first)
    for chain in chains:
        chain.require_unchanged()
    return result


def _compare_all(
    disk: VirtualDisk,
    other: VirtualDisk | RawFile,
    progress: ProgressCallback,
    *,
    stop_at_first: bool = False,
    skipped: Sequence[Range] | None = None,
) -> Comparison:
    """Do what `compare` does, whether or not a file changes meanwhile.

    With `skipped`, these ranges and what cannot be read are left out.
    """
    sizes = (disk.size, other.size)
    total = _count(disk, other, throttled(progress, later=True))
    report = throttled(progress)
    done = count = 0
    first: int | None = None
    far = [
        one for one in (disk, other) if isinstance(one, VirtualDisk) and one.chain.read_ahead > 0
    ]

    def cancel() -> None:
        for one in far:
            one.chain.cancel()

    ending = Ending(cancel)
    spans = _iter_asked_ahead(far, _iter_spans(disk, other, watch=ending.until))
    with closing(
        map_ahead(
            lambda span: _compare(disk, other, *span, skipped),
            spans,
            THREADS,
            ending,
            lambda: report(done, total),
        )
    ) as results:
        for found in results:
            done += found.length
            count += found.different_bytes
            first = found.first_difference if first is None else first
            if stop_at_first and first is not None:
                return Comparison(sizes, done, first, None)
            report(done, total)
    progress(done, total)
    return Comparison(sizes, done, first, count)


def _count(disk: VirtualDisk, other: VirtualDisk | RawFile, report: ProgressCallback) -> int:
    """Find out how much there is to compare, which can take a while too."""

    def watch(stretches: Iterator[Stretch]) -> Iterator[Stretch]:
        for stretch in stretches:
            report(0, max(disk.size, other.size))
            yield stretch

    return sum(stop - start for start, stop in _iter_spans(disk, other, watch=watch))


class _Found(NamedTuple):
    """What was found in one span."""

    length: int
    first_difference: int | None
    different_bytes: int


def _compare(
    disk: VirtualDisk,
    other: VirtualDisk | RawFile,
    start: int,
    stop: int,
    skipped: Sequence[Range] | None,
) -> _Found:
    """Compare the bytes from start to stop, but for those that are skipped."""
    length = stop - start
    data, other_data = _read(disk, start, length), _read(other, start, length)
    if data != other_data and skipped is not None:
        # What cannot be read now may have been read while it was copied.
        _blank([*skipped, *disk.lost.merged()], start, data, other_data)
    first: int | None = None
    count = 0
    if data != other_data:
        for part_start in range(0, length, PART_SIZE):
            part = data[part_start : part_start + PART_SIZE]
            differences = _differences(part, other_data[part_start : part_start + PART_SIZE])
            if differences and first is None:
                equal = len(part) - len(differences.lstrip(b"\0"))
                first = start + part_start + equal
            count += len(differences) - differences.count(0)
    return _Found(length, first, count)


def _blank(ranges: Sequence[Range], start: int, *pieces: bytearray) -> None:
    """Put zeros into the ranges of each piece, which begins at `start` of the disk."""
    end = start + len(pieces[0])
    for offset, length in ranges:
        first, stop = max(offset, start), min(offset + length, end)
        if first < stop:
            for piece in pieces:
                piece[first - start : stop - start] = bytes(stop - first)


def _differences(data: bytearray, other_data: bytearray) -> bytes:
    """Return a byte for each byte, zero where they are equal; nothing if all are equal."""
    if data == other_data:
        return b""
    # As two numbers, so that no byte is looked at here.
    number = int.from_bytes(data, "little") ^ int.from_bytes(other_data, "little")
    return number.to_bytes(len(data), "little")


def _read(disk: VirtualDisk | RawFile, start: int, length: int) -> bytearray:
    """Read a range; past the end of the disk lie zeros."""
    data = bytearray(length)
    inside = min(length, disk.size - start)
    if inside > 0:
        disk.pread_into(start, memoryview(data)[:inside])
    return data


def _iter_data(disk: VirtualDisk | RawFile, watch: Watch) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what a disk stores, in order."""
    if isinstance(disk, RawFile):
        return disk.iter_data()
    return (
        (data.virtual_offset, data.virtual_end)
        for stretch in watch(disk.stretches())
        if stretch.kind is ExtentKind.DATA
        for data in stretch.iter_without_holes()
    )


def _iter_spans(*disks: VirtualDisk | RawFile, watch: Watch) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the ranges to compare: all that any of the disks stores, once.

    All that a virtual disk is goes through `watch`, also where nothing is stored.
    """
    size = max(disk.size for disk in disks)
    done = 0
    for start, end in heapq.merge(*(_iter_data(disk, watch) for disk in disks)):
        stop = min(ceil_div(end, SPAN_ALIGNMENT) * SPAN_ALIGNMENT, size)
        done = max(done, start - start % SPAN_ALIGNMENT)
        while done < stop:
            span_end = min(stop, (done // SPAN_SIZE + 1) * SPAN_SIZE)
            yield done, span_end
            done = span_end


def _iter_asked_ahead(
    disks: Sequence[VirtualDisk], spans: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield spans, and ask for the data of those that come next, where that takes a while."""
    size = min((disk.chain.read_ahead for disk in disks), default=0) // max(1, len(disks))
    ahead: deque[tuple[int, int]] = deque()
    for start, stop in spans:
        for disk in disks:
            inside = min(stop, disk.size) - start
            for stretch in disk.stretches(start, inside) if inside > 0 else ():
                if stretch.kind is ExtentKind.DATA:
                    stretch.prefetch()
        ahead.append((start, stop))
        while ahead and len(ahead) * SPAN_SIZE > size:
            yield ahead.popleft()
    yield from ahead


def verify(
    disk: VirtualDisk,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    progress: ProgressCallback = no_progress,
    lost: Sequence[Range] = (),
    shape: Shape | None = None,
) -> None:
    """Read back from the storage what was made of a disk, and see that it is exactly that disk.

    A file must end where the disk ends; a device may be longer.

    Args:
        disk: What was converted.
        path: The raw file or block device that was made of it.
        name: What to call it if something is wrong; by default `path`.
        progress: As in `compare`.
        lost: Ranges that could not be read, and are left out.
        shape: What else it has, by default nothing.

    Raises:
        OutputError: It holds something else, or is too short or too long.
        ImageError: A file of the disk turned out to be truncated.
        OSError: The host could not read.
    """
    shape = shape or Shape(disk.size, disk.size)
    with RawFile(path, max_device_size=disk.size) as raw:
        raw.drop_cached()
        size = raw.size
        footer = raw.pread(shape.end, len(shape.footer)) if size == shape.size else shape.footer
        raw.size = min(size, shape.end)
        result = _compare_all(disk, raw, progress, skipped=lost)
    name = os.fspath(path) if name is None else name
    if result.first_difference is not None:
        facts = f"{result.different_bytes}, the first at {result.first_difference:#x}"
        problem = f"is not what was written (bytes that differ: {facts})"
        raise OutputError(problem, path=name, remedy=VERIFY_REMEDY)
    if footer != shape.footer:
        problem = f"is not what was written (its last {len(footer)} bytes differ)"
        raise OutputError(problem, path=name, remedy=VERIFY_REMEDY)
    if size != shape.size:
        problem = f"is {size} bytes long, and not {shape.size} as it was made"
        raise OutputError(problem, path=name, remedy=VERIFY_REMEDY)
