"""A file as its pages that are not zero: cheap to copy, to spoil and to write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096
ZEROS = bytes(PAGE)


class SparseFile:
    """The bytes of a file, which may be far longer than what it holds."""

    def __init__(self, size: int = 0, pages: dict[int, bytes] | None = None) -> None:
        self.size = size
        self.pages = {} if pages is None else pages

    @classmethod
    def load(cls, path: Path) -> SparseFile:
        """Read a file that has holes where it is zero."""
        loaded = cls(path.stat().st_size)
        with path.open("rb") as file:
            position = 0
            while position < loaded.size:
                try:
                    position = os.lseek(file.fileno(), position, os.SEEK_DATA)
                except OSError:  # nothing but a hole up to the end
                    break
                position -= position % PAGE
                loaded._put(position // PAGE, os.pread(file.fileno(), PAGE, position))
                position += PAGE
        return loaded

    def copy(self) -> SparseFile:
        return SparseFile(self.size, dict(self.pages))

    def _put(self, number: int, page: bytes) -> None:
        page = page.ljust(PAGE, b"\0")
        if page == ZEROS:
            self.pages.pop(number, None)
        else:
            self.pages[number] = page

    def read(self, offset: int, length: int) -> bytes:
        """Give `length` bytes, zeros where the file holds nothing or has ended."""
        data = bytearray()
        position = offset
        while position < offset + length:
            page = self.pages.get(position // PAGE, ZEROS)
            part = page[position % PAGE :][: offset + length - position]
            data += part
            position += len(part)
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at their place; those past the end of the file are dropped."""
        data = data[: max(0, self.size - offset)]
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, PAGE)
            part = data[done : done + PAGE - start]
            page = self.pages.get(number, ZEROS)
            self._put(number, page[:start] + part + page[start + len(part) :])
            done += len(part)

    def truncate(self, size: int) -> None:
        """Cut the file off, or make it longer with a hole."""
        if size < self.size:
            last, kept = divmod(size, PAGE)
            tail = self.pages.get(last, ZEROS)[:kept]
            self.pages = {number: page for number, page in self.pages.items() if number < last}
            self._put(last, tail)
        self.size = size

    def numbers_between(self, offset: int, end: int) -> list[int]:
        """Give the numbers of the pages that hold something in a range of the file."""
        return sorted(n for n in self.pages if offset <= n * PAGE < end)

    def data_runs(self) -> Iterator[tuple[int, bytes]]:
        """Give (offset, bytes) of what is not zero."""
        run: list[bytes] = []
        first = 0
        for number in sorted(self.pages):
            if run and number != first + len(run):
                yield first * PAGE, b"".join(run)
                run = []
            if not run:
                first = number
            run.append(self.pages[number])
        if run:
            yield first * PAGE, b"".join(run)

    def store(self, path: Path) -> None:
        """Write the file, sparse, in place of what is there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.ftruncate(descriptor, self.size)
            for offset, data in self.data_runs():
                os.pwrite(descriptor, data[: self.size - offset], offset)
        finally:
            os.close(descriptor)
