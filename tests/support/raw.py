"""Raw disks in files, with holes and bad sectors."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import KIB, ImageSpec


def raw_of(spec: ImageSpec) -> bytearray:
    """Give the whole disk, to be changed."""
    return bytearray(spec.expected_disk(0, spec.virtual_disk_size))


def write_sparse(path: Path, data: bytes | bytearray) -> None:
    """Write a raw disk with a hole in place of every 4 KiB of zeros."""
    zeros = bytes(4 * KIB)
    with path.open("wb") as file:
        for start in range(0, len(data), len(zeros)):
            piece = data[start : start + len(zeros)]
            if not zeros.startswith(piece):
                file.seek(start)
                file.write(piece)
        file.truncate(len(data))


def break_file(monkeypatch: pytest.MonkeyPatch, path: Path, *bad: int | tuple[int, int]) -> None:
    """Make reads of one file fail where a disk would be bad.

    Args:
        monkeypatch: What undoes it.
        path: The file.
        bad: The offset of a byte, or (start, end) of a range.
    """
    broken = path.stat()
    real_preadv = os.preadv
    ranges = [(place, place + 1) if isinstance(place, int) else place for place in bad]

    def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        file_end = offset + sum(map(len, buffers))
        is_bad = any(start < file_end and offset < end for start, end in ranges)
        if is_bad and os.path.samestat(os.fstat(descriptor), broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
