"""`vhdx2raw tree`."""

from vhdx2raw.cli.commands.tree.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
