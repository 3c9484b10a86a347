"""The footer that makes a fixed VHD of a raw disk (Virtual Hard Disk Image Format, version 1.0)."""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID

from vhdx2raw.units import GIB, MIB, ceil_div

FOOTER_SIZE: Final = 512
SECTOR_SIZE: Final = 512
MAX_SIZE: Final = 2040 * GIB
SIZE_UNIT: Final = MIB
"""What Azure wants the size of a disk to be a multiple of."""
EPOCH: Final = 946684800
"""2000-01-01 in UTC, in seconds since 1970."""
FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
"""Cookie, features, version, data offset, time, creator application, its version and its host,
original size, current size, cylinders, heads, sectors a track, type, checksum, unique id, state."""
COOKIE: Final = b"conectix"
NO_FEATURES, FORMAT_VERSION, NO_OFFSET, FIXED = 2, 0x00010000, 0xFFFFFFFFFFFFFFFF, 2
CREATOR: Final = b"win "
"""Programs take the size from the footer if this is known to them, else from the geometry, in which
most sizes do not fit: so it is that of Hyper-V, which is what QEMU and others look for."""
CREATOR_VERSION: Final = 0x000A0000
CREATOR_HOST: Final = b"Wi2k"
CHECKSUM_PLACE: Final = 64
MAX_CYLINDERS: Final = 1024
MAX_HEADS: Final = 16


def make_footer(size: int, created: int, unique_id: UUID) -> bytes:
    """Return the footer of a fixed disk.

    Args:
        size: Bytes of the disk.
        created: When it was made, in seconds since 1970.
        unique_id: What distinguishes it from others.
    """
    creator = CREATOR, CREATOR_VERSION, CREATOR_HOST
    created = min(max(0, created - EPOCH), 0xFFFFFFFF)
    footer = FOOTER.pack(
        *(COOKIE, NO_FEATURES, FORMAT_VERSION, NO_OFFSET, created, *creator),
        *(size, size, *geometry_of(size), FIXED, 0, unique_id.bytes, 0),
    ).ljust(FOOTER_SIZE, b"\0")
    checksum = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    return footer[:CHECKSUM_PLACE] + checksum + footer[CHECKSUM_PLACE + len(checksum) :]


def geometry_of(size: int) -> tuple[int, int, int]:
    """Return cylinders, heads and sectors a track, by the appendix of the format."""
    sectors = min(size // SECTOR_SIZE, 65535 * MAX_HEADS * 255)
    if sectors >= 65535 * MAX_HEADS * 63:
        return sectors // 255 // MAX_HEADS, MAX_HEADS, 255
    track = 17
    heads = max(4, ceil_div(sectors // track, MAX_CYLINDERS))
    if sectors // track >= heads * MAX_CYLINDERS or heads > MAX_HEADS:
        track, heads = 31, MAX_HEADS
    if sectors // track >= heads * MAX_CYLINDERS:
        track, heads = 63, MAX_HEADS
    return sectors // track // heads, heads, track
