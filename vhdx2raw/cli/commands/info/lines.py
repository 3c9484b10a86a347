"""What `vhdx2raw info` prints for people, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vhdx2raw.cli.commands.info.facts import (
    DEFAULT_SECTOR_SIZE,
    Subject,
    actual_size,
    mount_commands,
    stored_block_count,
)
from vhdx2raw.cli.console import OPTION_NAMES, format_size
from vhdx2raw.disk.chain import Chain
from vhdx2raw.disk.contents import Contents, Partition, Scheme, Volume
from vhdx2raw.errors import ParentError, ParentNotFoundError
from vhdx2raw.vhdx.image import VhdxImage
from vhdx2raw.vhdx.log import LogReport, LogState

SCHEME_WORDS: Final = {Scheme.MBR: "MBR", Scheme.GPT: "GPT", Scheme.HYBRID: "GPT with a hybrid MBR"}
LARGE_SECTORS_NOTE: Final = "these partitions cannot be found on a device with sectors of 512 bytes"


def iter_lines(subject: Subject, *, with_chain: bool) -> Iterator[str]:
    """Yield the answer: the file, what lies inside of the disk, remarks, and then its parents."""
    child = subject.chain.child
    yield from _iter_image_lines(child)
    yield from _iter_parent_lines(child, subject.chain)
    sector_size = child.metadata.logical_sector_size
    if subject.contents is None:
        yield _line("contents", f"unknown, {_state_of_parent(subject.chain.parent_error)}")
    else:
        yield from _iter_contents_lines(subject.contents)
        yield from _iter_mount_lines(subject.contents, sector_size)
    yield from _iter_listed("damage", _iter_damage(subject.chain))
    yield from _iter_listed("notes", _iter_remarks(subject))
    if with_chain:
        for parent in subject.chain.images[1:]:
            yield ""
            yield from _iter_image_lines(parent)
            yield from _iter_parent_lines(parent, None)


def _line(name: str, value: str) -> str:
    return f"{name + ':' if name else '':<16}{value}"


def _iter_listed(name: str, values: Iterator[str]) -> Iterator[str]:
    """Yield lines, the first of which is named."""
    for value in values:
        yield _line(name, value)
        name = ""


def _iter_image_lines(image: VhdxImage) -> Iterator[str]:
    metadata, section = image.metadata, image.header_section
    stored, blocks = stored_block_count(image), image.geometry.payload_block_count
    allocated = _sized(stored * metadata.block_size)
    counts = sorted(image.allocation.block_counts.items(), reverse=True)
    states = (f"{count} {state.name.lower().replace('_', ' ')}" for state, count in counts)
    yield _line("image", image.source.name)
    yield _line("type", f"{metadata.disk_type} VHDX")
    yield _line("virtual size", _sized(image.virtual_disk_size))
    yield _line("allocated", f"{allocated} in {stored} of {blocks} blocks")
    yield _line("actual size", _sized(actual_size(image)))
    yield _line("block size", format_size(metadata.block_size))
    yield _line("blocks", ", ".join(states))
    logical, physical = metadata.logical_sector_size, metadata.physical_sector_size
    yield _line("sector size", f"{logical} bytes logical, {physical} bytes physical")
    yield _line("creator", section.creator or "not named")
    yield _line("disk ID", str(metadata.virtual_disk_id or "none"))
    yield _line("FileWriteGuid", str(section.header.file_write_guid))
    yield _line("DataWriteGuid", str(section.header.data_write_guid))
    number = section.header.sequence_number
    yield _line("header", f"{section.header_number} is current, with sequence number {number}")
    yield _line("log", _log_words(image.log))


def _sized(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _log_words(log: LogReport) -> str:
    match log.state:
        case LogState.CLEAN:
            return "clean"
        case LogState.REPLAYED:
            return f"needs replay; replayed in memory (entries: {log.entry_count})"
        case LogState.IGNORED:
            return "needs replay; ignored, as was asked"


def _iter_parent_lines(image: VhdxImage, chain: Chain | None) -> Iterator[str]:
    """Yield what a file says of its parent, and the path at which that was found."""
    if not image.metadata.has_parent:
        return
    locator = image.metadata.parent_locator
    values = [f"{key} = {value}" for key, value in locator.entries.items()] if locator else []
    if chain is not None and len(chain.images) > 1:
        values.append(f"found at {chain.images[1].source.name}")
    yield from _iter_listed("parent", iter(values))


def _state_of_parent(error: Exception | None) -> str:
    is_missing = isinstance(error, ParentNotFoundError)
    return f"the parent {'is missing' if is_missing else 'cannot be used'}"


def _iter_contents_lines(contents: Contents) -> Iterator[str]:
    table, values = contents.table, []
    if contents.image_format:
        values.append(f"begins like a {contents.image_format} image")
    if contents.volume is not None:
        rest = "without a partition table" if table is None else "as the whole disk"
        values.append(f"{_volume_words(contents.volume)}, {rest}")
    if table is not None:
        count = len(table.partitions)
        plural = "" if count == 1 else "s"
        values.append(
            f"{SCHEME_WORDS[table.scheme]} with {count} partition{plural},"
            f" sectors of {table.sector_size} bytes, disk ID {table.disk_id}"
        )
        values += map(_partition_words, table.partitions)
    yield from _iter_listed("contents", iter(values or ["nothing that is known"]))


def _partition_words(partition: Partition) -> str:
    kind = partition.type_name or f"type {partition.type_id}"
    name = f' "{partition.name}"' if partition.name else ""
    volume = f": {_volume_words(partition.volume)}" if partition.volume else ""
    place = f"{format_size(partition.size)} from byte {partition.start}"
    return f"{partition.number:>3}  {place}, {kind}{name}{volume}"


def _volume_words(volume: Volume) -> str:
    label = f' "{volume.label}"' if volume.label else ""
    uuid = f", UUID {volume.uuid}" if volume.uuid else ""
    return f"{volume.kind}{label}{uuid}"


def _iter_mount_lines(contents: Contents, sector_size: int) -> Iterator[str]:
    yield from _iter_listed("mount", mount_commands(contents, sector_size))
    table = contents.table
    if table is not None and table.partitions and table.sector_size != DEFAULT_SECTOR_SIZE:
        yield _line("", LARGE_SECTORS_NOTE)


def _iter_damage(chain: Chain) -> Iterator[str]:
    several = len(chain.images) > 1
    for name, finding in chain.damage:
        yield f"{name}: {finding}" if several else str(finding)


def _iter_remarks(subject: Subject) -> Iterator[str]:
    several = len(subject.chain.images) > 1
    for name, warning in subject.chain.warnings:
        yield f"{name}: {warning}" if several else str(warning)
    error = subject.chain.parent_error
    if error is not None:
        if isinstance(error, ParentError) and error.tried:
            # The paths and the identity that are expected are listed as the parent.
            yield f"{error.path}: {_state_of_parent(error)}"
            yield from (f"  tried {place}" for place in error.tried)
        else:
            yield str(error)
        if error.remedy:
            yield f"hint: {error.remedy.format_map(OPTION_NAMES)}"
    if subject.contents is not None:
        yield from subject.contents.problems
