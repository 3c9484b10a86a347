"""Disks that differ in a few fields from a sound one, and where its parts lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from tests.support.builder import (
    BAT_REGION,
    KIB,
    METADATA_REGION,
    MIB,
    BitmapSpec,
    Block,
    BlockState,
    HeaderSpec,
    ImageSpec,
    LocatorEntrySpec,
    MetadataItemSpec,
    RegionEntrySpec,
    RegionTableSpec,
    child_of,
    linkage_text,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import BASE_NAME, RELATIVE
from tests.support.logs import disk_with, entry

Fields = Mapping[str, Any]
UNKNOWN = same_bytes_guid(0xAB)
PARTIAL = BlockState.PARTIALLY_PRESENT
HEADER_1, HEADER_2, TABLE_1, TABLE_2 = (number * 64 * KIB for number in (1, 2, 3, 4))
LOG, METADATA, BAT = MIB, 2 * MIB, 3 * MIB
ITEMS = METADATA + 64 * KIB
"""Where the items begin: File Parameters, Virtual Disk Size, ID, sector sizes, Parent Locator."""
SIZE_ITEM, ID_ITEM, LOGICAL_ITEM, PHYSICAL_ITEM, LOCATOR_ITEM = (
    ITEMS + place for place in (8, 16, 32, 36, 40)
)
BITMAP_ENTRY = BAT + 8 * 4096


def disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe 4 MiB with two blocks; log, metadata and BAT lie at 1, 2 and 3 MiB."""
    defaults: dict[str, Any] = {
        "virtual_disk_size": 4 * MIB,
        "block_size": MIB,
        "blocks": {0: Block(), 2: Block()},
    }
    return ImageSpec(**(defaults | fields))


def headers(first: Fields, second: Fields) -> list[HeaderSpec]:
    """Describe the two headers with some other fields."""
    return [replace(HeaderSpec(1), **first), replace(HeaderSpec(2), **second)]


def current(**fields: Any) -> list[HeaderSpec]:  # noqa: ANN401
    """Describe two headers, the current one with other fields."""
    return headers({}, fields)


def tables(first: Fields, second: Fields) -> ImageSpec:
    """Describe the disk with other fields in its region tables."""
    return disk(region_tables=[RegionTableSpec(**first), RegionTableSpec(**second)])


def regions(
    *more: RegionEntrySpec,
    bat: Fields | None = None,
    metadata: Fields | None = None,
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe the disk with other regions in both of its tables."""
    entries = [
        RegionEntrySpec(BAT_REGION, **(bat or {})),
        RegionEntrySpec(METADATA_REGION, **(metadata or {})),
        *more,
    ]
    return disk(region_tables=[RegionTableSpec(entries), RegionTableSpec(entries)], **fields)


def only(guid: UUID) -> ImageSpec:
    """Describe the disk with one region."""
    entries = [RegionEntrySpec(guid)]
    return disk(region_tables=[RegionTableSpec(entries), RegionTableSpec(entries)])


def item(item_id: UUID, **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe the disk with other fields in the table entry of a metadata item."""
    spec = disk()
    table = spec.metadata
    table.items = [replace(i, **fields) if i.item_id == item_id else i for i in table.items]
    return spec


def without(item_id: UUID) -> ImageSpec:
    """Describe the disk without a metadata item."""
    spec = disk()
    spec.metadata.remove(item_id)
    return spec


def more_items(*items: MetadataItemSpec) -> ImageSpec:
    """Describe the disk with more metadata items."""
    spec = disk()
    spec.metadata.items += items
    return spec


def table(**fields: Any) -> ImageSpec:  # noqa: ANN401
    """Describe the disk with other fields at the head of its metadata table."""
    spec = disk()
    spec.metadata = replace(spec.metadata, **fields)
    return spec


LINKAGE = linkage_text(disk().data_write_guid)
KEYS = {"parent_linkage": LINKAGE, "relative_path": RELATIVE}


def child(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a child of `disk`, one block of which is partially present."""
    defaults: dict[str, Any] = {
        "blocks": {0: Block(PARTIAL, sector_bits={1, 2}), 1: Block()},
        "bitmaps": {0: BitmapSpec()},
    }
    return child_of(disk(), RELATIVE, **(defaults | fields))


def family(
    child: ImageSpec, parent: ImageSpec | bytes | None = None
) -> Mapping[str, ImageSpec | bytes]:
    """Give a child and its parent by their names."""
    return {"child.vhdx": child, BASE_NAME: disk() if parent is None else parent}


def locator(*more: LocatorEntrySpec, **keys: str) -> bytes:
    """Give a locator with more entries, or with other values of its keys."""
    return parent_locator([*(KEYS | keys).items(), *more])


def dirty_disk(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of ImageSpec
    """Describe a disk with an empty entry to replay, which changes nothing."""
    return disk_with(entry(0, 1), **fields)


def with_log_place(**fields: Any) -> ImageSpec:  # noqa: ANN401 - those of HeaderSpec
    """Describe a dirty disk whose current header has the log elsewhere."""
    return dirty_disk(headers=current(**fields))


def entry_of(block: int) -> int:
    """Give the place of the BAT entry of a block."""
    return BAT + 8 * block
