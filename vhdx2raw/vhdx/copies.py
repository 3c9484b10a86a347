"""Structures that a file holds twice, the headers and the region tables: reading and judging each.

Validity comes first, preference second: a copy that fails its checksum is never looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vhdx2raw.errors import TruncatedImageError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Source
from vhdx2raw.vhdx.layout import checksum


class Copy(NamedTuple):
    """One of the two copies of a structure.

    Attributes:
        name: The structure and its number, such as ``header 1``.
        file_offset: Where it lies, in bytes.
        raw: Its bytes; empty if they cannot be read.
        problem: What makes it invalid; empty for a valid copy.
    """

    name: str
    file_offset: int
    raw: bytes
    problem: str

    @property
    def is_valid(self) -> bool:
        return not self.problem


def read_copy(
    source: Source,
    findings: Findings,
    name: str,
    *,
    file_offset: int,
    length: int,
    signature: bytes,
) -> Copy:
    """Read a structure with a signature and a checksum.

    A copy that the file is too short for is an invalid one, not an error (R3). To a lenient
    reader, so is one that the host cannot read.
    """
    try:
        raw = source.pread(file_offset, length)
    except TruncatedImageError:
        return Copy(name, file_offset, b"", "it lies beyond the end of the file")
    except OSError as error:
        if not findings.lenient:
            raise
        return Copy(name, file_offset, b"", f"it cannot be read: {error.strerror}")
    problem = ""
    stored, computed = int.from_bytes(raw[4:8], "little"), checksum(raw)
    if not raw.startswith(signature):
        problem = f"the signature {signature.decode()} is missing"
    elif stored != computed:
        problem = f"the checksum is wrong (stored {stored:#010x}, computed {computed:#010x})"
    return Copy(name, file_offset, raw, problem)


def choose_valid(
    copies: Sequence[Copy], rule: Rule, findings: Findings
) -> tuple[list[Copy], list[Finding]]:
    """Return the valid copies and a finding for each other one, a warning if any copy is valid."""
    valid = [copy for copy in copies if copy.is_valid]
    invalid = [
        Finding(rule, copy.name, copy.problem, file_offset=copy.file_offset)
        for copy in copies
        if not copy.is_valid
    ]
    if valid:
        for finding in invalid:
            findings.keep(Severity.WARNING, finding)
    return valid, invalid
