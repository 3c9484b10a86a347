"""Everything that is wrong with a file, structure by structure, without stopping at the first.

The rooms that read a file are its checkers, told to be lenient; what a reader does not care about
at all is looked at in `oddities`.
"""

from vhdx2raw.check.consequences import consequence_of
from vhdx2raw.check.report import CheckReport, check

__all__ = ["CheckReport", "check", "consequence_of"]
