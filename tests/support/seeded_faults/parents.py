"""Parents that are missing, or are not those that the child needs (2.6.2.6.3)."""

from __future__ import annotations

from dataclasses import replace

from tests.support.builder import FILE_PARAMETERS, MIB, ZERO_GUID, linkage_text, make_dirty
from tests.support.chains import BASE_NAME, OTHER_GUID
from tests.support.seeded_faults.disks import child, disk, family, locator, without
from tests.support.seeded_faults.fault import error, fault, note, warning

NO_PARENT = error("R110", r"was not found.* tried .*base\.vhdx: does not exist")

PARENT_FAULTS = (
    fault(
        "R100",
        "the parent is another version",
        family(child(), disk(data_write_guid=OTHER_GUID)),
        error(
            "R100", f"expected .* with the DataWriteGuid 2222.* has the DataWriteGuid {OTHER_GUID}"
        ),
    ),
    fault(
        "R101",
        "neither child nor parent names a version",
        family(
            child(locator=locator(parent_linkage=linkage_text(ZERO_GUID))),
            disk(data_write_guid=ZERO_GUID),
        ),
        warning("R101", "parent: has no identity, so that its version cannot be checked"),
    ),
    fault(
        "R101",
        "the child allows two versions",
        family(child(locator=locator(parent_linkage2=linkage_text(OTHER_GUID)))),
        note("R101", "allows two versions of the parent: a merge was under way"),
    ),
    fault(
        "R104",
        "the parent cannot be read",
        family(child(), without(FILE_PARAMETERS)),
        error("R104", r"cannot be read: .*base\.vhdx: metadata: nothing can stand in"),
    ),
    fault(
        "R104",
        "the parent was cut off",
        family(child(), disk(file_size=4 * MIB)),
        error("R104", r"is damaged: .*base\.vhdx: BAT entry of payload block 0 .* found errors: 2"),
    ),
    fault(
        "R104",
        "the parent holds updates in its log",
        family(child(), make_dirty(disk(blocks={}), disk())),
        note("R104", "parent: holds updates in its log, though a parent should not change"),
    ),
    fault(
        "R105",
        "the parent has other sectors",
        family(child(), disk(logical_sector_size=4096)),
        error("R105", r"base\.vhdx: has sectors of 4096 bytes, the child of 512"),
    ),
    fault(
        "R108",
        "the child is its own parent",
        {BASE_NAME: child(data_write_guid=disk().data_write_guid)},
        error("R108", r"base\.vhdx: is a file of the chain already"),
    ),
    replace(
        fault(
            "R109",
            "the parent is no VHDX",
            family(child(), b"conectix" + bytes(504)),
            error("R110", r"base\.vhdx: file: is a legacy VHD image, not a VHDX"),
        ),
        refused=True,
    ),
    replace(fault("R110", "there is no parent", {"child.vhdx": child()}, NO_PARENT), refused=True),
)
