"""What follows from a broken rule, for the one who has to decide what to do about the file."""

from __future__ import annotations

from vhdx2raw.errors import Finding, Severity

OF_SEVERITY = {
    Severity.NOTE: "none",
    Severity.WARNING: "none for the contents; the file was written carelessly, or damaged a little",
    Severity.ERROR: "the contents are uncertain: the file is refused without --salvage",
}

_ENTRY_LOST = "refused without --salvage, which gives zeros for the block"
_LOG_LOST = "refused; with --ignore-log or --salvage the state before the updates is read"
_OTHER_COPY = "the other copy is used; a further damage would make the file unreadable"
_NO_DISK = "the disk cannot be read at all: nothing tells how it is laid out"
_NO_ITEM = "refused; only sectors of 512 bytes can be assumed with --salvage"
_ITEM_LEFT_OUT = "the item is left out, and the contents do not depend on it"
_NOT_THE_PARENT = "refused until the right parent is named with --parent"
_PARENT_LOST = "refused without --salvage, which gives zeros for all that the parent had"

OF_RULE = {
    (Severity.ERROR, "R1"): "refused without --salvage, which goes by the headers alone",
    (Severity.WARNING, "R7"): _OTHER_COPY,
    (Severity.ERROR, "R9"): "refused without --salvage, which uses header 1",
    (Severity.ERROR, "R10"): "refused without --salvage, which may miss updates in the log",
    (Severity.ERROR, "R11"): "refused: what a later version means is not known",
    (Severity.ERROR, "R12"): _LOG_LOST,
    (Severity.WARNING, "R13"): "none: the log holds no updates",
    (Severity.ERROR, "R15"): _LOG_LOST,
    (Severity.ERROR, "R29"): _LOG_LOST,
    (Severity.ERROR, "R31"): _LOG_LOST,
    (Severity.ERROR, "R36"): "the file was cut off; what lay behind its end is lost",
    (Severity.ERROR, "R40"): _LOG_LOST,
    (Severity.WARNING, "R42"): _OTHER_COPY,
    (Severity.ERROR, "R43"): "refused; with --salvage a table with a wrong checksum is believed",
    (Severity.WARNING, "R44"): "the first table is used; another reader may use the second",
    (Severity.ERROR, "R46"): "refused without --salvage, which uses the first of the two entries",
    (Severity.ERROR, "R47"): "refused without --salvage, which reads what stands there",
    (Severity.ERROR, "R48"): "refused without --salvage: the disk may need what is not understood",
    (Severity.ERROR, "R49"): _NO_DISK,
    (Severity.ERROR, "R51"): "refused without --salvage: one of the two holds wrong data",
    (Severity.ERROR, "R52"): "the file was cut off; what lay behind its end is lost",
    (Severity.ERROR, "R54"): _NO_DISK,
    (Severity.ERROR, "R55"): _NO_ITEM,
    (Severity.WARNING, "R55"): _ITEM_LEFT_OUT,
    (Severity.ERROR, "R57"): "refused without --salvage, which uses the first of the two items",
    (Severity.ERROR, "R58"): "refused without --salvage: the disk may need what is not understood",
    (Severity.ERROR, "R61"): _NO_ITEM,
    (Severity.WARNING, "R61"): "none for the contents; the item is only shown",
    (Severity.ERROR, "R62"): _NO_ITEM,
    (Severity.ERROR, "R63"): _NO_DISK,
    (Severity.ERROR, "R66"): "refused; with --salvage the disk has exactly this many bytes",
    (Severity.ERROR, "R67"): "refused; with --salvage sectors of 512 bytes are assumed",
    (Severity.ERROR, "R74"): "refused; with --salvage blocks without an entry become zeros",
    (Severity.ERROR, "R77"): "refused; with --salvage the bits are left out: the table is damaged",
    (Severity.ERROR, "R78"): _ENTRY_LOST,
    (Severity.ERROR, "R80"): _ENTRY_LOST,
    (Severity.WARNING, "R80"): "the blocks read as zeros, which other readers may refuse",
    (Severity.WARNING, "R81"): "the blocks read as fully present, which other readers may refuse",
    (Severity.WARNING, "R82"): "none if the writer made no other mistake: verify the contents",
    (Severity.ERROR, "R83"): _ENTRY_LOST,
    (Severity.ERROR, "R84"): "refused without --salvage: one of the two holds wrong data",
    (Severity.ERROR, "R94"): _PARENT_LOST,
    (Severity.ERROR, "R95"): _PARENT_LOST,
    (Severity.ERROR, "R96"): _PARENT_LOST,
    (Severity.ERROR, "R97"): _PARENT_LOST,
    (Severity.ERROR, "R98"): _PARENT_LOST,
    (Severity.WARNING, "R98"): "the parent must be named with --parent",
    (Severity.ERROR, "R99"): _PARENT_LOST,
    (Severity.ERROR, "R100"): "refused: what the child inherits would be wrong",
    (Severity.WARNING, "R101"): "another version of the parent would not be noticed",
    (Severity.ERROR, "R104"): "refused: what the child inherits cannot be read",
    (Severity.ERROR, "R105"): _NOT_THE_PARENT,
    (Severity.ERROR, "R108"): _NOT_THE_PARENT,
    (Severity.NOTE, "R110"): "refused until the parent is found",
    (Severity.ERROR, "R111"): "the file was cut off; --salvage gives zeros for what is missing",
    (Severity.ERROR, "R114"): "the file was cut off; --salvage gives zeros for what is missing",
    (Severity.NOTE, "R119"): "none: the updates are applied in memory when the disk is read",
}
"""What follows from a rule, where that is more than what its severity says."""


def consequence_of(severity: Severity, finding: Finding) -> str:
    """Return in a few words what follows from a finding."""
    return OF_RULE.get((severity, finding.rule), OF_SEVERITY[severity])
