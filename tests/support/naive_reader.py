"""A slow and obvious reader of well-formed VHDX files, one sector at a time.

The second truth of the tests: it follows the rules R1-R93 and R107 of the format document to the
letter, for images that break none of them, and shares nothing with the package nor the builder.
"""

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import crc32c

MIB = 1 << 20
BAT = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
LOGICAL_SECTOR_SIZE = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PARENT_LOCATOR = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")

FULLY_PRESENT = 6
PARTIALLY_PRESENT = 7

Write = tuple[int, int, bytes | None]  # file offset, length, the new bytes or None for zeros


class Entry(NamedTuple):
    position: int
    length: int
    tail: int
    sequence: int
    flushed: int
    last: int
    writes: list[Write]


class NaiveReaderError(Exception):
    """The file is not as plain as this reader expects."""


def demand(condition: object, message: str) -> None:
    if not condition:
        raise NaiveReaderError(message)


def checksum_is_right(structure: bytes) -> bool:
    """Tell whether bytes 4..7 are the CRC-32C of the rest with themselves as zero."""
    bare = structure[:4] + bytes(4) + structure[8:]
    return int.from_bytes(structure[4:8], "little") == crc32c.crc32c(bare)


class NaiveLayer:
    """One file, its log replayed in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.piece = lru_cache(16)(self.read_piece)
        self.size = path.stat().st_size
        self.writes: list[Write] = []
        demand(self.read(0, 8) == b"vhdxfile", "not a VHDX")
        self.read_header_and_log()
        self.bat_offset, self.bat_length, *metadata_place = self.read_regions()
        self.read_metadata(*metadata_place)

    def read(self, offset: int, length: int) -> bytes:
        """Read from the file as it is after replay."""
        demand(offset + length <= self.size, f"{self.path.name}: read beyond the end of the file")
        pieces = [self.piece(n) for n in range(offset // MIB, (offset + length - 1) // MIB + 1)]
        data = bytearray(b"".join(pieces)[offset % MIB : offset % MIB + length])
        for start, count, sector in self.writes:
            low, high = max(offset, start), min(offset + length, start + count)
            if low < high:
                new = bytes(high - low) if sector is None else sector[low - start : high - start]
                data[low - offset : high - offset] = new
        return bytes(data)

    def read_piece(self, number: int) -> bytes:
        """Give a MiB of the file as it lies on disk, zeros after its end."""
        with self.path.open("rb") as file:
            file.seek(number * MIB)
            return file.read(MIB).ljust(MIB, b"\0")

    def read_header_and_log(self) -> None:
        """Choose the header with the greater sequence number and replay its log."""
        headers = [self.read(65536, 4096), self.read(131072, 4096)]
        headers_are_right = [h[:4] == b"head" and checksum_is_right(h) for h in headers]
        demand(all(headers_are_right), "bad header")
        numbers = [struct.unpack_from("<Q", header, 8)[0] for header in headers]
        demand(numbers[0] != numbers[1] or headers[0] == headers[1], "two current headers")
        current = headers[0] if numbers[0] >= numbers[1] else headers[1]
        log_version, version, log_length, log_offset = struct.unpack_from("<HHIQ", current, 64)
        demand(version == 1, "bad version")
        if current[48:64] != bytes(16):
            demand(log_version == 0 and log_length and log_offset, "bad log version or no log")
            demand(log_length % MIB == 0 and log_offset % MIB == 0, "bad place of the log")
            log = NaiveLog(self.read(log_offset, log_length), current[48:64])
            sequence = log.active_sequence()
            demand(self.size >= sequence[-1].flushed, "file is shorter than its log says")
            self.writes = [write for entry in sequence for write in entry.writes]
            ends = [offset + length for offset, length, _ in self.writes]
            self.size = max(self.size, sequence[-1].last, *ends)

    def read_regions(self) -> tuple[int, int, int, int]:
        """Give offset and length of the BAT, then of the metadata."""
        table = self.read(196608, 65536)
        demand(table[:4] == b"regi" and checksum_is_right(table), "bad region table")
        demand(table == self.read(262144, 65536), "region tables differ")
        places: dict[UUID, tuple[int, int]] = {}
        for i in range(struct.unpack_from("<I", table, 8)[0]):
            guid, offset, length, required = struct.unpack_from("<16sQII", table, 16 + 32 * i)
            region = UUID(bytes_le=guid)
            demand(region in (BAT, METADATA) or not required & 1, "unknown required region")
            demand(offset and offset % MIB == length % MIB == 0, "bad place of a region")
            demand(region not in places, "region twice")
            places[region] = (offset, length)
        demand(BAT in places and METADATA in places, "a region is missing")
        return places[BAT] + places[METADATA]

    def read_metadata(self, region_offset: int, region_length: int) -> None:
        table = self.read(region_offset, 65536)
        demand(table[:8] == b"metadata", "bad metadata table")
        items: dict[UUID, bytes] = {}
        for i in range(struct.unpack_from("<H", table, 10)[0]):
            guid, offset, length, flags = struct.unpack_from("<16sIII", table, 32 + 32 * i)
            demand(offset + length <= region_length, "item outside the region")
            if not flags & 1:
                items[UUID(bytes_le=guid)] = self.read(region_offset + offset, length)
        needed = {FILE_PARAMETERS, VIRTUAL_DISK_SIZE, LOGICAL_SECTOR_SIZE}
        demand(needed <= items.keys(), "a metadata item is missing")
        self.block_size, flags = struct.unpack("<II", items[FILE_PARAMETERS])
        self.disk_size = int.from_bytes(items[VIRTUAL_DISK_SIZE], "little")
        self.sector_size = int.from_bytes(items[LOGICAL_SECTOR_SIZE], "little")
        self.has_parent = bool(flags & 2)
        sizes_are_right = self.sector_size in (512, 4096) and self.disk_size % self.sector_size == 0
        demand(sizes_are_right and 0 < self.disk_size <= 64 << 40, "bad sizes")
        demand(self.block_size in [MIB << n for n in range(9)], "bad block size")
        demand(self.has_parent == (PARENT_LOCATOR in items), "flag and locator disagree")
        self.chunk_ratio = (1 << 23) * self.sector_size // self.block_size

    def bat_entry(self, index: int) -> int:
        demand(8 * index + 8 <= self.bat_length, "BAT too short")
        return int.from_bytes(self.read(self.bat_offset + 8 * index, 8), "little")

    def block(self, k: int) -> tuple[int, int]:
        entry = self.bat_entry(k + k // self.chunk_ratio)
        state, offset = entry & 7, entry & ~0xFFFFF
        demand(entry & 0xFFFF8 == 0, "reserved bits of a BAT entry")
        demand(state not in (4, 5), "reserved block state")
        demand(state < FULLY_PRESENT or offset >= MIB, "block in the header section")
        demand(state != PARTIALLY_PRESENT or self.has_parent, "partial block without parent")
        return state, offset

    def bit(self, sector: int) -> bool:
        chunk, sector_in_chunk = divmod(sector, 1 << 23)
        entry = self.bat_entry((chunk + 1) * self.chunk_ratio + chunk)
        demand(entry & 0xFFFFF == FULLY_PRESENT and entry >= MIB, "no sector bitmap")
        byte = self.read((entry & ~0xFFFFF) + sector_in_chunk // 8, 1)[0]
        return bool(byte & (1 << (sector_in_chunk % 8)))


class NaiveLog:
    def __init__(self, ring: bytes, guid: bytes) -> None:
        self.ring = ring
        self.guid = guid
        self.entry = lru_cache(None)(self.parse_entry)

    def active_sequence(self) -> list[Entry]:
        """Find the valid sequence with the newest head."""
        best: list[Entry] = []
        start = 0
        while start < len(self.ring):
            run = self.run(start)
            tails = [i for i, entry in enumerate(run) if entry.position == run[-1].tail]
            if tails and (not best or run[-1].sequence > best[-1].sequence):
                best = run[tails[0] :]
            start += sum(entry.length for entry in run) if tails else 4096
        demand(best, "dirty, but nothing valid in the log")
        return best

    def run(self, start: int) -> list[Entry]:
        """Collect adjacent entries with rising numbers."""
        run: list[Entry] = []
        used = 0
        while True:
            entry = self.entry((start + used) % len(self.ring))
            if entry is None or used + entry.length > len(self.ring):
                return run
            if run and entry.sequence != run[-1].sequence + 1:
                return run
            run.append(entry)
            used += entry.length

    def parse_entry(self, position: int) -> Entry | None:
        """Give the entry that starts there, if everything about it is right."""
        header = struct.unpack_from("<4s4xIIQ8x16sQQ", self.ring, position)
        signature, length, tail, sequence, guid, flushed, last = header
        if signature != b"loge" or guid != self.guid or sequence == 0:
            return None
        limit = len(self.ring)
        if length not in range(4096, limit + 1, 4096) or tail not in range(0, limit, 4096):
            return None
        body = (self.ring + self.ring[:position])[position : position + length]
        writes = self.entry_writes(body) if checksum_is_right(body) else None
        entry = Entry(position, length, tail, sequence, flushed, last, writes or [])
        return None if writes is None else entry

    def entry_writes(self, body: bytes) -> list[Write] | None:
        """Give (file offset, length, sector or None for zeros) of an entry; None: invalid."""
        sequence, count = struct.unpack_from("<QI", body, 16)
        data_at = -(-(64 + 32 * count) // 4096) * 4096
        halves = struct.pack("<II", sequence >> 32, sequence & 0xFFFFFFFF)
        writes: list[Write] = []
        for i in range(count if data_at <= len(body) else 0):
            descriptor = body[64 + 32 * i : 96 + 32 * i]
            length, offset, number = struct.unpack_from("<QQQ", descriptor, 8)
            sector: bytes | None = None
            if descriptor[:4] == b"desc":
                stored = body[data_at : data_at + 4096]
                if stored[:4] != b"data" or stored[4:8] + stored[4092:] != halves:
                    return None
                sector = descriptor[8:16] + stored[8:4092] + descriptor[4:8]
                length = 4096
                data_at += 4096
            elif descriptor[:4] != b"zero":
                return None
            if number != sequence or offset % 4096 or length % 4096 or offset < 192 << 10:
                return None
            writes.append((offset, length, sector))
        return writes if data_at <= len(body) else None


class NaiveDisk:
    """The virtual disk of a chain of files, child first."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.layers = [NaiveLayer(path) for path in paths]
        parents = [layer.has_parent for layer in self.layers]
        demand(parents == [True] * (len(paths) - 1) + [False], "the chain is not complete")
        self.size = self.layers[0].disk_size
        self.sector_size = self.layers[0].sector_size
        demand(len({layer.sector_size for layer in self.layers}) == 1, "sector sizes differ")

    def read(self, offset: int, length: int) -> bytes:
        demand(offset >= 0 and length >= 0 and offset + length <= self.size, "outside the disk")
        data = bytearray()
        while len(data) < length:
            position = offset + len(data)
            end = min(self.zero_until(position), offset + length)
            if end > position:
                data += bytes(end - position)
            else:
                number, start = divmod(position, self.sector_size)
                data += self.sector(number)[start : start + length - len(data)]
        return bytes(data)

    def sector(self, number: int) -> bytes:
        """Read one sector, from the topmost layer that determines it."""
        offset = number * self.sector_size
        for layer in self.layers:
            if offset >= layer.disk_size:
                break
            state, file_offset = layer.block(offset // layer.block_size)
            if state == FULLY_PRESENT or (state == PARTIALLY_PRESENT and layer.bit(number)):
                return layer.read(file_offset + offset % layer.block_size, self.sector_size)
            if state in (1, 2, 3):
                break
        return bytes(self.sector_size)

    def zero_until(self, offset: int) -> int:
        """Give the end of a range from `offset` on of which no file holds anything."""
        end = self.size
        for layer in self.layers:
            if offset >= layer.disk_size:
                break
            k = offset // layer.block_size
            state, _ = layer.block(k)
            if state >= FULLY_PRESENT:
                return offset
            end = min(end, (k + 1) * layer.block_size, layer.disk_size)
            if state != 0:
                break
        return end

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for offset in range(0, self.size, MIB):
            digest.update(self.read(offset, min(MIB, self.size - offset)))
        return digest.hexdigest()


def read_virtual_disk(paths: Sequence[Path], offset: int, length: int) -> bytes:
    return NaiveDisk(paths).read(offset, length)
