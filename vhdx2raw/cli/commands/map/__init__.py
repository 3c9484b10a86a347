"""`vhdx2raw map`."""

from vhdx2raw.cli.commands.map.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
