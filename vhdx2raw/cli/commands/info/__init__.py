"""`vhdx2raw info`."""

from vhdx2raw.cli.commands.info.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
