"""Logs made to cost time or memory (R40), and the largest that a real writer could make."""

import struct
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    GIB,
    KIB,
    MIB,
    DataDescriptorSpec,
    LogContext,
    ZeroDescriptorSpec,
    checksum_of,
    crc32c,
)
from tests.support.chains import disk_bytes
from tests.support.logs import BAT, BLOCK, FILE_SIZE, PAGE, bat_page, disk_with, entry, mark
from tests.support.memory import peak_memory
from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.findings import Findings
from vhdx2raw.source.base import Source, Status
from vhdx2raw.vhdx.header import HeaderSection
from vhdx2raw.vhdx.layout import MAX_LOG_DESCRIPTORS, Header
from vhdx2raw.vhdx.log import LogPolicy, LogReport, LogState, replay_log

GUID = UUID(int=0x44)
IMPOSSIBLE_TAIL = 5
"""Page of the ring at which the synthetic ring has no entry."""


def page_of_entry(number: int, tail: int, length: int = PAGE, descriptors: bytes = b"") -> bytes:
    """Give the only page of an entry; its checksum is right if `length` is one page."""
    count = len(descriptors) // 32
    head = struct.pack(
        "<4sIIIQII16sQQ", b"loge", 0, length, tail, number, count, 0, GUID.bytes_le, 0, 0
    )
    page = bytearray((head + descriptors).ljust(PAGE, b"\0"))
    struct.pack_into("<I", page, 4, crc32c(page))
    return bytes(page)


