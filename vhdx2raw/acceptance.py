"""Whether an opened disk is acceptable to whoever asked for it, before anything is written."""

from __future__ import annotations

from vhdx2raw.chain import Chain
from vhdx2raw.contents import name_image_format
from vhdx2raw.disk import VirtualDisk
from vhdx2raw.errors import CorruptImageError, Finding, UnsupportedImageError

START_SIZE = 4096
REPLAYED_LOG = "R119"
"""A warning that there is an option of its own for."""


def require_acceptable(
    chain: Chain, *, strict: bool = False, max_virtual_disk_size: int | None = None
) -> tuple[tuple[str, Finding], ...]:
    """Refuse a disk that is against the wishes of the user; return the warnings about it.

    Args:
        chain: The disk.
        strict: Whether to refuse what is only worth a warning, except that a log was replayed.
        max_virtual_disk_size: Most bytes that the disk may have.

    Raises:
        UnsupportedImageError: It is longer than that, or would be taken for another format.
        CorruptImageError: There is a warning about a file of it.
        OSError: The host could not read.
    """
    name, size = chain.child.source.name, chain.virtual_disk_size
    if max_virtual_disk_size is not None and size > max_virtual_disk_size:
        facts = f"{size} bytes", f"at most {max_virtual_disk_size}"
        finding = Finding("R66", "disk", "is larger than is allowed here", "2.6.2.2", None, *facts)
        raise UnsupportedImageError(finding, path=name)
    warnings = chain.warnings
    for file, warning in warnings:
        if strict and warning.rule != REPLAYED_LOG:
            raise CorruptImageError(warning, path=file, hint=STRICT_HINT)
    lookalike = _find_lookalike(chain)
    if lookalike and strict:
        raise UnsupportedImageError(lookalike, path=name, hint=STRICT_HINT)
    return (*warnings, (name, lookalike)) if lookalike else warnings


STRICT_HINT = "without --strict this is a warning"


def _find_lookalike(chain: Chain) -> Finding | None:
    """Look at the start of the disk, where a guest can write whatever it likes."""
    start = VirtualDisk(chain, owns_chain=False).pread(0, START_SIZE)
    format_name = name_image_format(start)
    if not format_name:
        return None
    problem = (
        f"begins like a {format_name} image, so that a program which guesses the format of the raw"
        " image may be misled: tell it that the format is raw"
    )
    return Finding("R117", "disk", problem)
