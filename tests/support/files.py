"""Files and folders looked at from outside: names, hashes, and whether two disks are the same."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

from tests.support.builder import MIB, ImageSpec

ZEROS = bytes(MIB)


def write_files(folder: Path, files: Mapping[str, ImageSpec | bytes]) -> Path:
    """Write images and other files by their names; give the path of the first one."""
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(file, ImageSpec):
            file.write(path)
        else:
            path.write_bytes(file)
    return folder / next(iter(files))


def names_in(folder: Path) -> list[str]:
    """List a folder, hidden names too."""
    return sorted(path.name for path in folder.iterdir())


def open_files() -> set[str]:
    """Give the files that this process has open, by path; sockets come and go by themselves."""
    opened = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are enough
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            opened.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return {name for name in opened if name.startswith("/")}


def data_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give (offset, bytes) of all that is not zero in a file, by MiB, without reading its holes."""
    with path.open("rb") as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return
            position = start - start % MIB
            data = os.pread(file.fileno(), MIB, position)
            if not ZEROS.startswith(data):
                yield position, data
            position += MIB


def stored_ranges(path: Path) -> list[tuple[int, int]]:
    """Give (start, end) of what is no hole of a file, as the kernel says."""
    ranges: list[tuple[int, int]] = []
    with path.open("rb") as file:
        size, end = os.fstat(file.fileno()).st_size, 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            ranges.append((start, end))
    return ranges


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file."""
    digest = hashlib.sha256()
    position = 0
    for offset, data in chain(data_of(path), [(path.stat().st_size, b"")]):
        while position < offset:
            length = min(len(ZEROS), offset - position)
            digest.update(ZEROS[:length])
            position += length
        digest.update(data)
        position += len(data)
    return digest.hexdigest()


def has_expected_bytes(path: Path, spec: ImageSpec) -> bool:
    """Return whether a file holds exactly the disk of `spec`."""
    return (
        path.stat().st_size == spec.virtual_disk_size and sha256_of(path) == spec.expected_sha256()
    )


def assert_same_disk(*paths: Path) -> None:
    """Compare raw disks byte for byte, in the time that their data takes."""
    first = paths[0]
    for other in paths[1:]:
        assert other.stat().st_size == first.stat().st_size
        pieces, other_pieces = dict(data_of(first)), dict(data_of(other))
        places = sorted(pieces.keys() | other_pieces.keys())
        wrong = [hex(place) for place in places if pieces.get(place) != other_pieces.get(place)]
        assert wrong == [], f"{other.name} differs from {first.name}"
