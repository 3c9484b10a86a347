"""The file type identifier and the two headers: is it a VHDX, and which header is current.

MS-VHDX 2.2.1 and 2.2.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Finding, Findings
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.source.formats import FILE_SIGNATURE, name_foreign_format
from vhdx2raw.vhdx import layout
from vhdx2raw.vhdx.copies import Copy, choose_valid, read_copy

if TYPE_CHECKING:
    from vhdx2raw.vhdx.region_search import RegionSearch


class HeaderSection(NamedTuple):
    """What the start of the file says before any log is replayed.

    Attributes:
        creator: Name of the program that made the file; diagnostics only.
        header: The current header, the only one whose fields count (R8).
        header_number: 1 or 2, the copy that is current.
    """

    creator: str
    header: layout.Header
    header_number: int

    @property
    def is_dirty(self) -> bool:
        """Whether the log must be replayed before anything else is read (R14)."""
        return self.header.log_guid != layout.ZERO_GUID

    @property
    def header_offset(self) -> int:
        """Where in the file the current header lies, in bytes."""
        return layout.HEADER_OFFSETS[self.header_number - 1]


NO_HEADER = layout.Header(
    layout.HEADER_SIGNATURE,
    checksum=0,
    sequence_number=0,
    file_write_guid=layout.ZERO_GUID,
    data_write_guid=layout.ZERO_GUID,
    log_guid=layout.ZERO_GUID,
    log_version=0,
    version=1,
    log_length=0,
    log_offset=0,
)
"""What a lenient reader goes on with if no header is valid: a file without a log (R10)."""


def read_header_section(
    source: Source, findings: Findings, search: RegionSearch | None = None
) -> HeaderSection:
    """Read the file type identifier and choose the current header (R1 to R17).

    Raises:
        UnsupportedImageError: Not a VHDX, or of an unknown version.
        CorruptImageError: No header is valid, or two valid ones contradict each other.
    """
    creator = _read_creator(source, findings, search)
    section = HeaderSection(creator, *_choose_header(source, findings))
    if section.header.version != 1:
        findings.error(
            UnsupportedImageError,
            Rule.VERSION,
            f"header {section.header_number}",
            "unknown version of the format",
            file_offset=section.header_offset,
            found=str(section.header.version),
            expected="1",
        )
    return section


def _read_creator(source: Source, findings: Findings, search: RegionSearch | None) -> str:
    """Refuse what is not a VHDX, by its own name where that is known (R1); return the creator."""
    try:
        start = source.pread(0, min(source.size, layout.FILE_IDENTIFIER_SIZE))
    except OSError as error:
        if not findings.lenient:
            raise
        problem = f"its first sector cannot be read: {error.strerror}"
        findings.error(UnsupportedImageError, Rule.SIGNATURE, "file", problem, file_offset=0)
        return ""
    if start.startswith(FILE_SIGNATURE) and len(start) == layout.FILE_IDENTIFIER_SIZE:
        return layout.FileTypeIdentifier.unpack(start).creator
    kind, remedy = name_foreign_format(source, start)
    finding = Finding(Rule.SIGNATURE, "file", f"is {kind}, not a VHDX")
    refusal = UnsupportedImageError(finding, remedy=remedy)
    has_header = any(copy.is_valid for copy in _read_headers(source, findings))
    if not has_header and (search is None or not search.has_metadata()):
        raise refusal
    # A VHDX whose first bytes were overwritten.
    findings.refuse(finding, lambda _: refusal)
    return ""


def _read_headers(source: Source, findings: Findings) -> list[Copy]:
    return [
        read_copy(
            source,
            findings,
            f"header {number}",
            file_offset=file_offset,
            length=layout.HEADER_SIZE,
            signature=layout.HEADER_SIGNATURE,
        )
        for number, file_offset in enumerate(layout.HEADER_OFFSETS, 1)
    ]


def _choose_header(source: Source, findings: Findings) -> tuple[layout.Header, int]:
    """Return the current header and its number (R7 to R10)."""
    copies = _read_headers(source, findings)
    valid, invalid = choose_valid(copies, Rule.HEADER_VALID, findings)
    if not valid:
        problem = f"none is valid; {invalid[0]}; {invalid[1]}"
        findings.error(CorruptImageError, Rule.NO_HEADER, "headers", problem)
        return NO_HEADER, 1
    headers = [layout.HEADER_LAYOUT.unpack(copy.raw) for copy in valid]
    if len({header.sequence_number for header in headers}) < len(headers):
        _check_identical(valid[0].raw, valid[1].raw, findings)
    # max() keeps the first of equals, and equal sequence numbers mean equal headers here.
    header = max(headers, key=lambda candidate: candidate.sequence_number)
    return header, copies.index(valid[headers.index(header)]) + 1


def _check_identical(first: bytes, second: bytes, findings: Findings) -> None:
    if first != second:
        number = layout.HEADER_LAYOUT.unpack(first).sequence_number
        findings.error(
            CorruptImageError,
            Rule.HEADERS_DIFFER,
            "headers",
            "both are valid and have the same sequence number, but they differ,"
            " so that none is the current one",
            found=f"sequence number {number} twice",
        )
