"""The command line: options, messages, progress and exit codes."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from vhdx2raw.cli.signals import catch_signals, defer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program on `arguments` (by default those of the process); return its exit code."""
    with catch_signals():
        # An exception within an import can be lost, so a signal waits until all is there.
        defer()
        # Nothing that is made while modules are loaded is garbage; to look for it takes 5 ms.
        gc.disable()
        try:
            from vhdx2raw.cli.app import run_program  # noqa: PLC0415

            return run_program(arguments)
        finally:
            gc.enable()
