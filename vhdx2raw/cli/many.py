"""One answer for each of many images: no failure ends the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from vhdx2raw.cli.console import error_facts, print_failure, print_json, print_result
from vhdx2raw.cli.exit_codes import first_failure
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.findings import printable
from vhdx2raw.source.file_object import name_of


class Answer(NamedTuple):
    """What a command has to say about an image.

    Attributes:
        facts: For programs.
        lines: For people.
        exit_code: That of the program, if this is the only image.
    """

    facts: dict[str, object]
    lines: Sequence[str]
    exit_code: int


def answer_each(
    images: Sequence[str],
    answer: Callable[[str], Answer],
    *,
    as_json: bool,
    quiet: bool = False,
    blank: bool = False,
) -> int:
    """Print an answer for each image; return the exit code, which is that of the first failure.

    Args:
        images: The images in order.
        answer: Gives the answer for one of them, or fails.
        as_json: Whether to print facts: an object, and for many images one a line.
        quiet: Whether to print nothing for people.
        blank: Whether to separate the lines of two images.

    Raises:
        Vhdx2rawError: There is no answer for the only image.
        OSError: As `Vhdx2rawError`.
    """
    codes: list[int] = []
    for index, name in enumerate(images):
        try:
            facts, lines, exit_code = answer(name)
        except (Vhdx2rawError, OSError) as error:
            if len(images) == 1:
                raise
            exit_code = print_failure(error)
            facts, lines = {"filename": name_of(name), "error": error_facts(error)}, ()
        if as_json:
            print_json(facts, in_one_line=len(images) > 1)
        elif lines and not quiet:
            _print_lines(lines if not (blank and index) else ["", *lines])
        codes.append(exit_code)
    return first_failure(codes)


def _print_lines(lines: Iterable[str]) -> None:
    print_result("\n".join(map(printable, lines)))
