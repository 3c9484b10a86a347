"""Every rule that a file is read by: its name, its number, its section, and what follows.

`docs/format-rules.md` is made from this table, and `check` takes from it what follows from a
finding. R1 to R119 follow the structures of MS-VHDX; later numbers concern the disk as a whole.
Words in braces name what the caller can ask for, such as ``{salvage}``; see `errors`.
"""

from __future__ import annotations

from enum import Enum

_ENTRY_LOST = "refused without {salvage}, which gives zeros for the block"
_LOG_LOST = "refused; with {ignore_log} or {salvage} the state before the updates is read"
_OTHER_COPY = "the other copy is used; a further damage would make the file unreadable"
_NO_DISK = "the disk cannot be read at all: nothing shows how it is laid out"
_NO_ITEM = "refused; only sectors of 512 bytes can be assumed with {salvage}"
_NOT_UNDERSTOOD = "refused without {salvage}: the disk may need what is not understood"
_CUT_OFF = "the file was cut off; {salvage} gives zeros for what is missing"
_TWO_OWNERS = "refused without {salvage}: one of the two holds wrong data"
_NOT_THE_PARENT = "refused until the right parent is named with {parents}"
_PARENT_LOST = "refused without {salvage}, which gives zeros for all that the parent had"


class Rule(str, Enum):
    """A rule; as text it is its number, such as ``R43``.

    Attributes:
        spec: Section of MS-VHDX; empty where the specification is silent.
        requirement: What the file must be like, or how it is read.
        response: What a reader does if the file is not like that; empty if it always can be.
        error: What follows from an error in `check`, where its severity alone does not say it.
        warning: The same of a warning.
        note: The same of a note.
    """

    spec: str
    requirement: str
    response: str
    error: str
    warning: str
    note: str

    def __new__(  # noqa: PYI034, PLR0917 - a member of an Enum, and a row of the table
        cls,
        number: str,
        spec: str,
        requirement: str,
        response: str = "",
        error: str = "",
        warning: str = "",
        note: str = "",
    ) -> Rule:
        """Make a member of a row of the table."""
        rule = str.__new__(cls, number)
        rule._value_ = number
        rule.spec, rule.requirement, rule.response = spec, requirement, response
        rule.error, rule.warning, rule.note = error, warning, note
        return rule

    def __str__(self) -> str:
        return str.__str__(self)

    def __format__(self, spec: str) -> str:
        return str.__format__(self, spec)

    # fmt: off
    # Opening and headers
    SIGNATURE = "R1", "2.2.1", "the file begins with `vhdxfile`; only a file with random access is opened", "refuse, and say what it is instead", "refused without {salvage}, which goes by the headers alone"
    CREATOR = "R2", "2.2.1", "the creator text is for people; control characters never reach a terminal", "accept"
    FILE_END = "R3", "", "the file is long enough for what is read of it", "refuse; one of two copies past the end is an invalid copy"
    ARITHMETIC = "R4", "", "arithmetic is unbounded, and offsets are compared before they are used"
    READ_ONLY = "R5", "", "the source is opened for reading only, and never repaired"
    LOG_FIRST = "R6", "2.3.3", "nothing that the log may change is read before the log is replayed"
    HEADER_VALID = "R7", "2.2.2", "a header has its signature and the right checksum", "use the other one, warn", "", _OTHER_COPY
    HEADER_CURRENT = "R8", "2.2.2", "the valid header with the greater sequence number is current, and only its fields count"
    HEADERS_DIFFER = "R9", "2.2.2", "two valid headers with one sequence number are identical", "refuse", "refused without {salvage}, which uses header 1"
    NO_HEADER = "R10", "", "at least one header is valid", "refuse", "refused without {salvage}, which may miss updates in the log"
    VERSION = "R11", "2.2.2", "the version is 1", "refuse", "refused: what a later version means is not known"
    LOG_VERSION = "R12", "2.2.2", "the version of the log is 0, if the log is to be replayed", "refuse", _LOG_LOST
    UNUSED_LOG_PLACE = "R13", "2.2.2", "of a log that is not replayed, the place does not matter", "note if it is impossible"
    LOG_UPDATES = "R14", "2.3.3", "a log that holds updates is replayed in memory", "{no_replay}: refuse; {ignore_log}: warn"
    LOG_PLACE = "R15", "2.2.2", "such a log is a non-empty multiple of 1 MiB at a multiple of 1 MiB, inside the file, at most 1 GiB", "refuse", _LOG_LOST
    HEADER_RESERVED = "R16", "2.2", "reserved parts of the header section are ignored", "accept"
    DATA_WRITE_GUID = "R17", "2.2.2", "the DataWriteGuid of the current header is the version that children ask for"

    # Log
    LOG_RING = "R18", "2.3", "entries begin at multiples of 4 KiB and may run over the end of the ring"
    ENTRY_HEADER = "R19", "2.3.1.1", "an entry has its signature, the LogGuid of the current header, a sequence number, a possible length and a tail inside the log", "no entry"
    ENTRY_CHECKSUM = "R20", "2.3.1.1", "the checksum covers the whole entry, in ring order", "no entry"
    ENTRY_LENGTH = "R21", "2.3.1.1", "descriptors and data sectors fit into the entry; surplus sectors at its end are allowed", "no entry"
    DESCRIPTORS = "R22", "2.3.1.2", "each descriptor has its signature, the number of the entry and aligned values", "no entry"
    DATA_SECTORS = "R23", "2.3.1.4", "each data sector has its signature and the number of the entry", "no entry"
    LOG_TARGETS = "R24", "2.3.1.2", "no update of the headers or of the log itself, none at or after 2^63 bytes", "no entry"
    EMPTY_ENTRY = "R25", "2.3.1.1", "an entry without updates is a full member of its sequence", "accept"
    DESCRIPTOR_ORDER = "R26", "2.3.1", "descriptors follow each other without gaps over all their sectors"
    LOG_RUN = "R27", "2.3.2", "an entry is followed by one with the next number, where it ends", "the run ends"
    LOG_SEQUENCE = "R28", "2.3.2", "the tail that the last entry of a run names begins an entry of the same run", "no sequence"
    ACTIVE_SEQUENCE = "R29", "2.3.3", "the sequence with the greatest last number is active; two of the same number contradict each other", "refuse", _LOG_LOST
    LOG_SCAN = "R30", "2.3.3", "finding it takes time linear in the entries"
    NO_SEQUENCE = "R31", "2.3.3", "a log that holds updates by its GUID has an active sequence", "refuse", _LOG_LOST
    REPLAY = "R32-R35", "2.3.3", "the active sequence is replayed from tail to head; later updates win; ranges of zeros stay ranges"
    FLUSHED_FILE_OFFSET = "R36", "2.3.3", "the file is at least as long as the newest entry says it was", "refuse", "the file was cut off; what lay after its end is lost"
    LAST_FILE_OFFSET = "R37", "2.3.3", "the file counts as at least as long as the newest entry and every update ask for; what is new reads as zeros"
    OVERLAY = "R38-R39", "2.3.3", "everything after the headers is read through the replayed log"
    LOG_LIMITS = "R40", "2.3", "the log has at most 2^18 updates, and its entries do not overlap again and again", "refuse", _LOG_LOST
    STALE_ENTRIES = "R41", "2.3", "entries of other LogGuids are leftovers", "accept"

    # Region table
    REGION_TABLE_VALID = "R42", "2.2.3.1", "a region table has its signature, the right checksum and at most 2047 entries", "use the other one, warn", "", _OTHER_COPY
    NO_REGION_TABLE = "R43", "", "at least one region table is valid; the first valid one is used", "refuse", "refused; with {salvage} a table with a wrong checksum is believed, else the regions are looked for"
    REGION_TABLES_DIFFER = "R44", "2.2.3", "two valid region tables are the same", "use the first one, warn", "", "the first table is used; another reader may use the second"
    OPTIONAL_REGION = "R45", "2.2.3.2", "unknown optional regions are left alone", "accept"
    REGION_TWICE = "R46", "2.2.3.2", "no region is listed twice", "refuse", "refused without {salvage}, which uses the first of the two entries"
    REGION_PLACE = "R47", "2.2.3.2", "regions lie at multiples of 1 MiB after the header section, and are not empty", "refuse; note for an unknown optional one", "refused without {salvage}, which reads what stands there"
    REQUIRED_REGION = "R48", "2.2.3.2", "no unknown region is required", "refuse", _NOT_UNDERSTOOD
    NO_REGION = "R49", "2.2.3", "there are a BAT and a metadata region", "refuse", _NO_DISK
    REGION_FLAGS = "R50", "2.2.3.2", "the Required field of these two does not matter; of others its reserved bits are zero", "note"
    REGION_OVERLAP = "R51", "2.2.3.2", "regions, the log and the header section do not overlap", "refuse", _TWO_OWNERS
    REGION_END = "R52", "2.2.3.2", "regions end inside the file, or at least what is needed of them does", "warn", "the file was cut off; what lay after its end is lost"
    REGION_TABLE_RESERVED = "R53", "2.2.3.1", "reserved fields are ignored", "accept"

    # Metadata
    METADATA_TABLE = "R54", "2.6.1.1", "the table has its signature, at most 2047 entries and zeros in its reserved fields", "refuse; note for the last", _NO_DISK
    ITEM_PLACE = "R55", "2.6.1.2", "an item lies after the table, inside the region, and has at most 1 MiB", "refuse if it is needed, else note", _NO_ITEM
    EMPTY_ITEM = "R56", "2.6.1.2", "an empty item that is needed has the wrong length (R62)", "refuse"
    ITEM_TWICE = "R57", "2.6.1.2", "no item is listed twice, no two share bytes", "refuse for a known item, else warn", "refused without {salvage}, which uses the first of the two items"
    REQUIRED_ITEM = "R58", "2.6.1.2", "no unknown item is required; the file is not marked as unfinished", "refuse", _NOT_UNDERSTOOD
    OPTIONAL_ITEM = "R59", "2.6.1.2", "unknown optional items and items of users are left alone, and so are CHS Parameters and the PMEM Label Storage Area, required or not", "accept"
    ITEM_FLAGS = "R60", "2.6.1.2", "flags of known items do not matter; reserved bits are zero", "note"
    NEEDED_ITEM = "R61", "", "File Parameters, Virtual Disk Size and Logical Sector Size are there; the other two should be", "refuse; note for the other two", _NO_ITEM
    ITEM_LENGTH = "R62", "", "items have their length", "shorter: refuse; longer: note", _NO_ITEM
    BLOCK_SIZE = "R63", "2.6.2.1", "the block size is a power of two from 1 MiB to 256 MiB", "refuse", _NO_DISK
    LEAVE_BLOCK_ALLOCATED = "R64", "2.6.2.1", "LeaveBlockAllocated means nothing to a reader: the BAT of a fixed disk rules as well"
    FILE_PARAMETERS_RESERVED = "R65", "2.6.2.1", "reserved flags of File Parameters are zero", "warn"
    VIRTUAL_DISK_SIZE = "R66", "2.6.2.2", "the virtual disk size is a multiple of the logical sector size, from one sector to 64 TiB", "refuse", "refused; with {salvage} the disk has exactly this many bytes"
    LOGICAL_SECTOR_SIZE = "R67", "2.6.2.4", "logical sectors have 512 or 4096 bytes", "refuse", "refused; with {salvage} sectors of 512 bytes are assumed"
    PHYSICAL_SECTOR_SIZE = "R68", "2.6.2.5", "physical sectors have 512 or 4096 bytes", "note"
    VIRTUAL_DISK_ID = "R69", "2.6.2.3", "the Virtual Disk ID is for display", "accept"
    ITEM_ORDER = "R70", "2.6.1", "items lie in any order", "accept"

    # BAT
    CHUNKS = "R71-R73", "2.5", "chunk ratio, counts and indexes follow from the sizes"
    BAT_SIZE = "R74", "2.5", "the BAT region holds the table; a differencing disk may lack a last bitmap entry that is not needed", "refuse; note", "refused; with {salvage} blocks without an entry become zeros"
    UNUSED_ENTRIES = "R75", "2.5", "what follows the table is ignored", "accept"
    FIXED_BAT = "R76", "2.5", "fixed disks have bitmap entries as well", "accept"
    ENTRY_RESERVED = "R77", "2.5.1", "reserved bits of an entry are zero", "refuse", "refused; with {salvage} the bits are left out: the table is damaged"
    BLOCK_PLACE = "R78", "2.5.1", "a present block has a place, below 256 TiB", "refuse", _ENTRY_LOST
    STALE_OFFSET = "R79", "2.5.1", "the place of a block that is not present does not matter", "accept"
    BLOCK_STATE = "R80", "2.5.1.1", "state 4 is not used; state 5 of draft 0.95 reads as zeros", "refuse; warn", _ENTRY_LOST, "the blocks read as zeros, which other readers may refuse"
    PARTIAL_WITHOUT_PARENT = "R81", "2.5.1.1", "only differencing disks have partially present blocks; elsewhere they read as fully present", "warn", "", "the blocks read as fully present, which other readers may refuse"
    BITMAP_WITHOUT_PARENT = "R82", "2.5.1.2", "sector bitmap entries of other disks are not used and should be zero", "warn, once", "", "none if the writer made no other mistake: verify the contents"
    SECTOR_BITMAP = "R83", "2.5.1.2", "a chunk with a partially present block has a sector bitmap", "refuse; warn of impossible entries that are not needed", _ENTRY_LOST
    BLOCK_OVERLAP = "R84", "2.5.1", "no two blocks, and no block and region, lie in one place", "refuse", _TWO_OWNERS

    # What a read returns
    READ_NOT_PRESENT = "R85", "2.5.1.1", "NOT_PRESENT: the parent's bytes, zeros where there is no parent"
    READ_ZERO = "R86-R87", "2.5.1.1", "UNDEFINED, UNMAPPED, ZERO: zeros, never the parent's bytes"
    READ_FULLY_PRESENT = "R88", "2.5.1.1", "FULLY_PRESENT: this file, without a look at the bitmap"
    READ_PARTIALLY_PRESENT = "R89-R90", "2.5.1.1", "PARTIALLY_PRESENT: per sector, a set bit this file, a clear one the parent; the least significant bit is the first sector"
    READ_LAST_BLOCK = "R91-R93", "2.4", "the last block may be used in part; each image cuts by its own block size"

    # Differencing disks
    PARENT_LOCATOR = "R94", "2.6.2.6", "a differencing disk has a parent locator, no other disk has one", "refuse; warn", _PARENT_LOST
    LOCATOR_PLACE = "R95", "2.6.2.6.1", "keys and values lie inside the locator, 1 to 256 of them", "refuse", _PARENT_LOST
    LOCATOR_TYPE = "R96", "2.6.2.6.1", "the locator is of the VHDX type", "refuse", _PARENT_LOST
    LOCATOR_TEXT = "R97", "2.6.2.6.2", "keys are valid text and have one value; NULs at the end of values are ignored", "refuse; note", _PARENT_LOST
    LINKAGE_MISSING = "R98", "2.6.2.6.3", "there is a `parent_linkage`", "refuse", _PARENT_LOST, "the parent must be named with {parents}"
    LINKAGE_TEXT = "R99", "2.6.2.6.3", "it is a GUID, with braces", "refuse; note without braces", _PARENT_LOST
    PARENT_VERSION = "R100", "2.6.2.6.3", "the parent's DataWriteGuid is `parent_linkage` or `parent_linkage2`", "refuse, unless {allow_parent_mismatch}: warn", "refused: what the child inherits would be wrong"
    PARENT_IDENTITY = "R101", "2.6.2.6.3", "a zero `parent_linkage2` means nothing; a parent without identity may be the right one", "warn", "", "another version of the parent would not be noticed"
    PARENT_PATHS = "R102-R103", "2.6.2.6.3", "the relative path first, then base names beside the child and in every {parent_dirs}; case and Windows separators are tolerated, absolute Windows paths are never followed", "refuse, with every path tried"
    PARENT_IMAGE = "R104", "", "a parent is a full VHDX, its log replayed in memory", "refuse", "refused: what the child inherits cannot be read"
    PARENT_SECTOR_SIZE = "R105", "2.6.2.6.3", "parent and child have the same logical sector size", "refuse", _NOT_THE_PARENT
    PARENT_BLOCK_SIZE = "R106", "", "block sizes may differ", "accept"
    PARENT_SIZE = "R107", "", "virtual sizes may differ; past the end of an image everything deeper is hidden", "accept"
    PARENT_CYCLE = "R108", "2.6.2.6.3", "no file is its own ancestor; at most 256 images", "refuse", _NOT_THE_PARENT
    PARENT_FORMAT = "R109", "", "a parent is a VHDX", "refuse"
    PARENT_MISSING = "R110", "2.6.2.6.3", "a parent is there", "refuse", "refused until the parent is found"

    # Ends and sizes
    BLOCK_END = "R111", "2.5.1", "every used byte of every present block is in the file", "refuse", _CUT_OFF
    LAST_BLOCK_END = "R112", "2.5.1", "the last block may end early if all used bytes are there", "accept"
    SURPLUS = "R113", "", "surplus bytes at the end of the file are ignored", "accept"
    BITMAP_END = "R114", "2.5.1", "so does every needed byte of a sector bitmap", "refuse", _CUT_OFF
    MEMORY = "R115-R116", "", "no size in the file decides on memory: tables are read in pieces"
    OUTPUT_SIZE = "R117-R118", "", "the raw image has exactly the virtual disk size; what reads as zeros is a hole"
    FILE_CHANGED = "R119", "", "no file changes while it is read: its size, its headers, the times of its last changes", "refuse; with {allow_changed} warn"
    LOG_REPLAYED = "R120", "2.3.3", "a file with updates in its log may be in use", "warn", "", "", "none: the updates are applied in memory when the disk is read"
    LOOKALIKE = "R121", "", "the disk does not begin like an image of another format", "warn"
    UNCLAIMED_SPACE = "R122", "", "no data lies where no structure and no block is", "warn", "", "the block allocation table may have been damaged: then the disk lacks what lies there"
    NEWER_STATE = "R123", "", "no checkpoint (.avhdx) in the folder of the file was made from it", "warn when it is converted"
    BACKUP_GPT = "R124", "", "the backup of a GPT lies at the end of the raw image", "warn where {round_size} puts zeros after it"
    # fmt: on
