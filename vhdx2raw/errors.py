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
work (as an `ImageError`), deserves a warning, or is one of many things that a check lists.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

TRUNCATED_HINT = (
    "the file was cut off, perhaps by an interrupted copy or a full disk;"
    " fetch it again, or restore it from a backup"
)
"""What to do about every file that ends too early."""


MAX_QUOTATION = 400
"""Characters of what a file says that are repeated in a message."""


def quote(text: str) -> str:
    """Return what a file says so that it fits into a line: not too long, no control characters."""
    if len(text) > MAX_QUOTATION:
        text = f"{text[: MAX_QUOTATION // 2]}...{text[-MAX_QUOTATION // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    """Return `text` with every control character escaped, so that a terminal does not obey it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


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
        facts = [f"found {quote(self.found)}"] if self.found else []
        facts += [f"expected {quote(self.expected)}"] if self.expected else []
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
        return f"{printable(self.path)}: {self.message}" if self.path else self.message


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


class Severity(Enum):
    """How bad a finding is for whoever needs the contents of the disk."""

    NOTE = "note"
    """The file is odd, and every reader can live with that."""
    WARNING = "warning"
    """The file breaks a rule, but its contents are certain."""
    ERROR = "error"
    """The contents are uncertain or lost, so that a reader has to refuse the file."""


MAX_FINDINGS_PER_RULE = 20
"""How many findings of one rule and severity are kept; of the others only the number is."""


@dataclass(slots=True)
class Findings:
    """Where the rooms that read a file report what they find.

    Normally an error ends the reading at once. A lenient reader, which checks a file or saves what
    can be saved, keeps it and goes on with the substitute that the room has for such a case.

    Attributes:
        lenient: Whether to go on after an error, where there is a way to.
        reported: What was found, in order, with its severity.
        suppressed: How many findings of a rule were left out of `reported`.
    """

    lenient: bool = False
    reported: list[tuple[Severity, Finding]] = field(default_factory=list)
    suppressed: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    _kept: Counter[tuple[Severity, str]] = field(default_factory=Counter)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The warnings among what was found."""
        return self.of(Severity.WARNING)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return what was found of one severity, in order."""
        return tuple(finding for kind, finding in self.reported if kind is severity)

    def note(self, finding: Finding) -> None:
        """Keep `finding`: odd, without any consequence."""
        self.keep(Severity.NOTE, finding)

    def warn(self, finding: Finding) -> None:
        """Keep `finding`: the file breaks a rule, but its contents are certain."""
        self.keep(Severity.WARNING, finding)

    def error(self, error: ImageError) -> None:
        """Raise `error`; but keep what it found and return if the reader is lenient."""
        if not self.lenient:
            raise error
        self.keep(Severity.ERROR, error.finding)

    def keep(self, severity: Severity, finding: Finding) -> None:
        """Keep `finding`, or only count it if there are too many of its kind."""
        if self.is_only_counted(severity, finding.rule):
            return
        if self.lenient and (severity, finding) in self.reported:
            return  # a lenient reader comes to the same place more than once
        self._kept[severity, finding.rule] += 1
        self.reported.append((severity, finding))

    def is_only_counted(self, severity: Severity, rule: str) -> bool:
        """Count one more finding of a kind if there are too many of them to keep; tell if so.

        For whoever can save the work of wording it.
        """
        if self._kept[severity, rule] < MAX_FINDINGS_PER_RULE:
            return False
        self.suppressed[severity, rule] += 1
        return True
