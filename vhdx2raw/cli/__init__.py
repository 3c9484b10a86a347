"""The command line: options, messages, progress and exit codes."""

from vhdx2raw.cli.app import main

__all__ = ["main"]
