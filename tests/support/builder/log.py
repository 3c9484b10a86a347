"""The log ring: entries with descriptors and data sectors, right or wrong in any field."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from .crc import seal
from .layout import MIB, SECTOR_SIZE_OF_LOG, round_up

_ENTRY_HEADER = struct.Struct("<4sIIIQII16sQQ")


@dataclass
class DataDescriptorSpec:
    """Replace one 4-KiB sector of the file; None means: that of the entry."""

    file_offset: int
    sector: bytes
    sequence_number: int | None = None
    signature: bytes = b"desc"
    leading_bytes: bytes | None = None
    trailing_bytes: bytes | None = None
    data_signature: bytes = b"data"
    sequence_high: int | None = None
    sequence_low: int | None = None

    def pack(self, entry_sequence_number: int) -> bytes:
        """Give the 32 bytes of the descriptor."""
        return struct.pack(
            "<4s4s8sQQ",
            self.signature,
            self.sector[4092:4096] if self.trailing_bytes is None else self.trailing_bytes,
            self.sector[:8] if self.leading_bytes is None else self.leading_bytes,
            self.file_offset,
            entry_sequence_number if self.sequence_number is None else self.sequence_number,
        )

    def pack_sector(self, entry_sequence_number: int) -> bytes:
        """Give the 4096 bytes of the data sector."""
        high, low = entry_sequence_number >> 32, entry_sequence_number & 0xFFFFFFFF
        return struct.pack(
            "<4sI4084sI",
            self.data_signature,
            high if self.sequence_high is None else self.sequence_high,
            self.sector[8:4092],
            low if self.sequence_low is None else self.sequence_low,
        )


@dataclass
class ZeroDescriptorSpec:
    """Make a range of the file read as zeros."""

    file_offset: int
    length: int
    sequence_number: int | None = None
    signature: bytes = b"zero"
    reserved: int = 0

    def pack(self, entry_sequence_number: int) -> bytes:
        """Give the 32 bytes of the descriptor."""
        return struct.pack(
            "<4sIQQQ",
            self.signature,
            self.reserved,
            self.length,
            self.file_offset,
            entry_sequence_number if self.sequence_number is None else self.sequence_number,
        )


Descriptor = DataDescriptorSpec | ZeroDescriptorSpec


@dataclass
class LogContext:
    """What an entry holds where its spec leaves a field open."""

    log_guid: UUID
    log_length: int
    file_size: int


@dataclass
class LogEntrySpec:
    """One entry at byte `position` of the ring.

    tail None: the entry itself; log_guid None: the image's; flushed_file_offset and
    last_file_offset None: the file size rounded down and up to a MiB.
    """

    position: int
    sequence_number: int
    descriptors: list[Descriptor] = field(default_factory=list)
    tail: int | None = None
    log_guid: UUID | None = None
    flushed_file_offset: int | None = None
    last_file_offset: int | None = None
    padding_sectors: int = 0
    entry_length: int | None = None
    descriptor_count: int | None = None
    reserved: int = 0
    signature: bytes = b"loge"
    checksum: int | None = None

    @property
    def size(self) -> int:
        """Bytes that the entry occupies in the ring, whatever its entry_length is."""
        data_sectors = sum(isinstance(d, DataDescriptorSpec) for d in self.descriptors)
        descriptor_bytes = round_up(_ENTRY_HEADER.size + 32 * len(self.descriptors), 4096)
        return descriptor_bytes + SECTOR_SIZE_OF_LOG * (data_sectors + self.padding_sectors)

    def pack(self, context: LogContext) -> bytes:
        """Give the bytes of the entry in ring order, the checksum over entry_length of them."""
        entry_length = self.size if self.entry_length is None else self.entry_length
        packed = bytearray(self._pack_header(entry_length, context))
        for descriptor in self.descriptors:
            packed += descriptor.pack(self.sequence_number)
        packed = packed.ljust(round_up(len(packed), SECTOR_SIZE_OF_LOG), b"\0")
        for descriptor in self.descriptors:
            if isinstance(descriptor, DataDescriptorSpec):
                packed += descriptor.pack_sector(self.sequence_number)
        packed = packed.ljust(self.size, b"\0")
        covered = entry_length if 64 <= entry_length <= context.log_length else None
        return seal(packed, self.checksum, covered)

    def _pack_header(self, entry_length: int, context: LogContext) -> bytes:
        count = self.descriptor_count
        flushed, last = self.flushed_file_offset, self.last_file_offset
        return _ENTRY_HEADER.pack(
            self.signature,
            0,
            entry_length,
            self.position if self.tail is None else self.tail,
            self.sequence_number,
            len(self.descriptors) if count is None else count,
            self.reserved,
            (context.log_guid if self.log_guid is None else self.log_guid).bytes_le,
            context.file_size // MIB * MIB if flushed is None else flushed,
            round_up(context.file_size, MIB) if last is None else last,
        )


@dataclass
class LogSpec:
    """The entries of a log; later ones are written over earlier ones."""

    entries: list[LogEntrySpec] = field(default_factory=list)

    def pieces(self, context: LogContext) -> Iterator[tuple[int, bytes]]:
        """Give (position in the ring, bytes), cut where an entry runs over the end."""
        for entry in self.entries:
            packed = entry.pack(context)
            done = 0
            while done < len(packed):
                position = (entry.position + done) % context.log_length
                part = packed[done : done + context.log_length - position]
                yield position, part
                done += len(part)


def append_entries(
    log: LogSpec,
    batches: Iterable[Sequence[Descriptor]],
    *,
    log_length: int = MIB,
    position: int | None = None,
    sequence_number: int | None = None,
    tail: int | None = None,
    padding_sectors: int = 0,
) -> list[LogEntrySpec]:
    """Add one entry per batch of descriptors, one after the other, and give the new entries.

    By default they continue the last entry of the log (place, number and tail), or
    begin at position 0 with number 1, the first of them being the tail of all. Descriptors are
    copied.
    """
    last = log.entries[-1] if log.entries else None
    if position is None:
        position = (last.position + last.size) % log_length if last else 0
    if sequence_number is None:
        sequence_number = last.sequence_number + 1 if last else 1
    if tail is None and last is not None:
        tail = last.position if last.tail is None else last.tail
    tail = position if tail is None else tail
    added: list[LogEntrySpec] = []
    for batch in batches:
        copies: list[Descriptor] = [replace(descriptor) for descriptor in batch]
        entry = LogEntrySpec(
            position, sequence_number, copies, tail=tail, padding_sectors=padding_sectors
        )
        added.append(entry)
        position = (position + entry.size) % log_length
        sequence_number += 1
    log.entries += added
    return added


def data_descriptors(sectors: Mapping[int, bytes]) -> list[Descriptor]:
    """Give a data descriptor for each {file_offset: 4-KiB sector}, in order of the file."""
    return [DataDescriptorSpec(offset, sectors[offset]) for offset in sorted(sectors)]
