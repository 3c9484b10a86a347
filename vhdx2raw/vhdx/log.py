"""The log: finding its active sequence, and turning that into a source with the updates applied.

MS-VHDX 2.3. The log is a ring of entries, each of which updates some 4 KiB sectors of the file as
one atomic step. Nothing is written: the file is read through an overlay from here on, and no
later code asks whether it was dirty.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.findings import Finding, Findings
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx.header import HeaderSection
from vhdx2raw.vhdx.layout import HEADER_SECTION_SIZE, MAX_LOG_LENGTH, STRUCTURE_ALIGNMENT
from vhdx2raw.vhdx.log_entry import LogEntry, LogReader
from vhdx2raw.vhdx.overlay import OverlaySource, Updates

DIRTY_REMEDY = (
    "leave out {no_replay} to have it replayed in memory, which does not change the file,"
    " or use {ignore_log} to read the state before it"
)
NO_SEQUENCE_REMEDY = "{ignore_log} reads the file as it is, which may be an old or torn state of it"


class LogPolicy(Enum):
    """What to do with a log that holds updates."""

    REPLAY = "replay"
    REFUSE = "refuse"
    IGNORE = "ignore"


class LogState(Enum):
    """What became of the log of a file."""

    CLEAN = "clean"
    REPLAYED = "replayed"
    IGNORED = "ignored"


class LogReport(NamedTuple):
    """What was done with the log of a file.

    Attributes:
        state: Whether it held updates, and what became of them.
        entry_count: Entries that were replayed.
    """

    state: LogState
    entry_count: int = 0


def replay_log(
    source: Source, section: HeaderSection, policy: LogPolicy, findings: Findings
) -> tuple[Source, LogReport]:
    """Return the file as it reads with its log replayed (R12 to R15, R18 to R41).

    Raises:
        UnsupportedImageError: The log has an unknown version, or is too long for us.
        CorruptImageError: The log cannot be where it should be, has no active sequence, or is
            dirty against `policy`.
        TruncatedImageError: The file is shorter than it was when the log was written.
    """
    if not section.is_dirty:
        return source, LogReport(LogState.CLEAN)
    place = section.header.log_offset
    if policy is LogPolicy.REFUSE:
        problem = "holds updates that are not in the file yet"
        raise CorruptImageError(
            Finding(Rule.LOG_UPDATES, "log", problem, file_offset=place), remedy=DIRTY_REMEDY
        )
    if policy is LogPolicy.IGNORE:
        problem = "holds updates, which were ignored: this is the state before them"
        findings.warn(Rule.LOG_UPDATES, "log", problem, file_offset=place)
        return source, LogReport(LogState.IGNORED)
    where = section.header_offset
    try:
        _check_place(source, section, where)
        sequence = _find_active_sequence(source, section)
        return _replay(source, section, sequence, findings)
    except ImageError as error:
        findings.forgive(error, error.finding)
    except OSError as error:
        if not findings.lenient:
            raise
        problem = f"cannot be read: {error.strerror}"
        findings.error(
            CorruptImageError,
            Rule.NO_SEQUENCE,
            "log",
            problem,
            file_offset=section.header.log_offset,
        )
    return source, LogReport(LogState.IGNORED)


def _replay(
    source: Source, section: HeaderSection, sequence: list[LogEntry], findings: Findings
) -> tuple[Source, LogReport]:
    """Lay what a sequence of entries does over the file (R32 to R37)."""
    head = sequence[-1]
    if source.size < head.flushed_file_offset:
        findings.error(
            TruncatedImageError,
            Rule.FLUSHED_FILE_OFFSET,
            "file",
            "is shorter than it was when its log was written",
            found=f"{source.size} bytes",
            expected=f"at least {head.flushed_file_offset}",
        )
    updates = Updates()
    reader = LogReader(source, section.header)
    for entry in sequence:
        reader.apply(entry, updates)
    problem = (
        f"was replayed in memory (entries: {len(sequence)});"
        " the file was not closed cleanly, or is in use"
    )
    findings.warn(Rule.LOG_REPLAYED, "log", problem, file_offset=section.header.log_offset)
    size = max(source.size, head.last_file_offset, updates.end)
    if source.size < head.flushed_file_offset:
        size = source.size  # what is past the end was more than zeros once
    report = LogReport(LogState.REPLAYED, len(sequence))
    return OverlaySource(source, updates, size), report


def _check_place(source: Source, section: HeaderSection, where: int) -> None:
    """Check the version and the place of a log that has to be replayed (R12, R15)."""
    header = section.header
    if header.log_version != 0:
        problem = "unknown version of the log"
        found = str(header.log_version)
        raise UnsupportedImageError(
            Finding(Rule.LOG_VERSION, "log", problem, file_offset=where, found=found, expected="0")
        )
    problem = ""
    if header.log_length == 0:
        problem = "holds updates, but its length is zero"
    elif header.log_length % STRUCTURE_ALIGNMENT or header.log_offset % STRUCTURE_ALIGNMENT:
        problem = "its place is not a multiple of 1 MiB"
    elif header.log_offset < HEADER_SECTION_SIZE:
        problem = "it lies inside the header section"
    elif header.log_offset + header.log_length > source.size:
        problem = "it lies beyond the end of the file"
    found = f"file offset {header.log_offset:#x}, length {header.log_length:#x}"
    if problem:
        raise CorruptImageError(
            Finding(Rule.LOG_PLACE, "log", problem, file_offset=where, found=found)
        )
    if header.log_length > MAX_LOG_LENGTH:
        problem = "is longer than 1 GiB"
        raise UnsupportedImageError(
            Finding(Rule.LOG_PLACE, "log", problem, file_offset=where, found=found)
        )


def _find_active_sequence(source: Source, section: HeaderSection) -> list[LogEntry]:
    """Return the entries to replay, tail first (R27 to R32).

    Each entry has at most one successor, so every run of entries ends in one head. A sequence is
    a head, and the run that leads to it from the entry that the head names as its tail.
    """
    reader = LogReader(source, section.header)
    entries = {entry.position: entry for entry in reader.iter_entries()}
    ends = _find_runs(entries, section.header.log_length)
    sequences: list[tuple[LogEntry, LogEntry]] = []
    for position, head in entries.items():
        if ends[position][0] == position:
            tail = entries.get(head.tail)
            in_run = tail is not None and ends[tail.position][0] == position
            if in_run and ends[head.tail][1] <= section.header.log_length:
                sequences.append((head, entries[head.tail]))
    if not sequences:
        problem = "has updates to replay by its GUID, but no complete sequence of entries"
        where = section.header.log_offset
        finding = Finding(
            Rule.NO_SEQUENCE,
            "log",
            problem,
            file_offset=where,
            found=f"{len(entries)} valid entries",
        )
        raise CorruptImageError(finding, remedy=NO_SEQUENCE_REMEDY)
    newest = max(head.sequence_number for head, _ in sequences)
    active = [pair for pair in sequences if pair[0].sequence_number == newest]
    if len(active) > 1:
        problem = "has two sequences of entries that end with the same number"
        where = section.header.log_offset
        finding = Finding(
            Rule.ACTIVE_SEQUENCE,
            "log",
            problem,
            file_offset=where,
            found=f"sequence number {newest}",
        )
        raise CorruptImageError(finding, remedy=NO_SEQUENCE_REMEDY)
    return list(_iter_run(entries, active[0][1], section.header.log_length))


def _find_runs(entries: dict[int, LogEntry], length: int) -> dict[int, tuple[int, int]]:
    """Return for each entry the position of the head of its run, and the bytes up to its end."""
    ends: dict[int, tuple[int, int]] = {}
    for entry in sorted(entries.values(), key=lambda entry: -entry.sequence_number):
        successor = _successor(entries, entry, length)
        head, distance = ends[successor.position] if successor else (entry.position, 0)
        ends[entry.position] = head, distance + entry.length
    return ends


def _successor(entries: dict[int, LogEntry], entry: LogEntry, length: int) -> LogEntry | None:
    """Return the entry that begins where `entry` ends and has the next number (R27)."""
    following = entries.get((entry.position + entry.length) % length)
    if following and following.sequence_number == entry.sequence_number + 1:
        return following
    return None


def _iter_run(entries: dict[int, LogEntry], tail: LogEntry, length: int) -> Iterator[LogEntry]:
    entry: LogEntry | None = tail
    while entry:
        yield entry
        entry = _successor(entries, entry, length)
