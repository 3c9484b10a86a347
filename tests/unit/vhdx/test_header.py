"""Validity first, then preference: the file identifier and the two headers (R1 to R17)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    KIB,
    MIB,
    HeaderSpec,
    LogSpec,
    golden_g1,
    golden_g2,
    same_bytes_guid,
)
from tests.support.sources import BadSource
from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Findings, Severity
from vhdx2raw.source.file import FileSource
from vhdx2raw.vhdx.header import HeaderSection, read_header_section

LOG = same_bytes_guid(0x44)


def section_of(path: Path, findings: Findings | None = None) -> HeaderSection:
    """Read the header section alone."""
    source = FileSource(path)
    try:
        return read_header_section(source, findings or Findings())
    finally:
        source.close()


# -- file type identifier --------------------------------------------------------------------


@pytest.mark.parametrize("signature", [b"vhdxfilf", b"VHDXFILE", bytes(8)])
def test_another_signature_is_no_vhdx(bench: Bench, signature: bytes) -> None:
    spec = golden_g1()
    spec.signature = signature
    pattern = r"^.*disk.vhdx: file: is something else, not a VHDX \(MS-VHDX 2.2.1\)$"
    error = bench.assert_refused(spec, UnsupportedImageError, "R1", pattern)
    assert error.hint == "a VHDX begins with the text vhdxfile"


@pytest.mark.parametrize(
    ("creator", "text"),
    [
        ("", ""),
        ("Microsoft Windows 10.0.18363.0\0garbage", "Microsoft Windows 10.0.18363.0"),
        ("x" * 256, "x" * 256),
        ("\x1b[2J\x07d2v\u202e", "[2Jd2v"),
        (b"\x00\xd8" * 256, "\N{REPLACEMENT CHARACTER}" * 256),
    ],
    ids=["empty", "with NUL", "without NUL", "escape codes", "lone surrogates"],
)
def test_the_creator_changes_nothing_but_its_own_text(
    bench: Bench, creator: str | bytes, text: str
) -> None:
    spec = golden_g1()
    spec.creator = creator
    assert bench.assert_reads(spec).header_section.creator == text


# -- validity of the headers -----------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 2])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ({"signature": b"haed"}, "the signature head is missing"),
        (
            {"checksum": 0xDEADBEEF},
            r"the checksum is wrong \(stored 0xdeadbeef, computed 0x[0-9a-f]{8}\)",
        ),
    ],
    ids=["signature", "checksum"],
)
def test_one_bad_header_leaves_the_other_one(
    bench: Bench, bad: int, damage: dict[str, bytes | int], problem: str
) -> None:
    spec = golden_g1()
    for name, value in damage.items():
        setattr(spec.headers[bad - 1], name, value)
    place = ["0x10000", "0x20000"][bad - 1]
    pattern = rf"^header {bad} at file offset {place}: {problem} \(MS-VHDX 2.2.2\)$"
    image = bench.assert_reads(spec, ("R7", pattern))
    assert image.header_section.header_number == 3 - bad


def test_header_checksum_covers_reserved_part(bench: Bench) -> None:
    spec = golden_g1()
    spec.patches[128 * KIB + 4095] = b"\x01"
    image = bench.assert_reads(spec, ("R7", "header 2 .* checksum is wrong"))
    assert image.header_section.header_number == 1


def test_without_a_valid_header_the_file_is_corrupt(bench: Bench) -> None:
    spec = golden_g1()
    spec.headers[0].signature = b"\0\0\0\0"
    spec.headers[1].checksum = 1
    pattern = (
        "headers: none is valid; "
        "header 1 at file offset 0x10000: the signature head is missing .*; "
        "header 2 at file offset 0x20000: the checksum is wrong .stored 0x00000001, "
    )
    bench.assert_refused(spec, CorruptImageError, "R10", pattern)


@pytest.mark.parametrize("size", [64 * KIB, 68 * KIB - 1])
def test_a_file_that_ends_before_the_headers_has_none(bench: Bench, size: int) -> None:
    spec = golden_g1()
    spec.file_size = size
    pattern = "none is valid; header 1 .*: it lies beyond the end of the file .*; header 2 "
    bench.assert_refused(spec, CorruptImageError, "R10", pattern)


def test_file_that_ends_after_header_1(bench: Bench) -> None:
    """Header 1 is current then, and the region tables are what is missing."""
    spec = golden_g1()
    spec.file_size = 68 * KIB
    pattern = "region tables: none is valid; .*lies beyond the end of the file"
    bench.assert_refused(spec, CorruptImageError, "R43", pattern)
    assert section_of(bench.path).header_number == 1


# -- the current header ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "current"),
    [
        (1, 2, 2),
        (2, 1, 1),
        (0, 1, 2),
        (0xFFFFFFFFFFFFFFFF, 0, 1),
        (0, 0xFFFFFFFFFFFFFFFF, 2),
        (0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 2),
    ],
)
def test_the_greater_sequence_number_is_current(
    bench: Bench, first: int, second: int, current: int
) -> None:
    """Compared as plain unsigned numbers: they do not wrap around."""
    spec = golden_g1()
    spec.headers[0] = HeaderSpec(first, data_write_guid=same_bytes_guid(0xA1))
    spec.headers[1] = HeaderSpec(second, data_write_guid=same_bytes_guid(0xA2))
    section = bench.assert_reads(spec).header_section
    assert section.header_number == current
    assert section.header.sequence_number == max(first, second)
    assert section.header.data_write_guid == same_bytes_guid(0xA0 + current)


@pytest.mark.parametrize("dirty", [1, 2])
@pytest.mark.parametrize("newer", [1, 2])
def test_only_the_current_header_decides_if_dirty(bench: Bench, dirty: int, newer: int) -> None:
    spec = golden_g1()
    spec.headers[newer - 1].sequence_number = 10
    spec.headers[dirty - 1].log_guid = LOG
    spec.write(bench.path)
    assert section_of(bench.path).is_dirty is (dirty == newer)
    if dirty != newer:
        bench.assert_reads(spec)


def test_two_identical_headers_are_fine(bench: Bench) -> None:
    """Disk2vhd writes both with sequence number 1."""
    spec = golden_g1()
    spec.headers = [HeaderSpec(1), HeaderSpec(1)]
    assert bench.assert_reads(spec).header_section.header_number == 1


@pytest.mark.parametrize(
    "second",
    [
        HeaderSpec(7, file_write_guid=same_bytes_guid(0xF1)),
        HeaderSpec(7, log_guid=LOG),
        HeaderSpec(7, reserved=b"\x01"),
    ],
    ids=["guid", "log", "reserved"],
)
def test_equal_numbers_in_different_headers_are_refused(bench: Bench, second: HeaderSpec) -> None:
    spec = golden_g1()
    spec.headers = [HeaderSpec(7), second]
    pattern = "headers: both are valid .* none is the current one: found sequence number 7 twice"
    bench.assert_refused(spec, CorruptImageError, "R9", pattern)


@pytest.mark.parametrize("version", [0, 2, 0xFFFF])
def test_unknown_version_of_current_header_is_refused(bench: Bench, version: int) -> None:
    """The older header, although of version 1, is no way out."""
    spec = golden_g1()
    spec.headers[1].version = version
    pattern = (
        "header 2 at file offset 0x20000: unknown version of the format: "
        rf"found {version}, expected 1 \(MS-VHDX 2.2.2\)"
    )
    bench.assert_refused(spec, UnsupportedImageError, "R11", pattern)


def test_version_of_the_other_header_does_not_count(bench: Bench) -> None:
    spec = golden_g1()
    spec.headers[0].version = 2
    bench.assert_reads(spec)


# -- the log fields of a clean file ----------------------------------------------------------


def test_the_version_of_an_unused_log_does_not_count(bench: Bench) -> None:
    spec = golden_g1()
    spec.headers[0].log_version = spec.headers[1].log_version = 1
    bench.assert_reads(spec)


def test_a_clean_file_needs_no_log(bench: Bench) -> None:
    spec = golden_g1()
    for header in spec.headers:
        header.log_offset = header.log_length = 0
    bench.assert_reads(spec)


@pytest.mark.parametrize("log_offset", [2 * MIB, 3 * MIB, 4 * MIB], ids=["data", "bat", "block"])
def test_a_log_without_length_lies_nowhere(bench: Bench, log_offset: int) -> None:
    spec = golden_g1()
    for header in spec.headers:
        header.log_offset, header.log_length = log_offset, 0
    bench.assert_reads(spec)


@pytest.mark.parametrize(
    ("log_offset", "log_length"),
    [
        (MIB + 512, MIB),
        (MIB, MIB + 512),
        (0, MIB),
        (64 * MIB, MIB),
        (MIB, 0xFFF00000),
        (2**64 - MIB, MIB),
        (2**64 - 1, 0xFFFFFFFF),
    ],
)
def test_impossible_place_of_an_unused_log_is_a_note(
    bench: Bench, log_offset: int, log_length: int
) -> None:
    spec = golden_g1()
    for header in spec.headers:
        header.log_offset, header.log_length = log_offset, log_length
    pattern = (
        "log at file offset 0x20000: the unused log has an impossible place, which is ignored: "
        rf"found file offset {log_offset:#x}, length {log_length:#x} \(MS-VHDX 2.2.2\)"
    )
    bench.assert_reads(spec, ("R13", pattern))


def test_log_of_a_clean_file_is_not_replayed(bench: Bench) -> None:
    """Those of golden image G2 would add a block, but the log GUID is zero."""
    spec = golden_g1()
    spec.log = golden_g2().log
    assert isinstance(spec.log, LogSpec)
    image = bench.assert_reads(spec)
    assert not image.header_section.is_dirty
    assert b"loge" in bench.path.read_bytes()


# -- what does not matter --------------------------------------------------------------------


def test_reserved_parts_of_header_section_are_ignored(bench: Bench) -> None:
    spec = golden_g1()
    for header in spec.headers:
        header.reserved = b"\xee" * (4096 - 80)
    spec.patches = {
        520: b"\xee" * (64 * KIB - 520),
        68 * KIB: b"\xee" * (60 * KIB),
        132 * KIB: b"\xee" * (60 * KIB),
        320 * KIB: b"\xee" * (MIB - 320 * KIB),
    }
    bench.assert_reads(spec)


def test_guids_of_the_header_are_reported_as_they_are(bench: Bench) -> None:
    """They are bytes: neither a version nor a variant of UUIDs is demanded."""
    spec = golden_g1()
    spec.file_write_guid, spec.data_write_guid = same_bytes_guid(0xFF), same_bytes_guid(0)
    header = bench.assert_reads(spec).header_section.header
    assert header.file_write_guid == same_bytes_guid(0xFF)
    assert header.data_write_guid == same_bytes_guid(0)


# -- what cannot be read ---------------------------------------------------------------------


def read_bad(path: Path, findings: Findings, *bad: int) -> HeaderSection:
    """Read the header section of a disk some bytes of which cannot be read."""
    golden_g1().write(path)
    source = BadSource(path, *bad)
    try:
        return read_header_section(source, findings)
    finally:
        source.close()


def texts(findings: Findings) -> list[tuple[Severity, str, str]]:
    return [(severity, found.rule, str(found)) for severity, found in findings.reported]


@pytest.mark.parametrize("bad", [0, 64 * KIB, 128 * KIB])
def test_unreadable_header_section_fails_strict_reader(tmp_path: Path, bad: int) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        read_bad(tmp_path / "disk.vhdx", Findings(), bad)


def test_a_lenient_reader_needs_no_file_identifier(tmp_path: Path) -> None:
    findings = Findings(lenient=True)
    section = read_bad(tmp_path / "disk.vhdx", findings, 0)
    assert (section.creator, section.header_number) == ("", 2)
    text = "file at file offset 0x0: its first sector cannot be read: Input/output error"
    assert texts(findings) == [(Severity.ERROR, "R1", f"{text} (MS-VHDX 2.2.1)")]


def test_unreadable_header_is_invalid_to_lenient_reader(tmp_path: Path) -> None:
    findings = Findings(lenient=True)
    section = read_bad(tmp_path / "disk.vhdx", findings, 128 * KIB)
    assert section.header_number == 1
    text = "header 2 at file offset 0x20000: it cannot be read: Input/output error"
    assert texts(findings) == [(Severity.WARNING, "R7", f"{text} (MS-VHDX 2.2.2)")]


def test_lenient_reader_without_header_assumes_no_log(
    tmp_path: Path,
) -> None:
    findings = Findings(lenient=True)
    section = read_bad(tmp_path / "disk.vhdx", findings, 64 * KIB, 128 * KIB)
    assert [(severity, rule) for severity, rule, _ in texts(findings)] == [(Severity.ERROR, "R10")]
    assert (section.header_number, section.is_dirty) == (1, False)
    header = section.header
    assert (header.log_version, header.log_length, header.log_offset) == (0, 0, 0)


@pytest.mark.parametrize("bad_headers", [(), (0,), (1,)], ids=["both", "header 2", "header 1"])
def test_lenient_reader_goes_by_a_valid_header(bench: Bench, bad_headers: tuple[int, ...]) -> None:
    spec = golden_g1()
    spec.signature = bytes(8)
    for index in bad_headers:
        spec.headers[index].checksum = 1
    spec.write(bench.path)
    findings = Findings(lenient=True)
    assert section_of(bench.path, findings).header.version == 1
    assert [found.rule for found in findings.of(Severity.ERROR)] == ["R1"]


def test_lenient_reader_refuses_file_without_header(
    bench: Bench,
) -> None:
    spec = golden_g1()
    spec.signature = bytes(8)
    for header in spec.headers:
        header.checksum = 1
    spec.write(bench.path)
    with pytest.raises(UnsupportedImageError, match="file: is something else, not a VHDX"):
        section_of(bench.path, Findings(lenient=True))
