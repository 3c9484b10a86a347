"""What the program exits with; the same numbers mean the same in every command."""

from __future__ import annotations

from vhdx2raw.errors import (
    CorruptImageError,
    OutputError,
    ParentError,
    UnsupportedImageError,
    Vhdx2rawError,
)

DIFFERENT = 1
"""The answer is no."""
WRONG_USAGE = 2
SALVAGED = 3
"""Done, though parts could not be read."""
UNSUPPORTED, CORRUPT, PARENT, OUTPUT = 4, 5, 6, 7
HOST_FAILURE = 8
INTERNAL_FAULT = 70

_OF_ERRORS = {
    UnsupportedImageError: UNSUPPORTED,
    CorruptImageError: CORRUPT,
    ParentError: PARENT,
    OutputError: OUTPUT,
}


def exit_code_of(error: Vhdx2rawError | OSError) -> int:
    """Return the exit code that an error becomes."""
    codes = (code for kind, code in _OF_ERRORS.items() if isinstance(error, kind))
    return next(codes, HOST_FAILURE)
