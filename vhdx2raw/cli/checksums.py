"""What users are told where checksums take long."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vhdx2raw import crc
from vhdx2raw.cli.words import is_terminal, say

QUIET = ("-q", "--quiet")
VERBOSE = ("-v", "--verbose")


def tell_if_checksums_are_slow(arguments: Sequence[str]) -> None:
    """Say on one line that a package is missing, if anyone wants to know."""
    if not (crc.IS_SLOW and arguments) or any(word in QUIET for word in arguments):
        return
    if is_terminal(sys.stderr) or any(word in VERBOSE for word in arguments):
        say("vhdx2raw: without the package crc32c a large log takes long to read")
