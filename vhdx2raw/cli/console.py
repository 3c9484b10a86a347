"""Everything that is written to stdout and stderr, and how sizes are read and written.

Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import ClassVar, TextIO

from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.errors import OutputError, Vhdx2rawError
from vhdx2raw.findings import Finding, printable
from vhdx2raw.output.base import STANDARD_OUTPUT, output_error
from vhdx2raw.output.stream import write_waiting
from vhdx2raw.vhdx import crc
from vhdx2raw.vhdx.log import LogReport

UNITS = "kMGTPE"
QUIET = ("-q", "--quiet")
VERBOSE = ("-v", "--verbose")
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
"""How sha256sum writes what would break its lines."""


class OptionNames(dict[str, str]):
    """The options of the command line by the names of arguments, for remedies."""

    def __missing__(self, name: str) -> str:
        """Return the option of an argument that has the same name."""
        return f"--{name.replace('_', '-')}"


OPTION_NAMES = OptionNames(parents="--parent", parent_dirs="--parent-dir")


class Screen:
    """The terminal, where a bar may stand in the line in which a message would begin.

    Attributes:
        make_room: Clears that line; set while there is a bar.
    """

    make_room: ClassVar[Callable[[], object]] = staticmethod(lambda: None)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person is looking at `stream`."""
    return stream is not None and stream.isatty()


def standard_output() -> TextIO:
    """Return stdout.

    Raises:
        OutputError: It is closed.
    """
    if sys.stdout is None:
        raise OutputError("is closed", path=STANDARD_OUTPUT)
    return sys.stdout


def print_result(text: str) -> None:
    """Write a result to stdout.

    Raises:
        OutputError: It cannot take the result.
        OSError: The host could not write.
    """
    stream = standard_output()
    if stream.encoding and stream.errors == "strict":
        # What it cannot encode is escaped, as Python does on stderr.
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    try:
        if is_terminal(stream):
            Screen.make_room()
        _write_line(stream, text)
    except OSError as error:
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise output_error(error, STANDARD_OUTPUT) from error


def _write_line(stream: TextIO, text: str) -> None:
    """Write a line, and wait where a stream that does not block has no room at the moment.

    What Python writes to such a stream is lost from some place on.
    """
    if _blocks(stream):
        stream.write(f"{text}\n")
        stream.flush()
    else:
        data = f"{text}\n".encode(stream.encoding, stream.errors or "strict")
        write_waiting(stream.fileno(), memoryview(data))


def _blocks(stream: TextIO) -> bool:
    """Return whether a write waits for room, as nearly everywhere."""
    if not hasattr(os, "get_blocking"):
        return True
    try:
        return os.get_blocking(stream.fileno())
    except (OSError, ValueError):  # no stream of the host
        return True


def print_digest(hexdigest: str, name: str) -> None:
    """Write the digest of a file to stdout as sha256sum does."""
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
    print_result(line)


def _fits(text: str, stream: io.TextIOWrapper) -> bool:
    try:
        text.encode(stream.encoding, "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def print_message(text: str) -> None:
    """Write one line to stderr; one that is full or closed does not change what was done."""
    with suppress(OSError, ValueError, AttributeError):
        Screen.make_room()
        _write_line(sys.stderr, printable(text))


def print_warnings(warnings: Iterable[tuple[str, Finding]]) -> None:
    """Report what is unusual about the files that were read, though the bytes are right."""
    for name, warning in warnings:
        print_message(f"vhdx2raw: {name}: warning: {warning}")


def print_error(text: str, *, hint: str = "") -> None:
    """Report what is wrong and, on a second line, what can be done."""
    print_message(f"vhdx2raw: {text}")
    if hint:
        print_message(f"vhdx2raw: hint: {hint}")


def format_error(error: Vhdx2rawError | OSError) -> str:
    """Return a failure as one line, the file first."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def print_failure(error: Vhdx2rawError | OSError) -> int:
    """Report a failure; return the exit code."""
    print_notes(error)
    hint = error.remedy.format_map(OPTION_NAMES) if isinstance(error, Vhdx2rawError) else ""
    print_error(format_error(error), hint=hint)
    return exit_code_of(error)


def print_notes(error: BaseException) -> None:
    """Report what the library has noted about a failure."""
    for note in getattr(error, "__notes__", ()):
        print_error(note)


def print_internal_fault() -> None:
    """Report a fault of the program itself; with a traceback only if that is asked for."""
    kind, error, _ = sys.exc_info()
    name = kind.__name__ if kind else "unknown"
    hint = "please report this, with what is printed when VHDX2RAW_DEBUG=1 is set"
    print_error(f"fault of the program itself: {name}: {error}", hint=hint)
    if os.environ.get("VHDX2RAW_DEBUG"):
        traceback.print_exc()


def warn_of_slow_checksums(arguments: Sequence[str]) -> None:
    """Report on one line that a package is missing, on a terminal or if it is asked for."""
    if not (crc.IS_SLOW and arguments) or any(word in QUIET for word in arguments):
        return
    if is_terminal(sys.stderr) or any(word in VERBOSE for word in arguments):
        print_message("vhdx2raw: without the package crc32c a large log takes long to read")


def warning_facts(warnings: Iterable[tuple[str, Finding]]) -> list[dict[str, object]]:
    """Return warnings as every command writes them in JSON."""
    return [
        {"filename": name, "rule": warning.rule, "spec": warning.spec, "message": str(warning)}
        for name, warning in warnings
    ]


def log_facts(log: LogReport) -> dict[str, object]:
    """Return the state of a log as every command writes it in JSON."""
    return {"state": log.state.value, "entries": log.entry_count}


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
