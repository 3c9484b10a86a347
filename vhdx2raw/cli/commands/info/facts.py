"""What `vhdx2raw info` knows of a disk, and the form in which programs get it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from vhdx2raw import host
from vhdx2raw.cli.console import log_facts, warning_facts
from vhdx2raw.cli.transfers import transfer_facts
from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.contents import Contents, Partition, PartitionTable, Usage, Volume
from vhdx2raw.vhdx.bat import OCCUPYING_STATES
from vhdx2raw.vhdx.image import VhdxImage
from vhdx2raw.vhdx.locator import ParentLocator

DEFAULT_SECTOR_SIZE: Final = 512
"""Bytes of a sector of a loop device, unless another size is asked for."""
LOOP_DEVICE: Final = "/dev/loop0"
UNMOUNTABLE: Final = ("ReFS", "APFS")
"""File systems that Linux has no driver for."""
ACCESS_COMMANDS: Final = {
    "LVM2 physical volume": "vgchange --activate y  # then mount -o ro /dev/GROUP/VOLUME /mnt",
    "LUKS": "cryptsetup open --readonly {device} disk  # then mount -o ro /dev/mapper/disk /mnt",
    "BitLocker": "cryptsetup open --readonly --type bitlk {device} disk"
    "  # then mount -o ro /dev/mapper/disk /mnt",
    "Linux RAID member": "mdadm --assemble --readonly /dev/md0 {device}",
}
"""What gives access to a volume that is not a file system itself."""


class Subject(NamedTuple):
    """The disk that is asked about.

    Attributes:
        chain: Its files, as far as parents can be used.
        contents: What lies inside; None if that cannot be known without the parent.
    """

    chain: Chain
    contents: Contents | None


def stored_block_count(image: VhdxImage) -> int:
    """Return how many blocks have a place in the file."""
    return sum(image.allocation.block_counts.get(state, 0) for state in OCCUPYING_STATES)


def actual_size(image: VhdxImage) -> int:
    """Return the bytes that a file takes up where it is."""
    if image.source.url is not None:
        return image.source.size
    return host.allocated_size(os.fstat(image.source.descriptor))


def mount_commands(contents: Contents, sector_size: int) -> Iterator[str]:
    """Yield the commands that give access to a raw image, here called `disk.img`.

    They change nothing in it. A loop device is called `/dev/loop0`; losetup prints its real name.
    """
    volume, table = contents.volume, contents.table
    if volume is not None and volume.usage is Usage.FILE_SYSTEM:
        if volume.kind not in UNMOUNTABLE:
            yield f"mount -o loop,{_mount_options(volume)} disk.img /mnt"
    elif volume is not None:
        yield f"losetup{_sector_option(sector_size)} --read-only --find --show disk.img"
        yield from _access_commands(volume, LOOP_DEVICE)
    if table is not None and table.partitions:
        option = _sector_option(table.sector_size)
        yield f"losetup{option} --read-only --partscan --find --show disk.img"
        for partition in table.partitions:
            if partition.volume is not None:
                yield from _access_commands(partition.volume, f"{LOOP_DEVICE}p{partition.number}")


def _access_commands(volume: Volume, device: str) -> Iterator[str]:
    """Yield what follows once the volume is a block device."""
    if volume.usage is Usage.FILE_SYSTEM and volume.kind not in UNMOUNTABLE:
        yield f"mount -o {_mount_options(volume)} {device} /mnt"
    elif volume.kind in ACCESS_COMMANDS:
        yield ACCESS_COMMANDS[volume.kind].format(device=device)


def _mount_options(volume: Volume) -> str:
    """Return options with which mount does not want to replay a journal into a read-only device."""
    if volume.kind == "XFS":
        return "ro,norecovery"
    return "ro,noload" if volume.needs_recovery else "ro"


def _sector_option(sector_size: int) -> str:
    return f" --sector-size {sector_size}" if sector_size != DEFAULT_SECTOR_SIZE else ""


def facts_of(subject: Subject, *, with_chain: bool) -> dict[str, object]:
    """Return the answer for programs (docs/schemas/info.json): the keys of qemu-img, then ours."""
    child = subject.chain.child
    locator = child.metadata.parent_locator
    facts: dict[str, object] = {
        **_shared_facts(child),
        "format": "vhdx",
        "cluster-size": child.metadata.block_size,
    }
    if locator is not None:
        facts |= _backing_facts(locator, subject.chain)
    error = subject.chain.parent_error
    data = {
        **_image_facts(child),
        "warnings": warning_facts(subject.chain.warnings),
        "damage": warning_facts(subject.chain.damage),
        "parent-error": str(error) if error else None,
        "contents": _contents_facts(subject.contents, child.metadata.logical_sector_size),
    }
    if with_chain:
        data["chain"] = [
            _shared_facts(image) | _image_facts(image) for image in subject.chain.images
        ]
    facts["format-specific"] = {"type": "vhdx", "data": data}
    return facts | transfer_facts(subject.chain.fetched)


def _shared_facts(image: VhdxImage) -> dict[str, object]:
    """Return what qemu-img knows of every file too."""
    return {
        "filename": image.source.name,
        "virtual-size": image.virtual_disk_size,
        "actual-size": actual_size(image),
        "dirty-flag": image.header_section.is_dirty,
    }


def _backing_facts(locator: ParentLocator, chain: Chain) -> dict[str, object]:
    """Return what qemu-img says of a parent: its name as the child has it, and its path."""
    facts: dict[str, object] = {"backing-filename-format": "vhdx"}
    if locator.paths:
        facts["backing-filename"] = next(iter(locator.paths.values()))
    if len(chain.images) > 1:
        facts["full-backing-filename"] = chain.images[1].source.name
    return facts


def _image_facts(image: VhdxImage) -> dict[str, object]:
    """Return what only a VHDX has."""
    metadata, section = image.metadata, image.header_section
    locator = metadata.parent_locator
    counts = sorted(image.allocation.block_counts.items())
    return {
        "disk-type": metadata.disk_type,
        "block-size": metadata.block_size,
        "allocated-size": stored_block_count(image) * metadata.block_size,
        "blocks": {state.name.lower().replace("_", "-"): count for state, count in counts},
        "logical-sector-size": metadata.logical_sector_size,
        "physical-sector-size": metadata.physical_sector_size,
        "creator": section.creator,
        "virtual-disk-id": str(metadata.virtual_disk_id) if metadata.virtual_disk_id else None,
        "file-write-guid": str(section.header.file_write_guid),
        "data-write-guid": str(section.header.data_write_guid),
        "header-number": section.header_number,
        "sequence-number": section.header.sequence_number,
        "log": log_facts(image.log),
        "parent-locator": locator.entries if locator else None,
    }


def _contents_facts(contents: Contents | None, sector_size: int) -> dict[str, object] | None:
    if contents is None:
        return None
    return {
        "volume": _volume_facts(contents.volume),
        "partition-table": _table_facts(contents.table),
        "image-format": contents.image_format or None,
        "problems": list(contents.problems),
        "mount-commands": list(mount_commands(contents, sector_size)),
    }


def _volume_facts(volume: Volume | None) -> dict[str, object] | None:
    if volume is None:
        return None
    return {
        "kind": volume.kind,
        "usage": volume.usage.value,
        "label": volume.label,
        "uuid": volume.uuid,
    }


def _table_facts(table: PartitionTable | None) -> dict[str, object] | None:
    if table is None:
        return None
    return {
        "scheme": table.scheme.value,
        "sector-size": table.sector_size,
        "disk-id": table.disk_id,
        "partitions": list(_iter_partition_facts(table.partitions)),
    }


def _iter_partition_facts(partitions: Iterable[Partition]) -> Iterator[dict[str, object]]:
    for partition in partitions:
        yield {
            "number": partition.number,
            "start": partition.start,
            "size": partition.size,
            "type-id": partition.type_id,
            "type-name": partition.type_name,
            "name": partition.name,
            "uuid": partition.uuid,
            "volume": _volume_facts(partition.volume),
        }
