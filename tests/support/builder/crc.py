"""CRC-32C over a structure whose checksum field counts as zero (MS-VHDX section 2)."""

import struct

import crc32c as _crc32c

CHECKSUM_OFFSET = 4
"""Every checksummed structure has its checksum at this offset."""


def crc32c(data: bytes | bytearray) -> int:
    """Give the plain CRC-32C of some bytes."""
    return _crc32c.crc32c(bytes(data))


def checksum_of(structure: bytes | bytearray, covered: int | None = None) -> int:
    """Give the checksum of the first `covered` bytes, the checksum field taken as zero.

    Bytes that are covered but missing count as zero.
    """
    covered = len(structure) if covered is None else covered
    bare = bytearray(structure[:covered].ljust(covered, b"\0"))
    bare[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = bytes(4)
    return crc32c(bare[:covered])


def seal(structure: bytearray, override: int | None, covered: int | None = None) -> bytes:
    """Put the checksum into its field: the right one, or the given one."""
    checksum = checksum_of(structure, covered) if override is None else override
    struct.pack_into("<I", structure, CHECKSUM_OFFSET, checksum)
    return bytes(structure)
