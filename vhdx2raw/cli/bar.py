"""A bar of progress that counts in KiB, MiB and GiB, as everything else that is printed does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from vhdx2raw.cli.console import format_size, is_terminal
from vhdx2raw.findings import printable

if TYPE_CHECKING:
    from vhdx2raw.cli.progress import FileOfMany

    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm

ERASE = "\x1b[J"
"""Clears a terminal from the cursor to its end; it is not sent to anything else."""


MAX_NAME_WIDTH = 20
"""Characters of the name of a file."""


class Bar(_Tqdm):
    """The bar of tqdm, drawn such that a window can become narrower without debris.

    The cursor waits at the beginning of the line. Where a terminal breaks a line that has become
    too long, that is the first row of what is to be erased, however many there are.
    """

    file: FileOfMany | None = None
    """Which of many files is worked on."""

    def __init__(self, total: int) -> None:
        super().__init__(
            total=total,
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {moved} of {whole}"
            " [{elapsed}<{remaining}, {speed}/s]{file}",
        )

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What the bar is made of: that of tqdm, with sizes as they are printed elsewhere."""
        facts = super().format_dict
        rate = facts["rate"] or (self.n / facts["elapsed"] if facts["elapsed"] else 0)
        sizes = {"moved": self.n, "whole": self.total or 0, "speed": rate}
        shown = {name: format_size(int(size)) for name, size in sizes.items()}
        return {**facts, **shown, "file": _format_file(self.file) if self.file else ""}

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:  # noqa: ANN401
        """Return what draws the bar, and leaves the cursor at its beginning."""
        length = 0
        erase = ERASE if is_terminal(file) and os.environ.get("TERM") != "dumb" else ""

        def draw(text: str) -> None:
            nonlocal length
            padding = "" if erase else " " * (length - len(text))
            file.write(f"\r{erase}{text}{padding}\r")
            file.flush()
            length = len(text)

        return draw


def _format_file(file: FileOfMany) -> str:
    name = printable(os.path.basename(file.name))  # noqa: PTH119 - no Path is needed
    if len(name) > MAX_NAME_WIDTH:
        name = f"{name[: MAX_NAME_WIDTH - 3]}..."
    return f" {file.number}/{file.total} {name}"
