"""`vhdx2raw convert`."""

from vhdx2raw.cli.commands.convert.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
