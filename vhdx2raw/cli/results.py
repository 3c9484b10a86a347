"""Results that cannot be told, of work that is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vhdx2raw.cli.console import format_error
from vhdx2raw.cli.options.converting import NULL_OUTPUT
from vhdx2raw.errors import OutputError, UntoldResultError


@contextmanager
def telling(destination: str, remedy: str = "") -> Iterator[None]:
    """Make of a failure to tell the result one which says that the raw image is complete.

    Raises:
        UntoldResultError: Something cannot be written.
    """
    try:
        yield
    except (OutputError, OSError) as error:
        if destination == NULL_OUTPUT:
            raise
        problem = f"{format_error(error)}; the raw image in {destination} is complete"
        remedy = remedy or getattr(error, "remedy", "")
        raise UntoldResultError(problem, remedy=remedy) from error
