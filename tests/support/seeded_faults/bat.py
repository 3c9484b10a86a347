"""Faults of the block allocation table and of the blocks themselves (2.5)."""

from __future__ import annotations

from tests.support.builder import GIB, MIB, TIB, BitmapSpec, Block, BlockState, RegionEntrySpec
from tests.support.logs import disk_with, entry
from tests.support.seeded_faults.disks import (
    BAT,
    BITMAP_ENTRY,
    LOG,
    METADATA,
    PARTIAL,
    UNKNOWN,
    child,
    disk,
    entry_of,
    family,
    regions,
)
from tests.support.seeded_faults.fault import REPLAYED, UNEVEN_SIZE, error, fault, note, warning

BAT_FAULTS = (
    fault(
        "R74",
        "the BAT region is too short by one entry",
        disk(virtual_disk_size=131042 * MIB, bat_length=MIB),
        error("R74", "is too short for the disk: found 1048576 bytes, .* 1048584", BAT),
    ),
    fault(
        "R74",
        "the BAT region lacks an entry that is not needed",
        family(child(virtual_disk_size=127 * GIB, bat_length=MIB)),
        note("R74", "lacks the last entry, of a sector bitmap", BAT),
    ),
    fault(
        "R75",
        "something stands after the last entry",
        disk(bat_overrides={4: 7}),
        note("R75", "where the table has no entry in use", BAT + 4 * 8),
    ),
    fault(
        "R75",
        "something stands far after the last entry",
        disk(bat_length=3 * MIB, patches={BAT + 3 * MIB - 1: b"x"}),
        note("R75", "where the table has no entry in use", BAT + 3 * MIB - 1),
    ),
    fault(
        "R75",
        "an entry of a child after its last block is not zero",
        family(child(bat_overrides={4: 6})),
        note("R75", "where the table has no entry in use", BAT + 4 * 8),
    ),
    *(
        fault(
            "R77",
            f"a block in state {state} has reserved bits",
            disk(blocks={0: Block(), 2: Block(state, reserved_bits=1)}),
            error("R77", "payload block 2 .* reserved bits are set: found 0x0", entry_of(2)),
        )
        for state in (BlockState.FULLY_PRESENT, BlockState.ZERO, BlockState.NOT_PRESENT)
    ),
    fault(
        "R77",
        "a sector bitmap entry has reserved bits",
        family(child(bitmaps={0: BitmapSpec(reserved_bits=1)})),
        error("R77", "sector bitmap block of chunk 0 .* reserved bits are set", BITMAP_ENTRY),
    ),
    fault(
        "R78",
        "a block that is present has no place",
        disk(bat_overrides={0: 6}),
        error("R78", "payload block 0 .* is present but has no place", entry_of(0)),
    ),
    fault(
        "R78",
        "a sector bitmap that is present has no place",
        family(child(bitmaps={0: BitmapSpec(file_offset=0)})),
        error("R78", "bitmap block of chunk 0 .* is present but has no place", BITMAP_ENTRY),
    ),
    fault(
        "R78",
        "a block lies past 256 TiB",
        disk_with(entry(0, 1, last_file_offset=512 * TIB), bat_overrides={1: 257 * TIB | 6}),
        REPLAYED,
        error("R78", "payload block 1 .* the block lies past 256 TiB", entry_of(1)),
    ),
    fault(
        "R79",
        "a block of zeros has a place",
        disk(blocks={0: Block(), 2: Block(BlockState.ZERO, file_offset=MIB)}),
        note("R79", "blocks that have no place hold a file offset, .* found 1"),
    ),
    fault(
        "R80",
        "a block is in state 4",
        disk(blocks={0: Block(), 2: Block(BlockState.RESERVED_4)}),
        error("R80", "payload block 2 .* the state 4 is reserved", entry_of(2)),
    ),
    fault(
        "R80",
        "a block is in state 5",
        disk(blocks={0: Block(), 2: Block(BlockState.UNMAPPED_V095)}),
        warning("R80", "blocks in state 5, .* read as zeros: found 1"),
    ),
    fault(
        "R81",
        "a block without a parent is partially present",
        disk(blocks={0: Block(), 2: Block(PARTIAL)}),
        warning("R81", "partially present, without a parent, read as fully present: found 1"),
    ),
    fault(
        "R82",
        "a sector bitmap entry of a disk without a parent is not zero",
        disk(virtual_disk_size=5 * GIB, bat_overrides={4096: 6}),
        warning("R82", "entries of a disk without a parent are not zero; .* found 1"),
    ),
    fault(
        "R83",
        "a partially present block has no bitmap",
        family(child(bitmaps={0: None})),
        error("R83", "bitmap block of chunk 0 .* it is not present, but", BITMAP_ENTRY),
    ),
    fault(
        "R83",
        "the bitmap that is needed is in a reserved state",
        family(child(bitmaps={0: BitmapSpec(state=3)})),
        error("R83", "it is not present, but .* found 0x0000000000400003", BITMAP_ENTRY),
    ),
    fault(
        "R83",
        "a bitmap that is not needed is in a reserved state",
        family(child(blocks={1: Block()}, bitmaps={0: BitmapSpec(state=3)})),
        warning("R83", "a reserved state or reserved bits, but it is not needed", BITMAP_ENTRY),
    ),
    fault(
        "R84",
        "two blocks lie at the same place",
        disk(blocks={index: Block(file_offset=4 * MIB) for index in (0, 2)}),
        error("R84", "payload block 2 .* where payload block 0 lies, at 0x400000", entry_of(2)),
    ),
    fault(
        "R84",
        "two blocks overlap",
        disk(
            block_size=2 * MIB,
            blocks={0: Block(file_offset=4 * MIB), 1: Block(file_offset=5 * MIB)},
        ),
        error("R84", "payload block 1 .* where payload block 0 lies, at 0x500000", entry_of(1)),
    ),
    *(
        fault(
            "R84",
            f"a block lies where the {name} lies",
            disk(bat_overrides={1: place | 6}),
            error("R84", f"payload block 1 .* where the {name} lies, at {place:#x}", entry_of(1)),
        )
        for name, place in (("log", LOG), ("metadata region", METADATA), ("BAT region", BAT))
    ),
    fault(
        "R84",
        "a block lies where an optional region lies",
        regions(RegionEntrySpec(UNKNOWN, 5 * MIB, MIB, 0)),
        error("R84", f"payload block 2 .* where the region {UNKNOWN} lies", entry_of(2)),
    ),
    fault(
        "R84",
        "a sector bitmap lies where a block lies",
        family(
            child(
                blocks={0: Block(PARTIAL, sector_bits={1}, file_offset=5 * MIB)},
                bitmaps={0: BitmapSpec(file_offset=5 * MIB)},
            )
        ),
        error("R84", "chunk 0 .* where payload block 0 lies, at 0x500000", BITMAP_ENTRY),
    ),
    fault(
        "R111",
        "a block lies past the end",
        disk(file_size=5 * MIB),
        error("R111", "payload block 2 .* beyond the end .* at least 6291456", entry_of(2)),
    ),
    fault(
        "R111",
        "the last sector of a block lies past the end",
        disk(file_size=6 * MIB - 512),
        error("R111", "payload block 2 .* found a file of 6290944 bytes", entry_of(2)),
        UNEVEN_SIZE,
    ),
    fault(
        "R113", "the file is longer than its structures", disk(file_size=6 * MIB + 512), UNEVEN_SIZE
    ),
    fault(
        "R114",
        "a sector bitmap lies past the end",
        family(child(bitmaps={0: BitmapSpec(file_offset=64 * MIB)}, file_size=8 * MIB)),
        error("R114", "of chunk 0 .* beyond the end of the file, at 0x4000000", BITMAP_ENTRY),
    ),
    fault(
        "R122",
        "the table was wiped",
        disk(bat_overrides={0: 0, 2: 0}),
        warning("R122", "belongs to no block and no structure.*: found 2 MiB", 4 * MIB),
    ),
)
