"""What the program exits with, and what it calls each failure; the same in every command."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vhdx2raw.errors import (
    CorruptImageError,
    NoSpaceError,
    OutputError,
    ParentError,
    PartitionError,
    SourceChangedError,
    UnsupportedImageError,
    Vhdx2rawError,
)

DIFFERENT = 1
"""The answer is no."""
WRONG_USAGE = 2
SALVAGED = 3
"""Done, though parts could not be read."""
UNSUPPORTED, CORRUPT, PARENT, OUTPUT = 4, 5, 6, 7
HOST_FAILURE, SOURCE_CHANGED = 8, 9
INTERNAL_FAULT = 70

_OF_ERRORS = {
    UnsupportedImageError: UNSUPPORTED,
    PartitionError: UNSUPPORTED,
    SourceChangedError: SOURCE_CHANGED,
    CorruptImageError: CORRUPT,
    ParentError: PARENT,
    NoSpaceError: HOST_FAILURE,
    OutputError: OUTPUT,
}
"""The classes below another one come first."""


def exit_code_of(error: Vhdx2rawError | OSError) -> int:
    """Return the exit code that an error becomes."""
    codes = (code for kind, code in _OF_ERRORS.items() if isinstance(error, kind))
    return next(codes, HOST_FAILURE)


def first_failure(codes: Iterable[int]) -> int:
    """Return the exit code of many files: of the first failure, else `SALVAGED` if any was."""
    failures = [code for code in codes if code]
    return next((code for code in failures if code != SALVAGED), max(failures, default=0))


def batch_code(codes: Iterable[int]) -> int:
    """Return the exit code of a batch: of the first failure that may pass, else `first_failure`.

    A scheduler decides by it whether to run the batch once more.
    """
    failures = [code for code in codes if code]
    again = (code for code in failures if code in (HOST_FAILURE, SOURCE_CHANGED))
    return next(again, first_failure(failures))


def reason_of(error: Vhdx2rawError | OSError) -> str:
    """Return what programs know an error by: `ParentNotFoundError` is ``parent-not-found``."""
    if isinstance(error, OSError):
        return "host-failure"
    words = re.findall("[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
    return "-".join(words).lower()
