"""What a file is that is no VHDX, by the signatures of what people mistake for one."""

from __future__ import annotations

import re
from typing import Final

from vhdx2raw.errors import CUT_OFF
from vhdx2raw.source.base import Source

FILE_SIGNATURE: Final = b"vhdxfile"
"""What a VHDX begins with (MS-VHDX 2.2.1)."""
VHD_SIGNATURE: Final = b"conectix"
QEMU_REMEDY: Final = "use qemu-img"
IMAGE_SIGNATURES: Final = (
    (0, VHD_SIGNATURE, "legacy VHD", "convert it to VHDX first, or use a tool that reads VHD"),
    (0, b"QFI\xfb", "qcow2", QEMU_REMEDY),
    (0, b"QED\0", "QED", QEMU_REMEDY),
    (0, b"KDMV", "VMDK", QEMU_REMEDY),
    (0, b"COWD", "VMDK", QEMU_REMEDY),
    (64, b"\x7f\x10\xda\xbe", "VDI", QEMU_REMEDY),
    (0, b"WithoutFreeSpace", "Parallels", QEMU_REMEDY),
    (0, b"WithouFreSpacExt", "Parallels", QEMU_REMEDY),
)
"""Other formats for disk images: where their signature stands, it, their name, what to do."""
ARCHIVE_SIGNATURES: Final = (
    (b"\x1f\x8b", "a gzip archive", "decompress it first"),
    (b"BZh", "a bzip2 archive", "decompress it first"),
    (b"\xfd7zXZ\x00", "an xz archive", "decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "decompress it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
)
"""What else a file that is no VHDX may begin with, what that is, and what to do about it."""
VHD_FOOTER_SIZE: Final = 512
"""Where at the end of a legacy VHD its signature stands; a fixed one has it nowhere else."""
BOOT_SIGNATURE: Final = b"\x55\xaa"
"""The last two bytes of the first sector of a disk with an MBR or of many file systems."""

_VMDK_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n")
"""What QEMU takes for the text of a VMDK."""


def name_image_format(start: bytes) -> str:
    """Return which format for disk images some bytes are in, such as ``qcow2``; else nothing.

    A raw disk that begins like this may be taken for such an image by programs that guess, and
    a guest can write there what it likes.

    Args:
        start: The first bytes of a file or of a disk, a sector or more.
    """
    if start.startswith(FILE_SIGNATURE):
        return "VHDX"
    for offset, signature, name, _ in IMAGE_SIGNATURES:
        if start.startswith(signature, offset):
            return name
    return "VMDK" if _VMDK_DESCRIPTOR.match(start) else ""


def name_foreign_format(source: Source, start: bytes) -> tuple[str, str]:
    """Return what the file is and what to do about it."""
    if not start:
        return "empty", CUT_OFF
    if start.startswith(FILE_SIGNATURE):
        return f"only {source.size} bytes long", CUT_OFF
    footer = source.pread(max(0, source.size - VHD_FOOTER_SIZE), min(source.size, VHD_FOOTER_SIZE))
    known = _name_by_signature(start, footer)
    if known:
        return known
    if source.name.lower().endswith(".vhds"):
        return "a VHD Set (.vhds)", "its data lies in the .avhdx file beside it; convert that one"
    if start[510:512] == BOOT_SIGNATURE:
        return "a disk with a boot sector", "it seems to be a raw image already"
    return "something else", f"a VHDX begins with the text {FILE_SIGNATURE.decode()}"


def _name_by_signature(start: bytes, footer: bytes) -> tuple[str, str] | None:
    for offset, signature, name, remedy in IMAGE_SIGNATURES:
        if start.startswith(signature, offset) or (
            signature == VHD_SIGNATURE and signature in footer
        ):
            return f"a {name} image", remedy
    for signature, kind, remedy in ARCHIVE_SIGNATURES:
        if start.startswith(signature):
            return kind, remedy
    return None
