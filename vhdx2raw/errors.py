"""The names of failure: what is wrong, where, and which exit code it becomes.

    Vhdx2rawError
      ImageError                    something about a VHDX file; carries a Finding
        UnsupportedImageError   4   not a VHDX, or valid but not for us
        CorruptImageError       5   the file breaks the specification
          TruncatedImageError   5   it ends before something that it promises
      ParentError               6   a parent cannot be used
        ParentNotFoundError     6   it is nowhere, or where it may not be
        ParentMismatchError     6   it is not the version that the child was made from
        ParentCycleError        6   it is a file of the chain already
      OutputError               7   the raw output cannot be made

Everything this package raises on its own account is below `Vhdx2rawError`. An `OSError` of the
host (an unreadable disk, no permission) is passed on as it is.

A `Finding` is one broken rule as facts. It is worded here and nowhere else, whether it ends the
work (as an `ImageError`) or only deserves a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

TRUNCATED_HINT = (
    "the file was cut off, perhaps by an interrupted copy or a full disk;"
    " fetch it again, or restore it from a backup"
)
"""What to do about every file that ends too early."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule of the format, as facts.

    Attributes:
        rule: Number of the reader's rule, such as ``R43`` (docs/format-rules.md).
        section: The structure that breaks it, such as ``region table 1``.
        problem: What is wrong, as a phrase that follows the name of the structure.
        spec: Section of MS-VHDX, such as ``2.2.3``; empty where the format is silent.
        file_offset: Where in the VHDX file the structure or field lies, in bytes.
        found: The offending value, worded.
        expected: What would have been right, worded.
    """

    rule: str
    section: str
    problem: str
    spec: str = ""
    file_offset: int | None = None
    found: str = ""
    expected: str = ""

    def __str__(self) -> str:
        """Word the facts as one line without a full stop."""
        place = f" at file offset {self.file_offset:#x}" if self.file_offset is not None else ""
        facts = [f"found {self.found}"] if self.found else []
        facts += [f"expected {self.expected}"] if self.expected else []
        detail = f": {', '.join(facts)}" if facts else ""
        reference = f" (MS-VHDX {self.spec})" if self.spec else ""
        return f"{self.section}{place}: {self.problem}{detail}{reference}"


class Vhdx2rawError(Exception):
    """Base of every error that this package raises.

    Attributes:
        exit_code: What the command line tool exits with.
        path: The file concerned, where there is one.
        hint: What the user can do about it, or an empty string.
    """

    exit_code: ClassVar[int]

    def __init__(self, message: str, *, path: str | None = None, hint: str = "") -> None:
        """Keep the words; `path` may be filled in later by whoever knows it."""
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        """Word the error as one line, the file first."""
        return f"{self.path}: {self.message}" if self.path else self.message


class ImageError(Vhdx2rawError):
    """A VHDX file cannot be read with certainty.

    Attributes:
        finding: The broken rule, as facts.
    """

    def __init__(self, finding: Finding, *, path: str | None = None, hint: str = "") -> None:
        """Word `finding` as the message."""
        super().__init__(str(finding), path=path, hint=hint)
        self.finding = finding


class UnsupportedImageError(ImageError):
    """The file is not a VHDX, or needs something that this program does not do."""

    exit_code = 4


class CorruptImageError(ImageError):
    """The file breaks the specification in a way that makes its contents uncertain."""

    exit_code = 5


class TruncatedImageError(CorruptImageError):
    """The file ends before something that it promises."""


class ParentError(Vhdx2rawError):
    """A differencing disk cannot be read, because its parent cannot be used."""

    exit_code = 6


class ParentNotFoundError(ParentError):
    """The parent is in none of the places where it may be."""


class ParentMismatchError(ParentError):
    """The parent is not the version that the child was made from, or has other sectors."""


class ParentCycleError(ParentError):
    """The parent is the child itself, or another file of the chain."""


class OutputError(Vhdx2rawError):
    """The raw output cannot be made: it exists, is the input, or there is no room."""

    exit_code = 7


@dataclass(slots=True)
class Findings:
    """Where the rooms that read a file report what they find.

    An error ends the reading at once; a warning is kept, and the disk is still right.
    """

    warnings: list[Finding] = field(default_factory=list)

    def warn(self, finding: Finding) -> None:
        """Keep `finding`: the file breaks a rule, but its contents are certain."""
        self.warnings.append(finding)
