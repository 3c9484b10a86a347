"""Everything that is wrong with a file, structure by structure, without stopping at the first.

The code that reads a file is its checker, in a lenient mode; what a reader ignores altogether is
looked at in `notes`.
"""

from vhdx2raw.operations.check.report import CheckReport, check_file, consequence_of

__all__ = ["CheckReport", "check_file", "consequence_of"]
