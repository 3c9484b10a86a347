"""`vhdx2raw serve`: the disk as a network block device."""

from vhdx2raw.cli.commands.serve.command import EXAMPLES, run

__all__ = ["EXAMPLES", "run"]
