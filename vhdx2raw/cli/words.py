"""What is said on stderr, and how sizes are read and written."""

from __future__ import annotations

import os
import sys
import traceback

UNITS = "kMGTPE"


def printable(text: str) -> str:
    """Return `text` with every control character escaped, so that a terminal does not obey it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def complain(text: str, *, hint: str = "") -> None:
    """Say what is wrong and, on a second line, what can be done."""
    say(f"vhdx2raw: {text}")
    if hint:
        say(f"vhdx2raw: hint: {hint}")


def complain_of_fault() -> None:
    """Say that the program itself is at fault; tell the whole story only if that is asked for."""
    kind, error, _ = sys.exc_info()
    name = kind.__name__ if kind else "unknown"
    hint = "please report this, with what is printed when VHDX2RAW_DEBUG=1 is set"
    complain(f"fault of the program itself: {name}: {error}", hint=hint)
    if os.environ.get("VHDX2RAW_DEBUG"):
        traceback.print_exc()


def parse_size(text: str) -> int:
    """Read a size in bytes such as ``4096``, ``4k`` or ``1M``, in powers of 1024.

    Raises:
        ValueError: The text is no such size.
    """
    digits, unit = text, 0
    if text[-1:].upper() in UNITS.upper() and text:
        digits, unit = text[:-1], UNITS.upper().index(text[-1].upper()) + 1
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is not a size such as 4096, 4k or 1M")
    return int(digits) << 10 * unit


def format_size(size: int) -> str:
    """Write a size in bytes for people: ``512 B``, ``1.5 GiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
