"""Digests, written as sha256sum does."""

from __future__ import annotations

import io

from vhdx2raw.cli.words import answer, is_terminal, standard_output
from vhdx2raw.errors import printable

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
"""How sha256sum writes what would break its lines."""


def answer_digest(hexdigest: str, name: str) -> None:
    """Write the line of a file to stdout."""
    escaped = name.translate(ESCAPES)
    mark = "\\" if escaped != name else ""
    line = f"{mark}{hexdigest}  {escaped}"
    stream = standard_output()
    if is_terminal(stream):
        line = printable(line)
    elif isinstance(stream, io.TextIOWrapper):
        # A program gets the bytes of the name, also those that are no text; but a name may have
        # letters that the encoding lacks.
        stream.reconfigure(errors="surrogateescape" if _fits(line, stream) else "strict")
    answer(line)


def _fits(text: str, stream: io.TextIOWrapper) -> bool:
    try:
        text.encode(stream.encoding, "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
