"""Everything that is written to stdout and stderr, and how sizes are read and written.

Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, TextIO

from vhdx2raw.cli.exit_codes import INTERNAL_FAULT, exit_code_of, reason_of
from vhdx2raw.errors import ImageError, OutputError, ParentError, Vhdx2rawError
from vhdx2raw.findings import Finding, printable
from vhdx2raw.output.base import STANDARD_OUTPUT, output_error
from vhdx2raw.output.stream import write_waiting
from vhdx2raw.rules import Rule
from vhdx2raw.vhdx import crc
from vhdx2raw.vhdx.log import LogReport

UNITS = "kMGTPE"
QUIET = ("-q", "--quiet")
VERBOSE = ("-v", "--verbose")
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
"""How sha256sum writes what would break its lines."""


NO_FACTS: dict[str, object] = dict.fromkeys(("hint", "filename", "rule", "file-offset"))
"""What is not known of a failure that is not about a file."""


class OptionNames(dict[str, str]):
    """The options of the command line by the names of arguments, for remedies."""

    def __missing__(self, name: str) -> str:
        """Return the option of an argument that has the same name."""
        return f"--{name.replace('_', '-')}"


OPTION_NAMES = OptionNames(
    parents="--parent",
    parent_dirs="--parent-dir",
    parent_file="--parent FILE",
    parent_dir="--parent-dir DIR",
)


class Screen:
    """The terminal, where a bar may stand in the line in which a message would begin.

    Attributes:
        clear_line: Clears that line; set while there is a bar.
    """

    clear_line: ClassVar[Callable[[], object]] = staticmethod(lambda: None)


class Answer:
    """What a program gets on stdout.

    Attributes:
        as_json: Whether it asked for JSON, so that a failure has to be an object as well.
        begun: Whether something was written already.
        arguments: The words of the command line, without the name of the program.
    """

    as_json: ClassVar[bool] = False
    begun: ClassVar[bool] = False
    arguments: ClassVar[Sequence[str]] = ()

    @classmethod
    def reset(cls) -> None:
        """Begin a run of the program."""
        cls.as_json = cls.begun = False


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


def print_json(facts: Mapping[str, object], *, in_one_line: bool = False) -> None:
    """Write a result to stdout as a JSON object; the errors are those of `print_result`."""
    import json  # noqa: PLC0415 - many runs write none

    print_result(json.dumps(facts, indent=None if in_one_line else 2))


def print_result(text: str) -> None:
    """Write a result to stdout.

    Raises:
        OutputError: It cannot take the result.
        OSError: The host could not write.
    """
    stream = standard_output()
    if not _fits(text, stream):
        # What it cannot encode is escaped, as Python does on stderr.
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    try:
        if is_terminal(stream):
            Screen.clear_line()
        Answer.begun = True
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


def can_print(text: str) -> bool:
    """Return whether stdout has these characters."""
    return _fits(text, standard_output())


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
        stream.reconfigure(errors="surrogateescape")
    print_result(line)


def _fits(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8", stream.errors or "strict")
    except UnicodeEncodeError:
        return False
    return True


def print_message(text: str) -> None:
    """Write one line to stderr; one that is full or closed does not change what was done."""
    with suppress(OSError, ValueError, AttributeError):
        Screen.clear_line()
        _write_line(sys.stderr, printable(text))


def print_warnings(warnings: Iterable[tuple[str, Finding]], *, in_full: bool) -> None:
    """Report what is unusual about the files that were read, one line for each.

    Some pipelines take any word on stderr for a failure. A log that was replayed is work done, and
    nothing to look after, so it is reported only in full.
    """
    for name, warning in warnings:
        if in_full or warning.rule is not Rule.LOG_REPLAYED:
            print_message(f"vhdx2raw: {name}: warning: {warning}")


def print_damage(damage: Iterable[tuple[str, Finding]]) -> None:
    """Report what is wrong with the files of a disk that is salvaged."""
    for name, finding in damage:
        print_error(f"{name}: damaged: {finding}")


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
    """Report a failure on stderr; return the exit code."""
    print_notes(error)
    print_error(format_error(error), hint=hint_of(error))
    return exit_code_of(error)


def print_last_failure(error: Vhdx2rawError | OSError) -> int:
    """Report the failure that ends the program, to a program as JSON too; return the exit code."""
    exit_code = print_failure(error)
    print_json_failure(error_facts(error))
    return exit_code


def print_json_failure(facts: dict[str, object]) -> None:
    """Write a failure to stdout where JSON was asked for and nothing is written yet."""
    if Answer.as_json and not Answer.begun:
        with suppress(OutputError, OSError):  # what failed may be stdout itself
            print_json({"error": facts})


def hint_of(error: Vhdx2rawError | OSError) -> str:
    """Return what can be done about a failure, in the options of the command line."""
    return error.remedy.format_map(OPTION_NAMES) if isinstance(error, Vhdx2rawError) else ""


def error_facts(error: Vhdx2rawError | OSError) -> dict[str, object]:
    """Return a failure as every command writes it in JSON (docs/schemas/error.json)."""
    finding = error.finding if isinstance(error, ImageError) else None
    rule = error.rule if isinstance(error, ParentError) else None
    return {
        "reason": reason_of(error),
        "exit-code": exit_code_of(error),
        "message": format_error(error),
        "hint": hint_of(error) or None,
        "filename": error.filename if isinstance(error, OSError) else error.path,
        "rule": finding.rule if finding else rule,
        "file-offset": finding.file_offset if finding else None,
    }


def print_interruption(interruption: BaseException, exit_code: int) -> None:
    """Report that a signal has ended the program."""
    print_notes(interruption)
    print_error(str(interruption))
    print_json_failure(
        {"reason": "interrupted", "exit-code": exit_code, "message": str(interruption), **NO_FACTS}
    )


def print_notes(error: BaseException) -> None:
    """Report what the library has noted about a failure."""
    for note in getattr(error, "__notes__", ()):
        print_error(note)


def print_internal_fault() -> None:
    """Report a fault of the program itself; with a traceback only if that is asked for."""
    kind, error, _ = sys.exc_info()
    name = kind.__name__ if kind else "unknown"
    hint = "please report this, with what is printed when VHDX2RAW_DEBUG=1 is set"
    message = f"fault of the program itself: {name}: {error}"
    print_error(message, hint=hint)
    facts = {"reason": "internal-fault", "exit-code": INTERNAL_FAULT, "message": message}
    print_json_failure(facts | NO_FACTS | {"hint": hint})
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
    """Read a size in bytes such as ``4096``, ``4k``, ``1M`` or ``10MiB``, in powers of 1024.

    Raises:
        ValueError: The text is no such size.
    """
    match = re.fullmatch(rf"([0-9]+)(?:([{UNITS}])(iB?|B)?)?", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size such as 4096, 4k or 1M")
    digits, unit, ending = match.groups("")
    if ending.upper() == "B":
        size = f"{digits}{unit.upper()}"
        problem = f"{text!r} may mean powers of 1000 or of 1024"
        raise ValueError(f"{problem}; write {size}iB, or {size} for short, for powers of 1024")
    return int(digits) << 10 * (UNITS.upper().index(unit.upper()) + 1 if unit else 0)


def format_size(size: int) -> str:
    """Write a size in bytes for people: ``512 B``, ``1.5 GiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
