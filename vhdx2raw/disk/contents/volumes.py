"""What begins at a place of a disk: a file system or the like, by a table of signatures."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from vhdx2raw.source.formats import BOOT_SIGNATURE
from vhdx2raw.units import KIB
from vhdx2raw.vhdx.layout import GUID_SIZE

PAGE_SIZE: Final = 4 * KIB
SECTOR: Final = 512


class Disk(Protocol):
    """The bytes of a disk, such as a `VirtualDisk`."""

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        ...

    def pread(self, size: int, offset: int, /) -> bytes:
        """Read `size` bytes at an offset, fewer only at the end of the disk."""
        ...


class Usage(str, Enum):
    """What a volume is for."""

    FILE_SYSTEM = "filesystem"
    SWAP = "swap"
    CONTAINER = "container"
    ENCRYPTED = "encrypted"


class Volume(NamedTuple):
    """What begins at a place of a disk.

    Attributes:
        kind: Its name, such as ``ext4`` or ``LVM2 physical volume``.
        usage: What it is for; a container holds volumes or parts of them.
        label: Its label, as it was written: it may hold control characters.
        uuid: Its UUID, where that is simple to find.
        owns_boot_sector: Whether its signature lies where a partition table would.
        needs_recovery: Whether its journal holds updates, as far as that is simple to find.
    """

    kind: str
    usage: Usage
    label: str
    uuid: str
    owns_boot_sector: bool
    needs_recovery: bool = False


class Window:
    """A part of a disk; what was read is kept, and beyond the end there is nothing."""

    def __init__(self, disk: Disk, start: int, end: int) -> None:
        self._disk = disk
        self._start = start
        self._end = min(end, disk.size)
        self._pages: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Read at an offset within the window, fewer bytes at its end."""
        first, last = offset // PAGE_SIZE, (offset + length - 1) // PAGE_SIZE
        pages = b"".join(self._page(index) for index in range(first, last + 1))
        start = offset - first * PAGE_SIZE
        return pages[start : start + length]

    def integer(self, offset: int, length: int) -> int:
        """Read a little-endian number."""
        return int.from_bytes(self.read(offset, length), "little")

    def _page(self, index: int) -> bytes:
        if index not in self._pages:
            place = self._start + index * PAGE_SIZE
            length = max(0, min(PAGE_SIZE, self._end - place))
            self._pages[index] = self._disk.pread(length, place) if length else b""
        return self._pages[index]


class Signature(NamedTuple):
    """How one kind of volume is recognized.

    Attributes:
        kind: Its name.
        usage: What it is for.
        offset: Where its signature lies in the volume, in bytes.
        magic: The signature.
        label: Offset and length of its label, in UTF-8.
        uuid: Offset of its UUID.
        name: Turns the kind into the exact name, or into nothing if it is something else after all.
    """

    kind: str
    usage: Usage
    offset: int
    magic: bytes
    label: tuple[int, int] | None = None
    uuid: int | None = None
    name: Callable[[Window, str], str] | None = None


def _name_ext(window: Window, _kind: str) -> str:
    """Distinguish ext2, ext3 and ext4 apart by their features, as the programs of util-linux do."""
    compatible, incompatible, read_only = (window.integer(0x45C + 4 * i, 4) for i in range(3))
    has_journal, is_journal = compatible & 0x4, incompatible & 0x8
    if is_journal:
        return "ext journal"
    if incompatible & ~0x16 or read_only & ~0x7:
        return "ext4"
    return "ext3" if has_journal else "ext2"


def _name_fat(window: Window, kind: str) -> str:
    """Check what every FAT has in its first sector: its own text could stand anywhere."""
    sector_size, cluster_sectors = window.integer(11, 2), window.integer(13, 1)
    reserved_sectors, fat_count = window.integer(14, 2), window.integer(16, 1)
    is_fat = (
        window.read(0, 1) in (b"\xeb", b"\xe9")
        and sector_size in (512, 1024, 2048, 4096)
        and cluster_sectors.bit_count() == 1
        and reserved_sectors > 0
        and fat_count in (1, 2)
        and window.read(510, 2) == BOOT_SIGNATURE
    )
    return kind if is_fat else ""


