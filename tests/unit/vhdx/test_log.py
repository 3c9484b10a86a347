"""Finding the active sequence of a log, and what becomes of the file (R12 to R15, R27 to R41)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    DEFAULT_LOG_GUID,
    GIB,
    GOLDEN_FILE_SHA256,
    GOLDEN_RAW_SHA256,
    MIB,
    ZERO_GUID,
    DataDescriptorSpec,
    Descriptor,
    ImageSpec,
    LogEntrySpec,
    golden_g2,
    same_bytes_guid,
)
from tests.support.chains import disk_bytes
from tests.support.files import sha256_of
from tests.support.logs import (
    BAT,
    BLOCK,
    FILE_SIZE,
    FLUSHED,
    NO_LENGTH,
    NO_SEQUENCE,
    PAGE,
    RING,
    VERSION,
    Refusal,
    Row,
    bat_page,
    blank_disk,
    disk_with,
    entry,
    erase,
    mark,
    marks_on,
    sha256_of_disk,
    table_7_3,
)
from tests.support.sources import BadSource
from vhdx2raw.errors import CorruptImageError, TruncatedImageError, UnsupportedImageError
from vhdx2raw.findings import Findings, Severity
from vhdx2raw.vhdx.header import read_header_section
from vhdx2raw.vhdx.image import open_image
from vhdx2raw.vhdx.log import LogPolicy, LogReport, LogState, replay_log


def assert_refused(bench: Bench, spec: ImageSpec, refusal: Refusal) -> None:
    bench.assert_refused(spec, refusal.error, refusal.rule, refusal.text)


# -- table 7.3 of the format document --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("row", table_7_3(), ids=lambda row: row.case)
def test_table_7_3(row: Row, bench: Bench) -> None:
    if isinstance(row.outcome, Refusal):
        assert_refused(bench, row.spec, row.outcome)
    else:
        assert marks_on(row.spec, bench.path) == row.outcome


def test_golden_g2_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "g2.vhdx"
    golden_g2().write(path)
    assert sha256_of(path) == GOLDEN_FILE_SHA256["g2"]
    with open_image(path) as image:
        assert image.log == LogReport(LogState.REPLAYED, entry_count=1)
        assert sha256_of_disk(image) == GOLDEN_RAW_SHA256["g2"]
    assert sha256_of(path) == GOLDEN_FILE_SHA256["g2"]


# -- sequences (R27 to R33) ------------------------------------------------------------------


def test_replay_is_a_warning_with_number_of_entries(bench: Bench) -> None:
    image = bench.open(disk_with(entry(0, 1, mark(0, 1)), entry(2, 2, tail=0)))
    assert image.log == LogReport(LogState.REPLAYED, entry_count=2)
    (warning,) = image.warnings
    assert warning.rule == "R120"
    assert "log at file offset 0x100000: was replayed in memory (entries: 2)" in str(warning)


def test_empty_entry_in_the_middle_is_a_full_member(tmp_path: Path) -> None:
    """R25: it carries the run on, and counts as an entry."""
    spec = disk_with(
        entry(9, 7, mark(0, 1)), entry(11, 8, tail=9), entry(12, 9, mark(1, 2), tail=9)
    )
    assert marks_on(spec, tmp_path / "disk.vhdx") == {0: 1, 1: 2}


def test_run_needs_entries_without_a_gap_between(tmp_path: Path) -> None:
    """R27: the second entry begins one page too far."""
    spec = disk_with(entry(0, 1, mark(0, 1)), entry(3, 2, mark(1, 2), tail=3))
    assert marks_on(spec, tmp_path / "disk.vhdx") == {1: 2}


def test_number_that_repeats_ends_a_run(bench: Bench) -> None:
    """R27, R29: two sequences with the same newest number contradict each other."""
    pattern = (
        "log at file offset 0x100000: has two sequences .* same number: found sequence number 4"
    )
    spec = disk_with(entry(0, 4, mark(0, 1)), entry(2, 4, mark(1, 2), tail=2))
    error = bench.assert_refused(spec, CorruptImageError, "R29", pattern)
    assert error.remedy.startswith("{ignore_log} reads the file as it is")


def test_tail_in_the_middle_of_an_entry_is_refused(bench: Bench) -> None:
    """R28: nor may a shorter part of it be used."""
    spec = disk_with(
        entry(0, 1, mark(0, 1), mark(1, 1)),
        entry(3, 2, mark(2, 2), tail=0),
        entry(5, 3, mark(3, 3), tail=1),
    )
    assert_refused(bench, spec, NO_SEQUENCE)


def test_tail_in_an_older_run_is_refused(bench: Bench) -> None:
    """R28: the tail is an entry of another, older run."""
    spec = disk_with(entry(0, 5, mark(0, 1), tail=8), entry(8, 3, tail=100))
    assert_refused(bench, spec, NO_SEQUENCE)


def test_incomplete_newest_sequence_gives_way_to_older(tmp_path: Path) -> None:
    """R29: of all *valid* sequences, the one with the newest head."""
    spec = disk_with(entry(0, 1, mark(0, 1)), entry(10, 9, mark(1, 9), tail=100))
    assert marks_on(spec, tmp_path / "disk.vhdx") == {0: 1}


def test_sequence_numbers_do_not_wrap(tmp_path: Path) -> None:
    newest = 2**64 - 1
    spec = disk_with(entry(0, newest, mark(0, 1)), entry(2, 1, mark(1, 2), tail=2))
    assert marks_on(spec, tmp_path / "disk.vhdx") == {0: 1}


@pytest.mark.parametrize("first", [0, 1, 37, RING - 1])
def test_sequence_that_fills_the_log_exactly_is_found(first: int, tmp_path: Path) -> None:
    """R30: its tail may lie anywhere in the ring."""
    entries = [
        entry((first + 2 * n) % RING, 100 + n, mark(n, n + 1), tail=first) for n in range(RING // 2)
    ]
    expected = {n: n + 1 for n in range(RING // 2)}
    assert marks_on(disk_with(*entries), tmp_path / "disk.vhdx") == expected


def test_single_entry_that_fills_the_log_is_replayed(tmp_path: Path) -> None:
    """R19: EntryLength may be LogLength."""
    pages = [mark(n, n + 1) for n in range(200)]
    one = entry(17, 1, *pages, padding_sectors=RING - 202)
    assert one.size == MIB
    expected = {n: n + 1 for n in range(200)}
    assert marks_on(disk_with(one), tmp_path / "disk.vhdx") == expected


def test_later_writes_win_over_earlier_ones(tmp_path: Path) -> None:
    """R33: within an entry, and from entry to entry; zeros as well as data."""
    spec = disk_with(
        entry(0, 1, mark(0, 1), mark(0, 2), mark(1, 3), erase(1, 2), mark(2, 4), mark(3, 5)),
        entry(6, 2, mark(3, 6), erase(4, 4), tail=0),
        entry(8, 3, mark(5, 7), erase(0, 1), tail=0),
    )
    assert marks_on(spec, tmp_path / "disk.vhdx") == {2: 4, 3: 6, 5: 7}


@pytest.mark.parametrize("number", [1, 2**32 - 1, 2**32, 0x0102030405060708, 2**64 - 2])
def test_numbers_use_both_halves(number: int, tmp_path: Path) -> None:
    spec = disk_with(entry(0, number, mark(0, 1)), entry(2, number + 1, mark(1, 2), tail=0))
    assert marks_on(spec, tmp_path / "disk.vhdx") == {0: 1, 1: 2}


# -- entries of other times (R13, R41) -------------------------------------------------------


def test_clean_file_ignores_stale_entries(tmp_path: Path) -> None:
    """R13, R41: stale entries of several sessions are no updates."""
    entries = [
        entry(at, 5 + at, mark(at, 1), log_guid=same_bytes_guid(at + 1)) for at in range(0, 40, 2)
    ]
    spec = disk_with(*entries, log_guid=ZERO_GUID)
    path = tmp_path / "disk.vhdx"
    assert marks_on(spec, path) == {}
    with open_image(path) as image:
        assert image.log == LogReport(LogState.CLEAN)
        assert image.warnings == ()


def test_zero_guid_entries_of_a_clean_file_are_ignored(tmp_path: Path) -> None:
    """Their GUID equals that of the header, which nevertheless stands for an empty log."""
    spec = disk_with(entry(0, 1, mark(0, 1), log_guid=ZERO_GUID), log_guid=ZERO_GUID)
    assert marks_on(spec, tmp_path / "disk.vhdx") == {}


def test_newer_entries_of_another_session_are_ignored(tmp_path: Path) -> None:
    other = same_bytes_guid(0x45)
    spec = disk_with(
        entry(0, 1, mark(0, 1)),
        entry(2, 2, mark(1, 2), tail=0, log_guid=other),
        entry(20, 99, mark(2, 3), log_guid=other),
    )
    assert marks_on(spec, tmp_path / "disk.vhdx") == {0: 1}


def test_wrong_guid_in_all_entries_is_refused(bench: Bench) -> None:
    spec = disk_with(entry(0, 1, mark(0, 1), log_guid=same_bytes_guid(0x45)))
    assert_refused(bench, spec, NO_SEQUENCE)


def test_refusal_has_number_of_entries_and_remedy(bench: Bench) -> None:
    spec = disk_with(entry(0, 1, tail=50), entry(1, 2, tail=50))
    error = bench.assert_refused(spec, CorruptImageError, "R31", "found 2 valid entries")
    assert error.finding.file_offset == MIB
    assert error.remedy.startswith("{ignore_log} reads the file as it is")


@pytest.mark.parametrize(("newer", "marks"), [(0, {}), (1, {0: 1})])
def test_only_the_current_header_decides_on_replay(
    newer: int, marks: dict[int, int], tmp_path: Path
) -> None:
    """R8, R39: header 1 is clean and header 2 dirty."""
    spec = disk_with(entry(0, 1, mark(0, 1)), log_guid=ZERO_GUID)
    spec.log.entries[0].log_guid = DEFAULT_LOG_GUID
    spec.headers[1].log_guid = DEFAULT_LOG_GUID
    spec.headers[newer].sequence_number = 10
    assert marks_on(spec, tmp_path / "disk.vhdx") == marks


# -- the place of the log (R12, R15) ---------------------------------------------------------


def test_version_of_the_log_counts_only_if_it_is_dirty(bench: Bench) -> None:
    """R12."""
    spec = disk_with(entry(0, 1, mark(0, 1)))
    for header in spec.headers:
        header.log_version = 1
    error = bench.assert_refused(spec, UnsupportedImageError, "R12", VERSION.text)
    assert error.finding.file_offset == 128 << 10
    spec.log_guid = ZERO_GUID
    assert marks_on(spec, bench.path) == {}


@pytest.mark.parametrize(
    ("log_offset", "log_length", "text"),
    [
        (MIB, 0, NO_LENGTH.text),
        (MIB, MIB - PAGE, "its place is not a multiple of 1 MiB"),
        (MIB + PAGE, MIB, "its place is not a multiple of 1 MiB"),
        (0, MIB, "it lies inside the header section"),
        (5 * MIB, MIB, "it lies beyond the end of the file"),
        (4 * MIB, 2 * MIB, "it lies beyond the end of the file"),
        (2**64 - MIB, MIB, "it lies beyond the end of the file"),
        (MIB, 4 * GIB - MIB, "it lies beyond the end of the file: found file offset 0x100000, "),
    ],
)
def test_dirty_log_in_an_impossible_place_is_refused(
    log_offset: int, log_length: int, text: str, bench: Bench
) -> None:
    """R15."""
    spec = blank_disk()
    for header in spec.headers:
        header.log_offset, header.log_length = log_offset, log_length
    error = bench.assert_refused(spec, CorruptImageError, "R15", text)
    assert f"found file offset {log_offset:#x}, length {log_length:#x}" in error.message


def test_log_of_more_than_a_gib_is_not_supported(bench: Bench) -> None:
    """R15, item 16: refused before it is read."""
    spec = blank_disk(file_size=6 * GIB)
    for header in spec.headers:
        header.log_offset, header.log_length = FILE_SIZE, 4 * GIB - MIB
    bench.assert_refused(
        spec, UnsupportedImageError, "R15", "log at .* 0x20000: is longer than 1 GiB"
    )


@pytest.mark.parametrize("place", [2 * MIB, 3 * MIB])
def test_log_that_overlaps_a_region_is_refused(place: int, bench: Bench) -> None:
    """R15: the entry lies in unused space of the metadata or the BAT region."""
    used = entry(128, 1, mark(0, 1))
    spec = disk_with(used, log_offset=place)
    bench.assert_refused(spec, CorruptImageError, "R51", "overlap")


# -- the size of the file (R36, R37) ---------------------------------------------------------


def test_file_may_be_just_as_long_as_the_head_flushed(tmp_path: Path) -> None:
    """R36."""
    head = entry(0, 1, mark(0, 1), flushed_file_offset=FILE_SIZE, last_file_offset=20 * MIB)
    assert marks_on(disk_with(head), tmp_path / "disk.vhdx") == {0: 1}


def test_flushed_offset_is_held_against_size_in_file(bench: Bench) -> None:
    """R36: the growth of R37 does not heal a truncated file."""
    flushed = FILE_SIZE + MIB
    head = entry(0, 1, mark(0, 1), flushed_file_offset=flushed, last_file_offset=20 * MIB)
    error = bench.assert_refused(disk_with(head), FLUSHED.error, FLUSHED.rule, FLUSHED.text)
    assert f"found {FILE_SIZE} bytes, expected at least {flushed}" in error.message
    assert "fetch it again" in error.hint


@pytest.mark.parametrize(
    ("descriptors", "last", "size"),
    [
        ([], None, FILE_SIZE),
        ([], 7 * MIB, 7 * MIB),
        ([], 0, FILE_SIZE),
        ([mark(2048, 1)], None, BLOCK + 2049 * PAGE),
        ([erase(1024, 1024)], None, BLOCK + 2048 * PAGE),
        ([erase(1024, 0)], None, FILE_SIZE),
        ([mark(300, 1)], 9 * MIB, 9 * MIB),
    ],
)
def test_file_grows_to_what_the_log_says(
    descriptors: list[Descriptor], last: int | None, size: int, bench: Bench
) -> None:
    """R37: to LastFileOffset, and to the end of every update; all else there is zeros."""
    image = bench.open(disk_with(entry(0, 1, *descriptors, last_file_offset=last)))
    assert image.source.size == size
    marks = {d.file_offset for d in descriptors if isinstance(d, DataDescriptorSpec)}
    expected = [int(place in marks) for place in range(FILE_SIZE, size, PAGE)]
    grown = image.source.pread(FILE_SIZE, size - FILE_SIZE)
    assert grown == b"".join(bytes([value]) * PAGE for value in expected)


def test_only_the_head_decides_on_the_file_size(bench: Bench) -> None:
    """R37: an older entry was written when the file was longer."""
    older: LogEntrySpec = entry(0, 1, last_file_offset=9 * MIB)
    image = bench.open(disk_with(older, entry(1, 2, tail=0, last_file_offset=6 * MIB)))
    assert image.source.size == 6 * MIB


def test_block_in_the_grown_part_reads_as_zeros(bench: Bench) -> None:
    """R37, item 29."""
    table = DataDescriptorSpec(BAT, bat_page(BLOCK | 6, FILE_SIZE | 6))
    image = bench.open(disk_with(entry(0, 1, table, last_file_offset=6 * MIB)))
    assert disk_bytes(image, MIB, MIB) == bytes(MIB)


def test_block_past_the_grown_part_is_refused(bench: Bench) -> None:
    """R111 is judged by the grown size, and not by more."""
    table = DataDescriptorSpec(BAT, bat_page(BLOCK | 6, (FILE_SIZE + MIB) | 6))
    spec = disk_with(entry(0, 1, table, last_file_offset=6 * MIB))
    text = r"payload block 1 .*lies beyond the end of the file, at 0x600000: found .* 6291456 bytes"
    bench.assert_refused(spec, TruncatedImageError, "R111", text)


# -- a log that cannot be read ---------------------------------------------------------------


@pytest.fixture
def bad_source(tmp_path: Path) -> Iterator[BadSource]:
    disk_with(entry(0, 1, mark(0, 1))).write(tmp_path / "disk.vhdx")
    source = BadSource(tmp_path / "disk.vhdx", MIB)
    yield source
    source.close()


def test_unreadable_log_fails_strict_reader(bad_source: BadSource) -> None:
    """The file is not to blame."""
    section = read_header_section(bad_source, Findings())
    with pytest.raises(OSError, match="Input/output error"):
        replay_log(bad_source, section, LogPolicy.REPLAY, Findings())


def test_unreadable_log_is_left_out_by_lenient_reader(bad_source: BadSource) -> None:
    findings = Findings(lenient=True)
    section = read_header_section(bad_source, findings)
    source, report = replay_log(bad_source, section, LogPolicy.REPLAY, findings)
    assert source is bad_source
    assert report == LogReport(LogState.IGNORED, entry_count=0)
    (finding,) = findings.of(Severity.ERROR)
    assert finding.rule == "R31"
    assert "log at file offset 0x100000: cannot be read: Input/output error" in str(finding)
