"""What each failure becomes: a line, perhaps a hint, and an exit code."""

from __future__ import annotations

from vhdx2raw.cli.words import complain
from vhdx2raw.errors import Vhdx2rawError

HOST_FAILURE = 8


def words_of(error: Vhdx2rawError | OSError) -> str:
    """Return a failure as one line, the file first."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def tell_failure(error: Vhdx2rawError | OSError) -> int:
    """Say what went wrong; return the exit code."""
    if isinstance(error, Vhdx2rawError):
        complain(words_of(error), hint=error.hint)
        return error.exit_code
    complain(words_of(error))
    return HOST_FAILURE
