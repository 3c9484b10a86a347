"""Checkpoints beside a file: whoever converts the base of a VM may want its newest state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import PureWindowsPath
from uuid import UUID

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.found import FoundImage, read_found_image
from vhdx2raw.errors import ImageError
from vhdx2raw.source.base import Source
from vhdx2raw.source.file import identity_of
from vhdx2raw.vhdx.log import LogPolicy

SUFFIX = ".avhdx"
"""That of the checkpoints that Hyper-V makes; other children are disks in their own right."""
MAX_ENTRIES = 10_000
MAX_CHECKPOINTS = 256
"""Entries of the folder, and files in it, that are looked at."""
HEADERS_ONLY = OpenOptions(log_policy=LogPolicy.IGNORE)
"""What is only named in a warning is not worth reading a log."""


def find_newest(source: Source, data_write_guid: UUID) -> str | None:
    """Return the name of the newest file that was made from a file or its children, if any.

    Only the headers and parent locators of files in its own folder are read.

    Args:
        source: The file; beside one without a name of the host nothing is looked for.
        data_write_guid: Of its current header.
    """
    try:
        if identity_of(os.stat(source.name)) != source.identity:  # noqa: PTH116 - no Path is needed
            return None
        checkpoints = list(_iter_checkpoints(source.name))
    except (OSError, ValueError):  # what cannot be looked at is no reason to fail
        return None
    name, newest = os.path.basename(source.name), None  # noqa: PTH119
    while checkpoints:
        children = [
            checkpoint
            for checkpoint in checkpoints
            if data_write_guid in checkpoint.linkages
            or name.casefold() in _parent_names(checkpoint)
        ]
        if not children:
            break
        newest = max(children, key=lambda child: child.modified_ns)
        checkpoints.remove(newest)
        name, data_write_guid = os.path.basename(newest.path), newest.data_write_guid  # noqa: PTH119
    return name if newest else None


def _iter_checkpoints(path: str) -> Iterator[FoundImage]:
    """Yield the checkpoints in the folder of a file, those that begin like its name first."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].casefold()  # noqa: PTH122
    with os.scandir(folder or os.curdir) as entries:
        names = [
            entry.name
            for entry in islice(entries, MAX_ENTRIES)
            if entry.name.casefold().endswith(SUFFIX) and entry.name != name and entry.is_file()
        ]
    names.sort(key=lambda other: (not other.casefold().startswith(stem), other))
    for other in names[:MAX_CHECKPOINTS]:
        try:
            yield read_found_image(os.path.join(folder, other), HEADERS_ONLY)  # noqa: PTH118
        except (ImageError, OSError):  # noqa: PERF203 - a file is slow anyway
            continue  # no checkpoint that could be used


def _parent_names(image: FoundImage) -> frozenset[str]:
    locator = image.metadata.parent_locator
    paths = locator.paths.values() if locator else ()
    return frozenset(PureWindowsPath(path).name.casefold() for path in paths)