_FILE_SYSTEM, _CONTAINER = Usage.FILE_SYSTEM, Usage.CONTAINER
_SWAP, _ENCRYPTED = Usage.SWAP, Usage.ENCRYPTED
_BITLOCKER_TO_GO: Final = UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
_LVM: Final = "LVM2 physical volume"

SIGNATURES: Final = (
    Signature("LUKS", _ENCRYPTED, 0, b"LUKS\xba\xbe"),
    Signature("BitLocker", _ENCRYPTED, 3, b"-FVE-FS-"),
    Signature("BitLocker", _ENCRYPTED, 424, _BITLOCKER_TO_GO),
    Signature("NTFS", _FILE_SYSTEM, 3, b"NTFS    "),
    Signature("ReFS", _FILE_SYSTEM, 3, b"ReFS\0\0\0\0"),
    Signature("exFAT", _FILE_SYSTEM, 3, b"EXFAT   "),
    Signature("FAT32", _FILE_SYSTEM, 82, b"FAT32   ", (71, 11), name=_name_fat),
    Signature("FAT16", _FILE_SYSTEM, 54, b"FAT16   ", (43, 11), name=_name_fat),
    Signature("FAT12", _FILE_SYSTEM, 54, b"FAT12   ", (43, 11), name=_name_fat),
    Signature("XFS", _FILE_SYSTEM, 0, b"XFSB", (108, 12), 32),
    Signature("squashfs", _FILE_SYSTEM, 0, b"hsqs"),
    Signature("APFS", _FILE_SYSTEM, 32, b"NXSB"),
    *(Signature(_LVM, _CONTAINER, sector * SECTOR, b"LABELONE") for sector in (1, 0, 2, 3)),
    Signature("EROFS", _FILE_SYSTEM, 1024, b"\xe2\xe1\xf5\xe0", (1088, 16), 1072),
    Signature("F2FS", _FILE_SYSTEM, 1024, b"\x10\x20\xf5\xf2"),
    Signature("HFS+", _FILE_SYSTEM, 1024, b"H+\0\4"),
    Signature("ext", _FILE_SYSTEM, 1080, b"\x53\xef", (1144, 16), 1128, _name_ext),
    Signature("swap", _SWAP, 4086, b"SWAPSPACE2", (1052, 16), 1036),
    Signature("swap", _SWAP, 65526, b"SWAPSPACE2", (1052, 16), 1036),
    Signature("Linux RAID member", _CONTAINER, 4096, b"\xfc\x4e\x2b\xa9", (4128, 32), 4112),
    Signature("ZFS member", _CONTAINER, 16404, b"\0\0\0\x07version\0"),
    Signature("ISO 9660", _FILE_SYSTEM, 32769, b"CD001", (32808, 32)),
    Signature("Btrfs", _FILE_SYSTEM, 65600, b"_BHRfS_M", (65835, 256), 65568),
)
"""What is recognized, the most certain first. Rows with a low offset own the boot sector."""


def identify_volume(disk: Disk, start: int, end: int) -> Volume | None:
    """Return what begins at `start` of a disk and ends before `end`, or None if it is unknown."""
    window = Window(disk, start, end)
    for signature in SIGNATURES:
        if window.read(signature.offset, len(signature.magic)) != signature.magic:
            continue
        kind = signature.name(window, signature.kind) if signature.name else signature.kind
        if kind:
            label, uuid = _read_label(window, signature), _read_uuid(window, signature)
            is_first = signature.offset < SECTOR
            return Volume(kind, signature.usage, label, uuid, is_first, _is_dirty(window, kind))
    return None


def _is_dirty(window: Window, kind: str) -> bool:
    """Return whether the journal of an ext3 or ext4 is to be replayed (INCOMPAT_RECOVER)."""
    return kind in ("ext3", "ext4") and bool(window.integer(0x460, 4) & 0x4)


def _read_label(window: Window, signature: Signature) -> str:
    raw = window.read(*signature.label) if signature.label else b""
    label = raw.partition(b"\0")[0].decode("utf-8", errors="replace").rstrip(" ")
    return "" if label == "NO NAME" else label  # what FAT says when it has none


def _read_uuid(window: Window, signature: Signature) -> str:
    raw = window.read(signature.uuid, GUID_SIZE) if signature.uuid is not None else b""
    return str(UUID(bytes=raw)) if len(raw) == GUID_SIZE else ""
