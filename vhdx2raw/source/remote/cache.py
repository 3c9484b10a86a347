"""What was read of any file a little ago and is likely to be read again: tables, mostly."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from vhdx2raw.units import MIB

CACHE_SIZE = 16 * MIB
"""Bytes that are kept of all files."""


class Cache:
    """Pieces of files, the least recently used of which go. Any thread may use it."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[tuple[int, int], memoryview] = OrderedDict()
        self._size = 0
        self._changing = Lock()

    def put(self, file: int, start: int, data: memoryview) -> None:
        """Keep what stands at an offset of a file, which is known by a number."""
        with self._changing:
            self._drop((file, start))
            self._pieces[file, start] = data
            self._size += len(data)
            while self._size > CACHE_SIZE:
                self._drop(next(iter(self._pieces)))

    def find(self, file: int, place: int) -> memoryview | None:
        """Return what is known of a file from an offset on."""
        with self._changing:
            for (owner, start), data in self._pieces.items():
                if owner == file and start <= place < start + len(data):
                    self._pieces.move_to_end((owner, start))
                    return data[place - start :]
        return None

    def forget(self, file: int) -> None:
        """Drop all of a file."""
        with self._changing:
            for key in [key for key in self._pieces if key[0] == file]:
                self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        self._size -= len(self._pieces.pop(key, b""))
