"""`vhdx2raw batch`."""

from vhdx2raw.cli.commands.batch.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
