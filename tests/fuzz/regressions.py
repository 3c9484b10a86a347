"""What the fuzzer found, each made by the test builder: an image that once broke the promise.

Beside them stand images that cost little to write and could cost much to read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support.builder import (
    DEFAULT_LOG_GUID,
    GIB,
    IS_USER,
    MIB,
    TIB,
    Block,
    Descriptor,
    ImageSpec,
    LogEntrySpec,
    LogSpec,
    MetadataItemSpec,
    RegionEntrySpec,
    ZeroDescriptorSpec,
    child_of,
    linkage_text,
    parent_locator,
    same_bytes_guid,
)

PAGE = 4096
LONGEST_PATH = 32767
"""Characters of the longest value in a locator."""
MOST_TABLE_ENTRIES = 2047
MOST_LOG_UPDATES = 1 << 18
ROOT = "root.vhdx"


def root(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    return ImageSpec(2 * MIB, MIB, {0: Block(content={0: b"root" * 128})}, **fields)


def write_child(folder: Path, path_of_parent: str) -> Path:
    """Write a child that names its parent by this path, and the parent."""
    parent = root()
    parent.write(folder / ROOT)
    keys = {
        "parent_linkage": linkage_text(parent.data_write_guid),
        "relative_path": path_of_parent,
    }
    child_of(parent, "", locator=parent_locator(keys)).write(folder / "disk.vhdx")
    return folder / "disk.vhdx"


def long_path_of_parent(folder: Path) -> Path:
    """Its error once was a line of 33 000 characters."""
    return write_child(folder, "a" * LONGEST_PATH)


def path_that_climbs(folder: Path) -> Path:
    return write_child(folder, ("..\\" * LONGEST_PATH)[:LONGEST_PATH])


def path_that_stays(folder: Path) -> Path:
    return write_child(folder, (".\\" * LONGEST_PATH)[: LONGEST_PATH - 1] + "a")


def path_of_several_lines(folder: Path) -> Path:
    return write_child(folder, "root\nvhdxs: all is well\r\n\x1b[2J")


def path_with_half_a_character(folder: Path) -> Path:
    return write_child(folder, "\ud800\\\0\\root.vhdx")


def huge_disk(folder: Path) -> Path:
    """Give 64 TiB whose table of 512 MiB is a hole."""
    path = folder / "disk.vhdx"
    ImageSpec(64 * TIB, MIB).write(path)
    return path


def huge_table(folder: Path) -> Path:
    """Give a huge disk with the longest BAT region, most of which is not needed."""
    path = folder / "disk.vhdx"
    ImageSpec(TIB, MIB, bat_length=4095 * MIB).write(path)
    return path


def huge_table_in_the_log(folder: Path) -> Path:
    """Give a huge disk whose table lies where the file is to grow."""
    path = folder / "disk.vhdx"
    entry = LogEntrySpec(0, 1, flushed_file_offset=3 * MIB, last_file_offset=1 << 63)
    log = LogSpec([entry])
    ImageSpec(64 * TIB, MIB, log_guid=DEFAULT_LOG_GUID, log=log, file_size=3 * MIB).write(path)
    return path


def long_log_entries(folder: Path) -> Path:
    """Give a log of 1 GiB with three entries that lie over each other and fill it."""
    path = folder / "disk.vhdx"
    fields = {"log_length": GIB, "metadata_offset": 2 * GIB, "bat_offset": 3 * GIB}
    root(log_guid=DEFAULT_LOG_GUID, **fields).write(path)
    with path.open("r+b") as file:
        for number in range(3):
            file.seek(MIB + number * PAGE)
            guid = DEFAULT_LOG_GUID.bytes_le
            head = (b"loge", 0, GIB, number * PAGE, number + 1, 0, 0, guid, 0, 0)
            file.write(struct.pack("<4sIIIQII16sQQ", *head))
    return path


def many_log_zeros(folder: Path) -> Path:
    """Give a log with as many ranges of zeros as it may have, each inside the next one."""
    path = folder / "disk.vhdx"
    middle = 1 << 42
    zeros: list[Descriptor] = [
        ZeroDescriptorSpec(middle - PAGE * reach, 2 * PAGE * reach)
        for reach in range(MOST_LOG_UPDATES)
    ]
    log = LogSpec([LogEntrySpec(0, 1, zeros)])
    fields = {"log_length": 16 * MIB, "metadata_offset": 17 * MIB, "bat_offset": 18 * MIB}
    root(log=log, log_guid=DEFAULT_LOG_GUID, **fields).write(path)
    return path


def many_regions(folder: Path) -> Path:
    """Give as many optional regions as fit, each of the greatest length."""
    path = folder / "disk.vhdx"
    spec = root()
    for table in spec.region_tables:
        table.entries += [
            RegionEntrySpec(UUID(int=1 + n), (1 << 40) + (n << 33), 4095 * MIB, 0)
            for n in range(MOST_TABLE_ENTRIES - 2)
        ]
    spec.write(path)
    return path


def many_items(folder: Path) -> Path:
    """Give as many items of users as fit, all with one GUID and an impossible place."""
    path = folder / "disk.vhdx"
    spec = root()
    item = MetadataItemSpec(same_bytes_guid(7), b"x", IS_USER | 0xFF00, 9 * MIB, 9 * MIB)
    spec.metadata.items += [item] * (MOST_TABLE_ENTRIES - 5)
    spec.write(path)
    return path


STRANGE_IMAGES: tuple[Callable[[Path], Path], ...] = (
    long_path_of_parent,
    path_that_climbs,
    path_that_stays,
    path_of_several_lines,
    path_with_half_a_character,
    huge_disk,
    huge_table,
    huge_table_in_the_log,
    long_log_entries,
    many_log_zeros,
    many_regions,
    many_items,
)
"""Each writes its files to a folder and gives the path of the child."""
