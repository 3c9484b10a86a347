"""Files that each break one rule of the format, and everything that a check must find in them."""

from __future__ import annotations

from tests.support.seeded_faults.bat import BAT_FAULTS
from tests.support.seeded_faults.headers import HEADER_FAULTS
from tests.support.seeded_faults.locator import LOCATOR_FAULTS
from tests.support.seeded_faults.log import LOG_FAULTS
from tests.support.seeded_faults.metadata import ITEM_FAULTS, ITEM_TABLE_FAULTS
from tests.support.seeded_faults.parents import PARENT_FAULTS
from tests.support.seeded_faults.regions import REGION_FAULTS

FAULTS = (
    *HEADER_FAULTS,
    *LOG_FAULTS,
    *REGION_FAULTS,
    *ITEM_TABLE_FAULTS,
    *ITEM_FAULTS,
    *BAT_FAULTS,
    *LOCATOR_FAULTS,
    *PARENT_FAULTS,
)

NOT_CHECKABLE = {
    "R2": "the Creator may be anything",
    "R4": "how a reader computes",
    "R5": "a reader never writes",
    "R6": "in which order a reader works",
    "R8": "which of two valid headers is current; any two numbers are allowed (R9)",
    "R14": "a reader has to replay",
    "R25": "empty entries are allowed",
    "R26": "how descriptors lie in an entry",
    "R30": "when a reader ends its scan",
    "R32": "where a reader begins to replay",
    "R33": "in which order a reader replays",
    "R34": "what a data descriptor does",
    "R35": "what a zero descriptor does",
    "R37": "a log may make the file longer",
    "R38": "how a reader keeps the updates",
    "R39": "what a reader need not read again",
    "R41": "stale entries are normal",
    "R45": "optional regions are allowed",
    "R59": "optional and user items are allowed",
    "R70": "items lie anywhere and in any order",
    "R71": "arithmetic of chunks",
    "R72": "arithmetic of the BAT; the region is held against it by R74",
    "R73": "arithmetic of the BAT",
    "R76": "the BAT of a fixed disk is no other",
    "R85": "what NOT_PRESENT reads as",
    "R86": "what UNDEFINED and UNMAPPED read as",
    "R87": "what ZERO reads as",
    "R88": "what FULLY_PRESENT reads as, whatever the bitmap holds",
    "R89": "what PARTIALLY_PRESENT reads as",
    "R90": "arithmetic of the sector bitmap",
    "R91": "what of the last block belongs to the disk",
    "R92": "sectors of 4096 bytes are allowed",
    "R93": "how a reader splits a read",
    "R102": "in which order a reader tries the paths",
    "R103": "how a reader turns Windows paths into its own",
    "R106": "block sizes may differ",
    "R107": "virtual sizes may differ",
    "R112": "the last block may be short",
    "R115": "what a reader believes before it allocates memory",
    "R116": "the memory of a reader",
    "R117": "the size of the output",
    "R118": "the holes of the output",
    "R119": "a reader looks twice; a check looks once",
    "R121": "about the disk and not the file",
    "R123": "about other files in the folder",
    "R124": "about the output",
}
"""Why a rule has no fault: it binds the reader and not the file, or it allows something."""
