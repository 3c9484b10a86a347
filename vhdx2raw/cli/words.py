"""What is said on stderr and answered on stdout, and how sizes are read and written."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ClassVar, TextIO

from vhdx2raw.errors import Finding, OutputError, printable
from vhdx2raw.log import LogReport
from vhdx2raw.sinks.base import STANDARD_OUTPUT, worded

UNITS = "kMGTPE"


class Screen:
    """The terminal, where a bar may stand in the line in which words would begin.

    Attributes:
        make_room: Clears that line; whoever draws a bar sets it.
    """

    make_room: ClassVar[Callable[[], object]] = staticmethod(lambda: None)


def say(text: str) -> None:
    """Write one line to stderr; one that is full or closed does not change what was done."""
    with suppress(OSError, ValueError, AttributeError):
        Screen.make_room()
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def say_warnings(warnings: Iterable[tuple[str, Finding]]) -> None:
    """Say what is odd about the files that were read, though the bytes are right."""
    for name, warning in warnings:
        say(f"vhdx2raw: {name}: warning: {warning}")


def warning_facts(warnings: Iterable[tuple[str, Finding]]) -> list[dict[str, object]]:
    """Return what every `--json` says of warnings."""
    return [
        {"filename": name, "rule": warning.rule, "spec": warning.spec, "message": str(warning)}
        for name, warning in warnings
    ]


def log_facts(log: LogReport) -> dict[str, object]:
    """Return what every `--json` says of the log of a file."""
    return {"state": log.state.value, "entries": log.entry_count}


def answer(text: str) -> None:
    """Write a result to stdout.

    Raises:
        OutputError: It cannot take the result.
        OSError: The host could not write.
    """
    stream = standard_output()
    if stream.encoding and stream.errors == "strict":
        # What it cannot write is told by its number, as Python does on stderr.
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    try:
        if is_terminal(stream):
            Screen.make_room()
        stream.write(f"{text}\n")
        stream.flush()
    except OSError as error:
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise worded(error, STANDARD_OUTPUT) from error


def standard_output() -> TextIO:
    """Return stdout.

    Raises:
        OutputError: It is closed.
    """
    if sys.stdout is None:
        raise OutputError("is closed", path=STANDARD_OUTPUT)
    return sys.stdout


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person is looking at `stream`."""
    return stream is not None and stream.isatty()


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