class SyntheticLog(Source):
    """A file that is all log, from 1 MiB on; its pages are made when they are read."""

    name = "synthetic"
    identity = (0, 0)

    def __init__(self, length: int, page: Callable[[int], bytes]) -> None:
        self.size = MIB + length
        self.bytes_read = 0
        self._page = page

    @property
    def descriptor(self) -> int:
        return -1

    def _fill(self, file_offset: int, buffer: memoryview) -> int:
        assert file_offset >= MIB
        self.bytes_read += len(buffer)
        first, skip = divmod(file_offset - MIB, PAGE)
        end = -(-(file_offset - MIB + len(buffer)) // PAGE)
        pages = b"".join(map(self._page, range(first, end)))
        buffer[:] = pages[skip : skip + len(buffer)]
        return len(buffer)

    def status(self) -> Status:
        return Status(self.size)

    def close(self) -> None:
        """Do nothing: nothing was opened."""


def replay(source: Source) -> LogReport:
    """Replay a log that fills a file from 1 MiB on."""
    header = Header(b"head", 0, 1, GUID, GUID, GUID, 0, 1, source.size - MIB, MIB)
    return replay_log(source, HeaderSection("", header, 1), LogPolicy.REPLAY, Findings())[1]


def seconds_to_refuse(source: Source, rule: str, text: str) -> float:
    """Replay a log that is refused; give the processor time that this took."""
    started = time.process_time()
    with pytest.raises(CorruptImageError, match=text) as caught:
        replay(source)
    assert caught.value.finding.rule == rule
    return time.process_time() - started


def run_from(first: int, tail: int) -> Callable[[int], bytes]:
    """Give the pages of one run of one-page entries from page `first` on."""

    def page(index: int) -> bytes:
        return page_of_entry(index + 1, tail * PAGE) if index >= first else bytes(PAGE)

    return page


def zero_descriptors(count: int, number: int) -> bytes:
    """Give descriptors that make separate pages zero."""
    places = range(GIB, GIB + 2 * PAGE * count, 2 * PAGE)
    return b"".join(ZeroDescriptorSpec(place, PAGE).pack(number) for place in places)


def entry_of_zeros(count: int) -> Callable[[int], bytes]:
    """Give the pages of one entry of so many zero descriptors."""
    descriptors = zero_descriptors(count, 1)
    packed = entry(0, 1, log_guid=GUID, flushed_file_offset=0, last_file_offset=0)
    context = LogContext(GUID, 64 * MIB, 0)
    whole = bytearray(packed.pack(context)[:64] + descriptors)
    whole = whole.ljust(-(-len(whole) // PAGE) * PAGE, b"\0")
    struct.pack_into("<I", whole, 8, len(whole))
    struct.pack_into("<I", whole, 24, count)
    struct.pack_into("<I", whole, 4, checksum_of(whole))

    def page(index: int) -> bytes:
        return bytes(whole[index * PAGE : (index + 1) * PAGE]).ljust(PAGE, b"\0")

    return page


# -- time ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gib_of_entries_with_impossible_tail_ends_soon() -> None:
    """R30, item 37: many valid entries, not one sequence; each is read a few times."""
    log = SyntheticLog(GIB, run_from(IMPOSSIBLE_TAIL + 1, IMPOSSIBLE_TAIL))
    count = GIB // PAGE - IMPOSSIBLE_TAIL - 1
    seconds = seconds_to_refuse(log, "R31", f"found {count} valid entries")
    assert log.bytes_read < 3 * GIB
    assert seconds < 40


@pytest.mark.slow
def test_long_run_is_replayed() -> None:
    """R29: so long a run is no reason to refuse it."""
    log = SyntheticLog(64 * MIB, run_from(100, 100))
    assert replay(log) == LogReport(LogState.REPLAYED, 64 * MIB // PAGE - 100)


@pytest.mark.slow
def test_many_sequences_of_one_entry_take_little_time() -> None:
    """R29: the newest of 16383 sequences of one entry each."""
    log = SyntheticLog(64 * MIB, lambda index: page_of_entry(3 * index + 1, PAGE * index))
    started = time.process_time()
    assert replay(log).entry_count == 1
    assert time.process_time() - started < 5


def test_signatures_between_pages_take_little_time() -> None:
    """R18: only one in 1024 of these begins where an entry may begin."""
    log = SyntheticLog(64 * MIB, lambda _: b"loge" * (PAGE // 4))
    assert seconds_to_refuse(log, "R31", "found 0 valid entries") < 1


@pytest.mark.parametrize("length", [32 * MIB, 64 * MIB - PAGE, 64 * MIB])
def test_entries_that_overlap_often_are_refused_soon(length: int) -> None:
    """R40: each one needs the checksum of half or all of the log."""
    page = page_of_entry(1, 0, length)
    log = SyntheticLog(64 * MIB, lambda _: page)
    seconds = seconds_to_refuse(log, "R40", "entries that overlap again and again")
    assert log.bytes_read < 6 * 64 * MIB
    assert seconds < 10


@pytest.mark.slow
def test_entries_without_data_sectors_take_little_time() -> None:
    """R23, R40: each claims the pages of the 126 that follow it."""
    places = [GIB + PAGE * n for n in range(126)]
    descriptors = b"".join(DataDescriptorSpec(place, bytes(PAGE)).pack(1) for place in places)
    page = page_of_entry(1, 0, 127 * PAGE, descriptors)
    log = SyntheticLog(64 * MIB, lambda _: page)
    seconds = seconds_to_refuse(log, "R40", f"more than {MAX_LOG_DESCRIPTORS} updates")
    assert seconds < 10


@pytest.mark.slow
def test_many_entries_of_zero_descriptors_are_refused_soon() -> None:
    """R40: 126 in each of 16384 entries."""
    page = page_of_entry(1, 0, PAGE, zero_descriptors(126, 1))
    log = SyntheticLog(64 * MIB, lambda _: page)
    text = f"would take too long to make sense of: found more than {MAX_LOG_DESCRIPTORS} updates"
    assert seconds_to_refuse(log, "R40", text) < 10


@pytest.mark.parametrize("count", [MAX_LOG_DESCRIPTORS + 1, 2_000_000])
def test_too_many_descriptors_in_one_entry_are_refused(count: int) -> None:
    """R40: before they are looked at."""
    head = page_of_entry(1, 0, 64 * MIB - PAGE, zero_descriptors(126, 1))
    page = head[:24] + struct.pack("<I", count) + head[28:]
    log = SyntheticLog(64 * MIB, lambda index: bytes(PAGE) if index else page)
    text = f"found more than {MAX_LOG_DESCRIPTORS} updates"
    assert seconds_to_refuse(log, "R40", text) < 2


@pytest.mark.slow
def test_most_updates_that_are_accepted_are_replayed() -> None:
    """R35, R40: as separate intervals."""
    log = SyntheticLog(64 * MIB, entry_of_zeros(MAX_LOG_DESCRIPTORS))
    assert replay(log) == LogReport(LogState.REPLAYED, 1)


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_for_entries_is_bounded() -> None:
    """R40: well below one page for each entry."""
    log = SyntheticLog(16 * MIB, run_from(IMPOSSIBLE_TAIL + 1, IMPOSSIBLE_TAIL))
    peak = peak_memory(lambda: seconds_to_refuse(log, "R31", "no complete sequence"))
    assert peak < 4 * MIB + 16 * MIB // PAGE * KIB


@pytest.mark.slow
def test_memory_for_zero_descriptors_is_bounded() -> None:
    """R35: some hundred bytes for each one."""
    count = 50_000
    log = SyntheticLog(4 * MIB, entry_of_zeros(count))
    assert peak_memory(lambda: replay(log)) < 4 * MIB + 300 * count


def test_memory_does_not_grow_with_what_the_log_names(bench: Bench) -> None:
    """R35, R37: exabytes of zeros and of growth, and a page at their end."""
    far = 2**62
    first = entry(0, 1, mark(0, 1), ZeroDescriptorSpec(FILE_SIZE, far))
    place = 2 * far - 2 * PAGE
    second = entry(2, 2, DataDescriptorSpec(place, b"\x09" * PAGE), tail=0)
    second.last_file_offset = 2**64 - MIB
    spec = disk_with(first, second)
    assert peak_memory(lambda: bench.open(spec)) < 16 * MIB
    image = bench.open(spec)
    assert image.source.size == 2**64 - MIB
    assert image.source.pread(place - PAGE, 3 * PAGE) == (
        bytes(PAGE) + b"\x09" * PAGE + bytes(PAGE)
    )


def test_block_in_exabytes_of_growth_is_refused(bench: Bench) -> None:
    """R37, R115: growth makes no place for what no file system could hold."""
    table = DataDescriptorSpec(BAT, bat_page(BLOCK | 6, 2**62 | 6))
    spec = disk_with(entry(0, 1, table, last_file_offset=2**63))
    bench.assert_refused(spec, CorruptImageError, "R78", "the block lies past 256 TiB")


def test_growth_by_the_log_is_zero_extents(bench: Bench) -> None:
    """R37: a page of a table and a number make terabytes of a small file, and cost nothing."""
    size = 250 * 256 * MIB
    promised = 236 * 256 * MIB  # of 250 entries every seventeenth is that of a sector bitmap
    chunk = 16 * 256 * MIB  # before each such entry the blocks lie next to each other
    place = 8 * MIB + 256 * MIB
    page = bat_page(*(8 * MIB + index * 256 * MIB | 6 for index in range(250)))
    first = entry(0, 1, DataDescriptorSpec(BAT, page), last_file_offset=2**47)
    second = entry(2, 2, DataDescriptorSpec(place, b"\x09" * PAGE), tail=0)
    second.last_file_offset = 2**47
    spec = disk_with(first, second, blocks={})
    spec.virtual_disk_size, spec.block_size = size, 256 * MIB
    image = bench.open(spec)
    extents = [
        (extent.kind, extent.virtual_offset, extent.length)
        for extent in iter_extents(Chain((image,)))
    ]
    assert extents == [
        (ExtentKind.ZERO, 0, 256 * MIB),
        (ExtentKind.DATA, 256 * MIB, PAGE),
        (ExtentKind.ZERO, 256 * MIB + PAGE, chunk - 256 * MIB - PAGE),
        *((ExtentKind.ZERO, index * chunk, chunk) for index in range(1, promised // chunk)),
        (ExtentKind.ZERO, promised // chunk * chunk, promised % chunk),
        (ExtentKind.ZERO, promised, size - promised),
    ]
    assert disk_bytes(image, 256 * MIB - PAGE, 3 * PAGE) == bytes(PAGE) + b"\x09" * PAGE + bytes(
        PAGE
    )
