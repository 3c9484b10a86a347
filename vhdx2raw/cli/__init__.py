"""The command line: words, options, progress and exit codes. The only room that speaks."""

from vhdx2raw.cli.app import main

__all__ = ["main"]
