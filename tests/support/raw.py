"""Raw disks in files, with holes and bad sectors."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.builder import KIB, ImageSpec
from tests.support.real_images import unpack_real_image

__all__ = ["break_file", "raw_of", "unpack_real_image", "write_sparse"]


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


def break_file(monkeypatch: pytest.MonkeyPatch, path: Path, bad_offset: int) -> None:
    """Make every read that touches a byte of one file fail as on a bad disk."""
    bad = path.stat().st_ino
    real_preadv = os.preadv

    def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        length = sum(map(len, buffers))
        if os.fstat(descriptor).st_ino == bad and offset <= bad_offset < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
