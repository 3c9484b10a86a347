"""What a file is that is no VHDX, by the signatures of what people mistake for one."""

from __future__ import annotations

from typing import Final

from vhdx2raw.errors import TRUNCATED_HINT
from vhdx2raw.source import Source
from vhdx2raw.structures import FILE_SIGNATURE

VHD_SIGNATURE: Final = b"conectix"
QEMU_HINT: Final = "use qemu-img"
IMAGE_SIGNATURES: Final = (
    (0, VHD_SIGNATURE, "legacy VHD", "convert it to VHDX first, or use a tool that reads VHD"),
    (0, b"QFI\xfb", "qcow2", QEMU_HINT),
    (0, b"QED\0", "QED", QEMU_HINT),
    (0, b"KDMV", "VMDK", QEMU_HINT),
    (0, b"COWD", "VMDK", QEMU_HINT),
    (64, b"\x7f\x10\xda\xbe", "VDI", QEMU_HINT),
    (0, b"WithoutFreeSpace", "Parallels", QEMU_HINT),
    (0, b"WithouFreSpacExt", "Parallels", QEMU_HINT),
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


def name_foreign_format(source: Source, start: bytes) -> tuple[str, str]:
    """Return what the file is and what to do about it."""
    if not start:
        return "empty", TRUNCATED_HINT
    if start.startswith(FILE_SIGNATURE):
        return f"only {source.size} bytes long", TRUNCATED_HINT
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
    for offset, signature, name, hint in IMAGE_SIGNATURES:
        if start.startswith(signature, offset) or (
            signature == VHD_SIGNATURE and signature in footer
        ):
            return f"a {name} image", hint
    for signature, kind, hint in ARCHIVE_SIGNATURES:
        if start.startswith(signature):
            return kind, hint
    return None
