"""The file type identifier and the two headers: is it a VHDX, and which header is current.

MS-VHDX 2.2.1 and 2.2.2. Validity comes first, preference second: a copy that fails its checksum
is never looked at again.
"""

from __future__ import annotations

from typing import NamedTuple

from vhdx2raw.errors import (
    CorruptImageError,
    Finding,
    Findings,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.foreign import name_foreign_format
from vhdx2raw.source import Source
from vhdx2raw.structures import (
    FILE_IDENTIFIER_SIZE,
    FILE_SIGNATURE,
    HEADER_OFFSETS,
    HEADER_SIGNATURE,
    HEADER_SIZE,
    ZERO_GUID,
    FileTypeIdentifier,
    Header,
    checksum,
)


class HeaderSection(NamedTuple):
    """What the start of the file says before any log is replayed.

    Attributes:
        creator: Name of the program that made the file; diagnostics only.
        header: The current header, the only one whose fields count (R8).
        header_number: 1 or 2, the copy that is current.
    """

    creator: str
    header: Header
    header_number: int

    @property
    def is_dirty(self) -> bool:
        """Whether the log must be replayed before anything else is read (R14)."""
        return self.header.log_guid != ZERO_GUID


class Copy(NamedTuple):
    """One of the two copies of a structure.

    Attributes:
        number: 1 or 2.
        file_offset: Where it lies, in bytes.
        raw: Its bytes; empty if they cannot be read.
        problem: What makes it invalid; empty for a valid copy.
    """

    number: int
    file_offset: int
    raw: bytes
    problem: str

    @property
    def is_valid(self) -> bool:
        """Whether it can be used."""
        return not self.problem


NO_HEADER = Header(
    HEADER_SIGNATURE,
    checksum=0,
    sequence_number=0,
    file_write_guid=ZERO_GUID,
    data_write_guid=ZERO_GUID,
    log_guid=ZERO_GUID,
    log_version=0,
    version=1,
    log_length=0,
    log_offset=0,
)
"""What a lenient reader goes on with if no header is valid: a file without a log (R10)."""


def read_header_section(source: Source, findings: Findings) -> HeaderSection:
    """Read the file type identifier and choose the current header (R1 to R17).

    Raises:
        UnsupportedImageError: Not a VHDX, or of an unknown version.
        CorruptImageError: No header is valid, or two valid ones contradict each other.
    """
    creator = _read_creator(source, findings)
    header, number = _choose_header(source, findings)
    if header.version != 1:
        finding = Finding(
            "R11",
            f"header {number}",
            "unknown version of the format",
            "2.2.2",
            HEADER_OFFSETS[number - 1],
            found=str(header.version),
            expected="1",
        )
        findings.error(UnsupportedImageError(finding))
    return HeaderSection(creator, header, number)


def _read_creator(source: Source, findings: Findings) -> str:
    """Refuse what is not a VHDX, by its own name where that is known (R1); return the creator."""
    try:
        start = source.pread(0, min(source.size, FILE_IDENTIFIER_SIZE))
    except OSError as error:
        if not findings.lenient:
            raise
        problem = f"its first sector cannot be read: {error.strerror}"
        findings.error(UnsupportedImageError(Finding("R1", "file", problem, "2.2.1", 0)))
        return ""
    if start.startswith(FILE_SIGNATURE) and len(start) == FILE_IDENTIFIER_SIZE:
        return FileTypeIdentifier.unpack(start).creator
    kind, hint = name_foreign_format(source, start)
    finding = Finding("R1", "file", f"is {kind}, not a VHDX", "2.2.1")
    refusal = UnsupportedImageError(finding, hint=hint)
    if not any(copy.is_valid for copy in _read_headers(source, findings)):
        raise refusal
    findings.error(refusal)  # a VHDX whose first bytes were overwritten
    return ""


def _read_headers(source: Source, findings: Findings) -> list[Copy]:
    return [
        read_copy(
            source,
            findings,
            number=number,
            file_offset=file_offset,
            length=HEADER_SIZE,
            signature=HEADER_SIGNATURE,
        )
        for number, file_offset in enumerate(HEADER_OFFSETS, 1)
    ]


def _choose_header(source: Source, findings: Findings) -> tuple[Header, int]:
    """Return the current header and its number (R7 to R10)."""
    copies = _read_headers(source, findings)
    valid = [copy for copy in copies if copy.is_valid]
    invalid = [
        Finding("R7", f"header {copy.number}", copy.problem, "2.2.2", copy.file_offset)
        for copy in copies
        if not copy.is_valid
    ]
    if not valid:
        problem = f"none is valid; {invalid[0]}; {invalid[1]}"
        findings.error(CorruptImageError(Finding("R10", "headers", problem)))
        return NO_HEADER, 1
    for finding in invalid:
        findings.warn(finding)
    headers = [Header.unpack(copy.raw) for copy in valid]
    if len({header.sequence_number for header in headers}) < len(headers):
        _check_identical(valid[0].raw, valid[1].raw, findings)
    # max() keeps the first of equals, and equal sequence numbers mean equal headers here.
    header = max(headers, key=lambda candidate: candidate.sequence_number)
    return header, valid[headers.index(header)].number


def _check_identical(first: bytes, second: bytes, findings: Findings) -> None:
    if first != second:
        number = Header.unpack(first).sequence_number
        finding = Finding(
            "R9",
            "headers",
            "both are valid and have the same sequence number, but they differ,"
            " so that none is the current one",
            "2.2.2",
            found=f"sequence number {number} twice",
        )
        findings.error(CorruptImageError(finding))


def read_copy(
    source: Source,
    findings: Findings,
    *,
    number: int,
    file_offset: int,
    length: int,
    signature: bytes,
) -> Copy:
    """Read one of the two copies of a structure with a signature and a checksum.

    A copy that the file is too short for is an invalid one, not an error (R3). To a lenient
    reader, so is one that the host cannot read.
    """
    try:
        raw = source.pread(file_offset, length)
    except TruncatedImageError:
        return Copy(number, file_offset, b"", "it lies beyond the end of the file")
    except OSError as error:
        if not findings.lenient:
            raise
        return Copy(number, file_offset, b"", f"it cannot be read: {error.strerror}")
    problem = ""
    stored, computed = int.from_bytes(raw[4:8], "little"), checksum(raw)
    if not raw.startswith(signature):
        problem = f"the signature {signature.decode()} is missing"
    elif stored != computed:
        problem = f"the checksum is wrong (stored {stored:#010x}, computed {computed:#010x})"
    return Copy(number, file_offset, raw, problem)
