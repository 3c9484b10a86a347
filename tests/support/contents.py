"""Disks for the tests of what lies inside: files, bytes made by hand, partition tables."""

import shutil
import struct
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import KIB, MIB
from tests.support.peers import needs_program
from vhdx2raw.disk.contents import Contents, read_contents

UUID_TEXT = "11111111-2222-3333-4444-555555555555"
UUID_BYTES = UUID(UUID_TEXT).bytes
LINUX = UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
EFI = UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
DISK_GUID = UUID("deadbeef-0000-4000-8000-000000000001")
IN_CI = {"sfdisk", "fdisk", "mke2fs", "mkfs.xfs", "mkfs.btrfs", "mkswap"}
BOOT_MARK = {510: b"\x55\xaa"}


def require_program(program: str) -> None:
    """Skip a test whose program is missing; fail if CI has to have it."""
    if program in IN_CI:
        needs_program(program)
    elif shutil.which(program) is None:
        pytest.skip(f"{program} not found")


def call(*command: str | Path, text: str = "") -> str:
    """Run a program, which has to succeed."""
    require_program(str(command[0]))
    done = subprocess.run(
        list(map(str, command)), input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class FileDisk:
    """A raw file as a disk."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def pread(self, size: int, offset: int, /) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass
class MadeDisk:
    """Some bytes on a disk of any size, zero elsewhere; what is read is counted."""

    size: int
    pieces: Mapping[int, bytes] = field(default_factory=dict)
    read_bytes: int = 0

    def pread(self, size: int, offset: int, /) -> bytes:
        assert offset >= 0
        assert 0 <= size <= 16 * KIB
        size = max(0, min(size, self.size - offset))
        self.read_bytes += size
        data = bytearray(size)
        for start, piece in self.pieces.items():
            low, high = max(offset, start), min(offset + size, start + len(piece))
            if low < high:
                data[low - offset : high - offset] = piece[low - start : high - start]
        return bytes(data)


def contents_of(
    pieces: Mapping[int, bytes], size: int = 64 * MIB, sector_size: int = 512
) -> Contents:
    return read_contents(MadeDisk(size, pieces), sector_size)


def places(contents: Contents) -> list[tuple[int, int, int]]:
    """Give number, start and size of each partition."""
    assert contents.table
    return [(part.number, part.start, part.size) for part in contents.table.partitions]


def record(*entries: tuple[int, int, int], status: int = 0) -> bytes:
    """Make a boot record from entries of (type, start, count), in sectors."""
    table = b"".join(struct.pack("<B3xB3xII", status, *entry) for entry in entries)
    return bytes(440) + b"\x78\x56\x34\x12\0\0" + table.ljust(64, b"\0") + b"\x55\xaa"


PROTECTIVE = record((0xEE, 1, 0xFFFFFFFF))
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
Row = tuple[UUID, int, int, str]


def gpt_header(
    table: bytes,
    own: int,
    other: int,
    table_sector: int,
    /,
    **fields: Any,  # noqa: ANN401 - those of the header
) -> bytes:
    """Make a header with a right checksum; `fields` are wrong ones."""
    values = {
        "signature": b"EFI PART",
        "revision": 0x10000,
        "header_size": 92,
        "checksum": 0,
        "reserved": 0,
        "own": own,
        "other": other,
        "first": 34,
        "last": 1000,
        "guid": DISK_GUID.bytes_le,
        "table_sector": table_sector,
        "count": len(table) // 128,
        "entry_size": 128,
        "table_checksum": zlib.crc32(table),
    }
    checksum = fields.pop("checksum", None)
    values |= fields
    packed = bytearray(HEADER.pack(*values.values()))
    packed[16:20] = struct.pack("<I", zlib.crc32(packed) if checksum is None else checksum)
    return bytes(packed)


def gpt(
    *rows: Row,
    size: int = 64 * MIB,
    sector_size: int = 512,
    **fields: Any,  # noqa: ANN401 - those of the header
) -> dict[int, bytes]:
    """Make a GPT with its copy; `fields` are wrong ones of the primary header."""
    entries = b"".join(
        guid.bytes_le
        + UUID(int=index).bytes_le
        + struct.pack("<QQQ", first, last, 0)
        + name.encode("utf-16-le").ljust(72, b"\0")
        for index, (guid, first, last, name) in enumerate(rows, 1)
    )
    table = entries.ljust(128 * 128, b"\0")
    end = size // sector_size - 1
    backup_table = end - len(table) // sector_size
    return {
        0: PROTECTIVE,
        sector_size: gpt_header(table, 1, end, 2, **fields),
        2 * sector_size: table,
        backup_table * sector_size: table,
        end * sector_size: gpt_header(table, end, 1, backup_table),
    }
