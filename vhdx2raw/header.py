"""The file type identifier and the two headers: is it a VHDX, and which header is current.

MS-VHDX 2.2.1 and 2.2.2. Validity comes first, preference second: a copy that fails its checksum
is never looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class HeaderSection:
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


def read_header_section(source: Source, findings: Findings) -> HeaderSection:
    """Read the file type identifier and choose the current header (R1 to R17).

    Raises:
        UnsupportedImageError: Not a VHDX, or of an unknown version.
        CorruptImageError: No header is valid, or two valid ones contradict each other.
    """
    _check_signature(source)
    identifier = FileTypeIdentifier.unpack(source.pread(0, FILE_IDENTIFIER_SIZE))
    header, number = _choose_header(source, findings)
    if header.version != 1:
        raise UnsupportedImageError(
            Finding(
                "R11",
                f"header {number}",
                "unknown version of the format",
                "2.2.2",
                HEADER_OFFSETS[number - 1],
                found=str(header.version),
                expected="1",
            )
        )
    return HeaderSection(identifier.creator, header, number)


def _check_signature(source: Source) -> None:
    """Refuse what is not a VHDX, by its own name where that is known (R1)."""
    start = source.pread(0, min(source.size, FILE_IDENTIFIER_SIZE))
    if start.startswith(FILE_SIGNATURE) and len(start) == FILE_IDENTIFIER_SIZE:
        return
    kind, hint = name_foreign_format(source, start)
    raise UnsupportedImageError(Finding("R1", "file", f"is {kind}, not a VHDX", "2.2.1"), hint=hint)


def _choose_header(source: Source, findings: Findings) -> tuple[Header, int]:
    """Return the current header and its number (R7 to R10)."""
    valid: list[tuple[Header, int, bytes]] = []
    invalid: list[Finding] = []
    for number, file_offset in enumerate(HEADER_OFFSETS, 1):
        name = f"header {number}"
        raw, problem = read_copy(source, file_offset, HEADER_SIZE, HEADER_SIGNATURE)
        if problem:
            invalid.append(Finding("R7", name, problem, "2.2.2", file_offset))
        else:
            valid.append((Header.unpack(raw), number, raw))
    if not valid:
        raise CorruptImageError(
            Finding("R10", "headers", f"none is valid; {invalid[0]}; {invalid[1]}")
        )
    for finding in invalid:
        findings.warn(finding)
    if len({header.sequence_number for header, _, _ in valid}) < len(valid):
        _check_identical(valid[0][2], valid[1][2])
    # max() keeps the first of equals, and equal sequence numbers mean equal headers here.
    header, number, _ = max(valid, key=lambda candidate: candidate[0].sequence_number)
    return header, number


def _check_identical(first: bytes, second: bytes) -> None:
    if first != second:
        number = Header.unpack(first).sequence_number
        raise CorruptImageError(
            Finding(
                "R9",
                "headers",
                "both are valid and have the same sequence number, but they differ,"
                " so that none is the current one",
                "2.2.2",
                found=f"sequence number {number} twice",
            )
        )


def read_copy(source: Source, file_offset: int, length: int, signature: bytes) -> tuple[bytes, str]:
    """Read one of the two copies of a structure with a signature and a checksum.

    Returns its bytes and what makes it invalid, which is empty for a valid copy. A copy that the
    file is too short for is an invalid one, not an error (R3).
    """
    try:
        raw = source.pread(file_offset, length)
    except TruncatedImageError:
        return b"", "it lies beyond the end of the file"
    if not raw.startswith(signature):
        return raw, f"the signature {signature.decode()} is missing"
    stored = int.from_bytes(raw[4:8], "little")
    computed = checksum(raw)
    if stored != computed:
        return raw, f"the checksum is wrong (stored {stored:#010x}, computed {computed:#010x})"
    return raw, ""
