"""A broken rule of the format as facts, and the list that a reader keeps of them.

A `Finding` is formatted here and nowhere else, whether it ends the work (in an `ImageError`), is a
warning, or is one of many lines of a check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from vhdx2raw.rules import Rule

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class Facts(TypedDict, total=False):
        """The facts of a finding that not every finding has."""

        file_offset: int | None
        found: str
        expected: str
        spec: str


MAX_QUOTATION = 400
"""Characters of a text from a file that are repeated in a message."""
MAX_FINDINGS_PER_RULE = 20
"""How many findings of one rule and severity are kept; the others are only counted."""

_SECTION_OF_RULE = "that of the rule"


def quote(text: str) -> str:
    """Return a text from a file as part of a line: not too long, no control characters."""
    if len(text) > MAX_QUOTATION:
        text = f"{text[: MAX_QUOTATION // 2]}...{text[-MAX_QUOTATION // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    r"""Return `text` with every control character escaped, so that a terminal does not obey it.

    A byte of a file name that is no text is escaped as that byte, such as ``\xff``.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    # How Python keeps the bytes of a name that it cannot decode (PEP 383).
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return ascii(char)[1:-1]


class Severity(Enum):
    """How bad a finding is for the contents of the disk."""

    NOTE = "note"
    """The file is unusual, and every reader can live with that."""
    WARNING = "warning"
    """The file breaks a rule, but its contents are certain."""
    ERROR = "error"
    """The contents are uncertain or lost, so that a reader has to refuse the file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule of the format, as facts.

    Attributes:
        rule: The reader's rule (docs/format-rules.md); as text its number, such as ``R43``.
        structure: The structure that breaks it, such as ``region table 1``.
        problem: What is wrong, as a phrase that follows the name of the structure.
        file_offset: Where in the VHDX file the structure or field lies, in bytes.
        found: The offending value.
        expected: What would have been right.
        spec: Section of MS-VHDX, where it is not that of the rule; empty for none.
    """

    rule: Rule
    structure: str
    problem: str
    _: KW_ONLY
    file_offset: int | None = None
    found: str = ""
    expected: str = ""
    spec: str = _SECTION_OF_RULE

    def __post_init__(self) -> None:
        """Take the section of the rule if no other one was given."""
        if self.spec == _SECTION_OF_RULE:
            object.__setattr__(self, "spec", self.rule.spec)

    def __str__(self) -> str:
        place = f" at file offset {self.file_offset:#x}" if self.file_offset is not None else ""
        facts = [f"found {quote(self.found)}"] if self.found else []
        facts += [f"expected {quote(self.expected)}"] if self.expected else []
        detail = f": {', '.join(facts)}" if facts else ""
        reference = f" (MS-VHDX {self.spec})" if self.spec else ""
        return f"{self.structure}{place}: {self.problem}{detail}{reference}"


ErrorKind = Callable[[Finding], Exception]


@dataclass(slots=True, eq=False, repr=False)
class Findings:
    """What was found while a file was read.

    Normally an error ends the reading at once. A lenient reader, which checks a file or salvages
    it, keeps the error and goes on with a substitute that the reading code has for such a case.

    Attributes:
        lenient: Whether to go on after an error, where there is a way to.
        reported: What was found, in order, with its severity.
        suppressed: How many findings of a severity and rule were left out of `reported`.
        first_error: The exception with which a reader that is not lenient would have ended.
    """

    lenient: bool = False
    reported: list[tuple[Severity, Finding]] = field(default_factory=list)
    suppressed: Counter[tuple[Severity, Rule]] = field(default_factory=Counter)
    first_error: Exception | None = None
    _kept: Counter[tuple[Severity, Rule]] = field(default_factory=Counter)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The warnings among what was found."""
        return self.of(Severity.WARNING)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return what was found of one severity, in order."""
        return tuple(finding for kind, finding in self.reported if kind is severity)

    def note(self, rule: Rule, structure: str, problem: str, **facts: Unpack[Facts]) -> None:
        """Keep a finding without any consequence."""
        self.keep(Severity.NOTE, Finding(rule, structure, problem, **facts))

    def warn(self, rule: Rule, structure: str, problem: str, **facts: Unpack[Facts]) -> None:
        """Keep a finding that leaves the contents certain."""
        self.keep(Severity.WARNING, Finding(rule, structure, problem, **facts))

    def error(
        self, kind: ErrorKind, rule: Rule, structure: str, problem: str, **facts: Unpack[Facts]
    ) -> None:
        """Do what `refuse` does with a finding of these facts."""
        self.refuse(Finding(rule, structure, problem, **facts), kind)

    def refuse(self, finding: Finding, kind: ErrorKind) -> None:
        """Raise the error that `kind` makes of a finding; only keep it if the reader is lenient."""
        self.forgive(kind(finding), finding)

    def forgive(self, error: Exception, finding: Finding) -> None:
        """Raise `error`, which is about a finding; only keep that if the reader is lenient."""
        if not self.lenient:
            raise error
        self.first_error = self.first_error or error
        self.keep(Severity.ERROR, finding)

    def keep(self, severity: Severity, finding: Finding) -> None:
        """Keep `finding`, or only count it if there are too many of its kind."""
        if self.is_only_counted(severity, finding.rule):
            return
        if self.lenient and (severity, finding) in self.reported:
            return  # a lenient reader comes to the same place more than once
        self._kept[severity, finding.rule] += 1
        self.reported.append((severity, finding))

    def is_only_counted(self, severity: Severity, rule: Rule) -> bool:
        """Count one more finding of a kind if too many of them are kept; return whether it was.

        Lets a caller save the work of making a finding that would not be kept.
        """
        if self._kept[severity, rule] < MAX_FINDINGS_PER_RULE:
            return False
        self.suppressed[severity, rule] += 1
        return True
