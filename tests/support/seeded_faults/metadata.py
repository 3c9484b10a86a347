"""Faults of the metadata table and its items (2.6)."""

from __future__ import annotations

from uuid import UUID

from tests.support.builder import (
    FILE_PARAMETERS,
    IS_REQUIRED,
    IS_USER,
    IS_VIRTUAL_DISK,
    LOGICAL_SECTOR_SIZE,
    MIB,
    PHYSICAL_SECTOR_SIZE,
    TIB,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    ZERO_GUID,
    MetadataItemSpec,
)
from tests.support.seeded_faults.disks import (
    BAT,
    ID_ITEM,
    ITEMS,
    LOGICAL_ITEM,
    METADATA,
    PHYSICAL_ITEM,
    SIZE_ITEM,
    UNKNOWN,
    child,
    disk,
    family,
    item,
    more_items,
    table,
    without,
)
from tests.support.seeded_faults.fault import NO_SIZES, error, fault, note, warning

INCOMPLETE = UUID("71CC85F0-1B69-4E28-9558-C3BF83AE75D3")
NEW_ITEM = METADATA + 32 + 5 * 32
"""Where the table entry of a sixth item stands."""


ITEM_TABLE_FAULTS = (
    fault(
        "R54",
        "the table has another signature",
        table(signature=b"METADATA"),
        error("R54", "metadata table .* the signature metadata is missing", METADATA),
    ),
    fault(
        "R54",
        "the table claims too many entries",
        table(entry_count=2048),
        error("R54", "it claims 2048 entries, at most 2047 fit", METADATA),
    ),
    fault(
        "R54",
        "a reserved field of the table is not zero",
        table(reserved=1),
        note("R54", "reserved fields are not zero", METADATA),
    ),
    fault(
        "R54",
        "the other reserved field of the table is not zero",
        table(reserved2=bytes(19) + b"x"),
        note("R54", "reserved fields are not zero", METADATA),
    ),
    fault(
        "R55",
        "a needed item lies past the region",
        item(VIRTUAL_DISK_SIZE, offset=MIB),
        error("R55", "its end 0x100008 lies past the metadata region", BAT),
        NO_SIZES,
    ),
    fault(
        "R55",
        "a needed item lies in the table",
        item(VIRTUAL_DISK_SIZE, offset=4096),
        error("R55", "its offset 0x1000 lies inside the metadata table", METADATA + 4096),
        NO_SIZES,
    ),
    fault(
        "R55",
        "a needed item is too long",
        item(VIRTUAL_DISK_SIZE, length=MIB + 1),
        warning("R57", "two items share bytes", ID_ITEM),
        error("R55", "its length of 1048577 bytes is above 1 MiB", SIZE_ITEM),
        NO_SIZES,
    ),
    fault(
        "R55",
        "an unknown item lies past the region",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, MIB - 4, 8)),
        note("R55", "its end 0x100004 lies past the metadata region; ignored", NEW_ITEM),
    ),
    fault(
        "R56",
        "a needed item is empty",
        item(LOGICAL_SECTOR_SIZE, length=0),
        error("R62", "Logical Sector Size .* is 0 bytes long instead of 4", METADATA),
    ),
    fault(
        "R56",
        "an empty item has an offset",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, 0x18000, 0)),
        note("R56", "is empty, but has an offset: found 0x18000, expected 0x0", NEW_ITEM),
    ),
    fault(
        "R57",
        "a known item is listed twice",
        more_items(MetadataItemSpec(VIRTUAL_DISK_SIZE)),
        error("R57", "metadata item Virtual Disk Size .* is listed twice", NEW_ITEM),
    ),
    fault(
        "R57",
        "an unknown item is listed twice",
        more_items(MetadataItemSpec(UNKNOWN, b"x", 0), MetadataItemSpec(UNKNOWN, b"y", 0)),
        warning("R57", f"metadata item {UNKNOWN} .* is listed twice", NEW_ITEM + 32),
    ),
    fault(
        "R57",
        "two items share bytes",
        more_items(MetadataItemSpec(UNKNOWN, b"", 0, 0x10008, 8)),
        warning("R57", "two items share bytes", SIZE_ITEM),
    ),
    fault(
        "R58",
        "an unknown item is required",
        more_items(MetadataItemSpec(UNKNOWN, b"x", IS_REQUIRED)),
        error("R58", f"{UNKNOWN} .* the file requires this item", NEW_ITEM),
    ),
    fault(
        "R58",
        "a user item that is called like a known one is required",
        more_items(MetadataItemSpec(VIRTUAL_DISK_SIZE, b"x", IS_REQUIRED | IS_USER)),
        error("R58", "2fa54224-.* the file requires this item", NEW_ITEM),
    ),
    fault(
        "R58",
        "the file was never finished",
        more_items(MetadataItemSpec(INCOMPLETE, b"x", 0)),
        error("R58", "marks a file whose creation was never finished", NEW_ITEM),
    ),
    fault(
        "R60",
        "an item has reserved flags",
        item(VIRTUAL_DISK_ID, flags=IS_REQUIRED | IS_VIRTUAL_DISK | 8),
        note("R60", "Virtual Disk ID .* reserved bits", METADATA + 32 + 2 * 32),
    ),
    fault(
        "R60",
        "the reserved field of an item is not zero",
        item(VIRTUAL_DISK_ID, reserved=1),
        note("R60", "Virtual Disk ID .* reserved bits", METADATA + 32 + 2 * 32),
    ),
    fault(
        "R60",
        "a known item is not marked as required",
        item(PHYSICAL_SECTOR_SIZE, flags=IS_VIRTUAL_DISK),
        note(
            "R60",
            "Physical Sector Size .* has unusual flags: found 0x2, expected 0x6",
            METADATA + 32 + 4 * 32,
        ),
    ),
)

