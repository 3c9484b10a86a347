"""The command line: options, messages, progress and exit codes."""

from __future__ import annotations

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
        from vhdx2raw.cli.app import run_program  # noqa: PLC0415

        return run_program(arguments)
