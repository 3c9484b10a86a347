"""What is done with an image, and what must be true of it: the promise, in code.

An action takes the path of the child and either comes to an end or fails with a `Vhdx2rawError`;
`perform` turns anything else into a `Violation`. To have more done with every image, write a
function and add it here or to `more_actions`.
"""

from __future__ import annotations

import os
import random
import traceback
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import vhdx2raw
from tests.fuzz.limits import SECONDS, LimitError, limited
from tests.support.builder import KIB, MIB
from tests.support.files import open_files
from tests.support.naive_reader import NaiveDisk, NaiveLayer
from vhdx2raw import Extent, ExtentKind, LogPolicy, Vhdx2rawError, VirtualDisk, convert
from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.output.null import NullSink
from vhdx2raw.vhdx.image import VhdxImage, open_image

MOST_EXTENTS = 50_000
LARGEST_WHOLE_READ = 12 * MIB
MOST_CONVERTED_DATA = 64 * MIB
LARGEST_NAIVE_FILE = 600 * MIB
RANGES = 9
LONGEST_RANGE = 20_000
LONGEST_MESSAGE = 4 * KIB
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Violation:
    """A broken promise.

    Attributes:
        action: What was being done.
        kind: The type of the exception, or what else is wrong.
        place: The innermost function of the package, or the demand that was not met.
        details: For people.
    """

    action: str
    kind: str
    place: str
    details: str


@dataclass(frozen=True)
class Action:
    """One thing to do with the path of an image, in some seconds of processor time."""

    run: Callable[[Path], str | None]
    """Returns the outcome in a word, if it is another one than "done"."""
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        return self.run.__name__


class DisagreementError(Exception):
    """Two ways to read the same thing gave different bytes, or something was left over."""


def demand(condition: object, message: str) -> None:
    if not condition:
        raise DisagreementError(message)


def perform(action: Action, path: Path) -> str | Violation:
    """Return the outcome in a word: mostly "done", or the class and rule of the error."""
    before = open_files()
    try:
        with limited(action.seconds):
            outcome = action.run(path) or "done"
    except Vhdx2rawError as error:
        outcome = _judge(error)
    except (Exception, LimitError) as error:  # noqa: BLE001 - what else is raised is the finding
        return Violation(action.name, type(error).__name__, _place(error), _details(error))
    if left := open_files() - before:
        return Violation(action.name, "leak", "", f"{len(left)} files are still open")
    if outcome.startswith("bad error"):
        return Violation(action.name, "bad error", "", outcome)
    return outcome


