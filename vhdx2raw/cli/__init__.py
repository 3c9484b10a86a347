"""The command line: options, messages, progress and exit codes. Only this package talks to people."""

from vhdx2raw.cli.app import main

__all__ = ["main"]
