"""What a fault is, and what is found along with many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.builder import ImageSpec
from tests.support.seeded_faults.disks import LOG
from vhdx2raw.findings import Severity


@dataclass(frozen=True)
class Found:
    """One finding: its severity and rule, a pattern of its text, and where in the file it is."""

    severity: Severity
    rule: str
    text: str
    file_offset: int | None = None


@dataclass(frozen=True)
class Fault:
    """A file that breaks a rule.

    Attributes:
        rule: The rule.
        what: How it is broken.
        files: The file, and after it its parent if it has one, by name.
        found: All that a check finds, in order.
        refused: Whether it is not to be opened though its own contents are certain.
    """

    rule: str
    what: str
    files: Mapping[str, ImageSpec | bytes]
    found: tuple[Found, ...]
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def error(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.ERROR, rule, text, at)


def warning(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.WARNING, rule, text, at)


def note(rule: str, text: str, at: int | None = None) -> Found:
    return Found(Severity.NOTE, rule, text, at)


def fault(
    rule: str, what: str, files: Mapping[str, ImageSpec | bytes] | ImageSpec, *found: Found
) -> Fault:
    files = {"disk.vhdx": files} if isinstance(files, ImageSpec) else files
    return Fault(rule, what, files, found)


UNEVEN_SIZE = note("R113", "its size is not a multiple of 1 MiB")
NO_SIZES = error("R61", "nothing can stand in for the sizes")
REPLAYED = note("R120", "was replayed in memory", LOG)
NO_TABLES = error("R43", "none is valid; region table 1 .* beyond the end .* table 2 .* beyond")
