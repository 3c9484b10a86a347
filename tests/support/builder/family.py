"""Images made from other images: children of a parent, and the same disk with a dirty log."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from uuid import UUID

from .image import ImageSpec
from .layout import same_bytes_guid
from .locator import linkage_text, parent_locator
from .log import DataDescriptorSpec, LogSpec, append_entries, data_descriptors

_PAGE = 4096
DEFAULT_LOG_GUID = same_bytes_guid(0x44)


def locator_of(parent: ImageSpec, relative_path: str, **more_keys: str) -> bytes:
    """Give the locator of a child: linkage, relative path, then any other keys."""
    keys = {
        "parent_linkage": linkage_text(parent.data_write_guid),
        "relative_path": relative_path,
    }
    return parent_locator(keys | more_keys)


def child_of(parent: ImageSpec, relative_path: str, **fields: Any) -> ImageSpec:  # noqa: ANN401
    """Give an empty child with the sizes of its parent; `fields` are those of ImageSpec.

    Its tag is "child" and its DataWriteGuid 16 x 0x66 by default.
    """
    defaults: dict[str, Any] = {
        "virtual_disk_size": parent.virtual_disk_size,
        "block_size": parent.block_size,
        "logical_sector_size": parent.logical_sector_size,
        "physical_sector_size": parent.physical_sector_size,
        "virtual_disk_id": parent.virtual_disk_id,
        "data_write_guid": same_bytes_guid(0x66),
        "tag": "child",
        "locator": locator_of(parent, relative_path),
        "parent": parent,
    }
    return ImageSpec(**(defaults | fields))


def table_sectors(spec: ImageSpec) -> dict[int, bytes]:
    """Give every 4-KiB sector of the tables and bitmaps that was written, by file offset."""
    sectors: dict[int, bytearray] = {}
    for file_offset, data in spec.table_pieces():
        position = file_offset
        while position < file_offset + len(data):
            page, start = position - position % _PAGE, position % _PAGE
            done = position - file_offset
            part = data[done : done + _PAGE - start]
            sectors.setdefault(page, bytearray(_PAGE))[start : start + len(part)] = part
            position += len(part)
    return {page: bytes(sector) for page, sector in sectors.items()}


def changed_sectors(before: ImageSpec, after: ImageSpec) -> dict[int, bytes]:
    """Give {file_offset: sector} that turns the tables of one image into those of the other."""
    old, new = table_sectors(before), table_sectors(after)
    zeros = bytes(_PAGE)
    pages = sorted(old.keys() | new.keys())
    return {p: new.get(p, zeros) for p in pages if old.get(p, zeros) != new.get(p, zeros)}


def make_dirty(
    before: ImageSpec,
    after: ImageSpec,
    *,
    entry_count: int = 1,
    position: int = 0,
    sequence_number: int = 1,
    log_guid: UUID = DEFAULT_LOG_GUID,
) -> ImageSpec:
    """Give an image whose tables are those of `before` and whose log makes them those of `after`.

    Payload, headers and expected_disk() are those of `after`. The changed sectors are spread over
    `entry_count` entries in file order (the last ones may be empty).
    """
    sectors = changed_sectors(before, after)
    dirty = deepcopy(after)
    dirty.parent = after.parent
    dirty.log_guid = log_guid
    dirty.log = LogSpec()
    descriptors = data_descriptors(sectors)
    share = -(-len(descriptors) // entry_count)
    batches = [descriptors[i * share : (i + 1) * share] for i in range(entry_count)]
    append_entries(
        dirty.log,
        batches,
        log_length=dirty.log_length,
        position=position,
        sequence_number=sequence_number,
    )
    stale = table_sectors(before)
    for file_offset in sectors:
        dirty.patches[file_offset] = stale.get(file_offset, bytes(_PAGE))
    return dirty


def log_sectors(spec: ImageSpec, sectors: Mapping[int, bytes]) -> ImageSpec:
    """Append one entry with these {file_offset: sector} to the log of `spec`; give `spec`.

    A clean image becomes dirty. What the sectors do to the disk is for the caller to describe.
    """
    if not spec.log_guid.int:
        spec.log_guid = DEFAULT_LOG_GUID
    append_entries(spec.log, [data_descriptors(sectors)], log_length=spec.log_length)
    return spec


def logged_sectors(log: LogSpec) -> dict[int, bytes]:
    """Give the sectors that remain of all data descriptors of a log, the last one winning."""
    return {
        descriptor.file_offset: descriptor.sector
        for entry in log.entries
        for descriptor in entry.descriptors
        if isinstance(descriptor, DataDescriptorSpec)
    }