ITEM_FAULTS = (
    fault(
        "R61",
        "there are no File Parameters",
        without(FILE_PARAMETERS),
        error("R61", "File Parameters: is missing"),
        NO_SIZES,
    ),
    fault(
        "R61",
        "there is no Virtual Disk Size",
        without(VIRTUAL_DISK_SIZE),
        error("R61", "Virtual Disk Size: is missing"),
        NO_SIZES,
    ),
    fault(
        "R61",
        "there is no Logical Sector Size",
        without(LOGICAL_SECTOR_SIZE),
        error("R61", "Logical Sector Size: is missing"),
    ),
    fault(
        "R61",
        "there is no Virtual Disk ID",
        without(VIRTUAL_DISK_ID),
        note("R61", "Virtual Disk ID: is missing"),
    ),
    fault(
        "R61",
        "there is no Physical Sector Size",
        without(PHYSICAL_SECTOR_SIZE),
        note("R61", "Physical Sector Size: is missing"),
    ),
    fault(
        "R62",
        "the File Parameters are too short",
        item(FILE_PARAMETERS, length=4),
        error("R62", "File Parameters .* is 4 bytes long instead of 8", ITEMS),
        NO_SIZES,
    ),
    fault(
        "R62",
        "the Virtual Disk Size is too long",
        item(VIRTUAL_DISK_SIZE, data=(4 * MIB).to_bytes(16, "little")),
        note("R62", "Virtual Disk Size .* is 16 bytes long instead of 8", SIZE_ITEM),
    ),
    fault(
        "R62",
        "the Virtual Disk ID is too short",
        item(VIRTUAL_DISK_ID, length=8),
        note("R62", "Virtual Disk ID .* is 8 bytes long instead of 16", ID_ITEM),
    ),
    *(
        fault(
            "R63",
            f"the block size is {size}",
            item(FILE_PARAMETERS, data=size.to_bytes(8, "little")),
            error("R63", f"block size is not a power of two .* found {size} bytes", ITEMS),
            NO_SIZES,
        )
        for size in (0, MIB // 2, 3 * MIB, 512 * MIB)
    ),
    fault(
        "R64",
        "a child is marked as fixed",
        family(child(leave_block_allocated=True)),
        note("R64", "a differencing disk is marked as fixed, which means nothing"),
    ),
    fault(
        "R65",
        "reserved flags are set",
        disk(file_parameters_flags=4),
        warning("R65", "File Parameters .* reserved flags are set: found 0x4", ITEMS),
    ),
    *(
        fault(
            "R66",
            f"the disk has {size} bytes",
            item(VIRTUAL_DISK_SIZE, data=size.to_bytes(8, "little")),
            error("R66", f"{problem}: found {size} bytes", SIZE_ITEM),
            NO_SIZES,
        )
        for size, problem in (
            (0, "the disk has no sector at all"),
            (64 * TIB + 512, "the disk is larger than 64 TiB"),
        )
    ),
    fault(
        "R66",
        "the size of the disk is no multiple of its sectors",
        disk(virtual_disk_size=3 * MIB + 1),
        error("R66", "not a multiple of the logical sector size of 512 bytes", SIZE_ITEM),
    ),
    *(
        fault(
            "R67",
            f"logical sectors have {size} bytes",
            item(LOGICAL_SECTOR_SIZE, data=size.to_bytes(4, "little")),
            error("R67", f"neither 512 nor 4096 bytes: found {size} ", LOGICAL_ITEM),
        )
        for size in (0, 1024)
    ),
    fault(
        "R68",
        "physical sectors have 1000 bytes",
        disk(physical_sector_size=1000),
        note("R68", "neither 512 nor 4096 bytes: found 1000 ", PHYSICAL_ITEM),
    ),
    fault(
        "R68",
        "physical sectors are smaller than logical ones",
        disk(logical_sector_size=4096, physical_sector_size=512),
        note("R68", "smaller than logical ones: found 512 and 4096 bytes"),
    ),
    fault(
        "R69",
        "the Virtual Disk ID is zero",
        disk(virtual_disk_id=ZERO_GUID),
        note("R69", "the Virtual Disk ID is zero"),
    ),
)