def _judge(error: Vhdx2rawError) -> str:
    """Check that an error can be shown, and return its class and rule."""
    text = str(error)
    if not text or len(text) > LONGEST_MESSAGE or len(text.splitlines()) > 1:
        return f"bad error {type(error).__name__}: {len(text)} characters: {text[:200]!a}"
    exit_code = exit_code_of(error)
    if exit_code not in (4, 5, 6):
        return f"bad error {type(error).__name__} with exit code {exit_code}"
    finding = getattr(error, "finding", None)
    return f"{type(error).__name__} {finding.rule if finding else ''}".rstrip()


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, DisagreementError):
        return f"actions.py:{frames[-2].lineno}"  # the demand
    ours = [frame for frame in frames if "/vhdx2raw/" in frame.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""


def _details(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]


# --- The actions ----------------------------------------------------------------------------------


def open_alone(path: Path) -> None:
    """Open the one file."""
    with open_image(path) as image:
        demand(image.virtual_disk_size > 0, "a disk without a sector")


def open_without_log(path: Path) -> None:
    """Open the one file as if its log did not exist."""
    open_image(path, LogPolicy.IGNORE).close()


def open_if_clean(path: Path) -> None:
    """Open the one file unless it is dirty."""
    open_image(path, LogPolicy.REFUSE).close()


def read_in_every_way(path: Path) -> None:
    """Open the chain, and read the same bytes by extents, by offset and by conversion."""
    with vhdx2raw.open(path) as disk:
        extents = list(islice(disk.extents(), MOST_EXTENTS))
        is_whole = len(extents) < MOST_EXTENTS
        check_tiling(disk, extents, is_whole=is_whole)
        for start, length in ranges_of(disk, extents):
            piece = disk.pread(length, start)
            demand(piece == disk.pread(length, start), f"{start:#x} reads differently again")
            expected = read_extents(extents, start, length)
            demand(piece == expected, f"pread and extents differ at {start:#x}")
            again = list(disk.extents(start, length))
            demand(piece == read_extents(again, start, length), f"extents of {start:#x} differ")
        if is_whole and data_of(extents) <= MOST_CONVERTED_DATA:
            check_conversion(disk, extents)


def compare_with_naive_reader(path: Path) -> str | None:
    """Read parts of the disk with the slow reader of the tests, and report if it can read none."""
    compared = 0
    with vhdx2raw.open(path) as disk:
        if any(image.source.size > LARGEST_NAIVE_FILE for image in disk.chain.images):
            return NOT_COMPARED
        try:
            naive = NaiveDisk([Path(image.source.name) for image in disk.chain.images])
        except Exception:  # noqa: BLE001 - it does not promise to fail well
            return NOT_COMPARED
        if any(map(_breaks_r24, disk.chain.images, naive.layers)):
            # Such an entry is not valid (R24), which the naive reader does not know.
            return NOT_COMPARED
        demand(naive.size == disk.size, "the naive reader sees another size")
        extents = list(islice(disk.extents(), MOST_EXTENTS))
        for start, length in ranges_of(disk, extents):
            try:
                expected = naive.read(start, length)
            except Exception:  # noqa: BLE001
                continue
            same = disk.pread(length, start) == expected
            demand(same, f"the naive reader sees other bytes in {length} from {start:#x} on")
            compared += 1
    return None if compared else NOT_COMPARED


ACTIONS: tuple[Action, ...] = (
    Action(open_alone),
    Action(open_without_log),
    Action(open_if_clean),
    Action(read_in_every_way, seconds=3 * SECONDS),  # which it does about so often
    Action(compare_with_naive_reader, seconds=20),
)


# --- What they share ------------------------------------------------------------------------------


class MemorySink(NullSink):
    """Keeps the disk, and whether it is complete."""

    def __init__(self, size: int, *, sequential: bool) -> None:
        self.sequential = sequential
        self.makes_holes = not sequential
        self.disk = bytearray(size)
        self.committed = False

    def write(self, virtual_offset: int, data: memoryview) -> None:
        demand(virtual_offset + len(data) <= len(self.disk), "written past the end")
        self.disk[virtual_offset : virtual_offset + len(data)] = data

    def zero(self, virtual_offset: int, length: int) -> None:
        demand(virtual_offset + length <= len(self.disk), "zeros past the end")

    def clone(self, virtual_offset: int, descriptor: int, file_offset: int, length: int) -> bool:
        """Copy, as the kernel would do it: from the file, whatever a log says."""
        data = os.pread(descriptor, length, file_offset)
        demand(len(data) == length, "a clone from past the end of the file")
        self.write(virtual_offset, memoryview(data))
        return True

    def commit(self) -> None:
        self.committed = True


def _breaks_r24(image: VhdxImage, layer: NaiveLayer) -> bool:
    """Return whether the naive reader replayed an update of the log itself, or past all files."""
    header = image.header_section.header
    log_end = header.log_offset + header.log_length
    return any(
        (start < log_end and start + length > header.log_offset) or start + length >= 1 << 63
        for start, length, _ in layer.writes
    )


def ranges_of(disk: VirtualDisk, extents: Sequence[Extent]) -> Iterator[tuple[int, int]]:
    """Give some ranges of a disk: its ends, borders of extents, and any others."""
    chance = random.Random(len(extents))
    yield 0, min(disk.size, LONGEST_RANGE)
    yield max(0, disk.size - LONGEST_RANGE), min(disk.size, LONGEST_RANGE)
    for number in range(RANGES):
        border = (
            chance.choice(extents).virtual_offset if number % 3 else chance.randrange(disk.size)
        )
        start = min(max(0, border - chance.choice((0, 1, 512, 3000))), disk.size - 1)
        yield start, min(chance.choice((1, 1024, LONGEST_RANGE)), disk.size - start)


def check_tiling(disk: VirtualDisk, extents: Sequence[Extent], *, is_whole: bool) -> None:
    end = 0
    for extent in extents:
        demand(extent.virtual_offset == end, f"extents leave a gap or overlap at {end:#x}")
        demand(extent.length > 0, f"an empty extent at {end:#x}")
        end += extent.length
    demand(end == disk.size or not is_whole, "extents end before the disk")


def read_extents(extents: Sequence[Extent], start: int, length: int) -> bytes:
    """Read a range from the sources of extents; less if they do not reach so far."""
    data = bytearray()
    first = bisect_right(extents, start, key=lambda extent: extent.virtual_offset) - 1
    for extent in extents[max(0, first) :]:
        if extent.virtual_offset >= start + length:
            break
        low = max(start, extent.virtual_offset)
        count = min(start + length, extent.virtual_end) - low
        if extent.kind is ExtentKind.DATA:
            place = extent.file_offset + low - extent.virtual_offset
            data += extent.source.pread(place, count)
        else:
            data += bytes(count)
    return bytes(data)


def data_of(extents: Sequence[Extent]) -> int:
    return sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)


def check_conversion(disk: VirtualDisk, extents: Sequence[Extent]) -> None:
    """Convert, and compare the whole disk if it is small."""
    if disk.size > LARGEST_WHOLE_READ:
        result = convert(disk, NullSink())
        demand(result.data_bytes == data_of(extents), "other data converted than there is")
        return
    whole = disk.pread(disk.size, 0)
    demand(whole == read_extents(extents, 0, disk.size), "the whole disk reads differently")
    sequential = len(extents) % 2 == 0  # one of the two is enough for one image
    sink = MemorySink(disk.size, sequential=sequential)
    convert(disk, sink, workers=2)
    demand(sink.committed, "converted, but not committed")
    demand(sink.disk == whole, f"converted to other bytes (sequential: {sequential})")
