"""CRC-32C: that of the compiled package crc32c or, where there is none, a slow one in Python."""

from __future__ import annotations

import struct
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Final, Protocol

REVERSED_POLYNOMIAL: Final = 0x82F63B78
"""Of Castagnoli, as RFC 3720 has it, the lowest bit first."""
ALL_ONES: Final = 0xFFFF_FFFF
EIGHT_BYTES: Final = struct.Struct("<II")


class Crc(Protocol):
    """A function that computes it."""

    def __call__(self, data: bytes, value: int = 0, /) -> int:
        """Return the CRC-32C of `data` after something else whose CRC-32C is `value`."""
        ...


def slow_crc32c(data: bytes, value: int = 0, /) -> int:
    """Return what `crc32c` does, some hundred times slower: eight bytes a step."""
    crc = value ^ ALL_ONES
    t0, t1, t2, t3, t4, t5, t6, t7 = _tables()
    whole = len(data) - len(data) % EIGHT_BYTES.size
    for low, high in EIGHT_BYTES.iter_unpack(data[:whole]):
        mixed = low ^ crc
        crc = (
            t7[mixed & 0xFF]
            ^ t6[mixed >> 8 & 0xFF]
            ^ t5[mixed >> 16 & 0xFF]
            ^ t4[mixed >> 24]
            ^ t3[high & 0xFF]
            ^ t2[high >> 8 & 0xFF]
            ^ t1[high >> 16 & 0xFF]
            ^ t0[high >> 24]
        )
    for byte in data[whole:]:
        crc = crc >> 8 ^ t0[(crc ^ byte) & 0xFF]
    return crc ^ ALL_ONES


def _tables() -> list[list[int]]:
    """Return, by the number of zero bytes that follow, what each byte does to the checksum."""
    if not _known_tables:
        table = list(range(256))
        for _ in range(8):
            table = [crc >> 1 ^ (REVERSED_POLYNOMIAL if crc & 1 else 0) for crc in table]
        _known_tables.append(table)
        for _ in range(7):
            _known_tables.append([crc >> 8 ^ table[crc & 0xFF] for crc in _known_tables[-1]])
    return _known_tables


_known_tables: list[list[int]] = []


def _load_extension() -> Crc | None:
    """Return the function of the extension within the package crc32c, without the package.

    The package looks up its own version when it is imported, which takes a tenth of the time of a
    short run of the program.
    """
    package = PathFinder.find_spec("crc32c")
    if package is None:
        return None
    extension = PathFinder.find_spec("crc32c._crc32c", package.submodule_search_locations)
    if extension is None or extension.loader is None:
        return None
    module = module_from_spec(extension)
    extension.loader.exec_module(module)
    function: Crc = module.crc32c
    return function


def _load_package() -> Crc | None:
    """Return the function of the package crc32c as it is meant to be found."""
    from crc32c import crc32c as function  # noqa: PLC0415 - may be missing

    return function


def _choose() -> Crc:
    for load in (_load_extension, _load_package):
        try:
            function = load()
        except (ImportError, AttributeError):  # not here, or it lies elsewhere in this version
            continue
        if function is not None:
            return function
    return slow_crc32c


crc32c: Final = _choose()
IS_SLOW: Final = crc32c is slow_crc32c
"""Whether the package crc32c is missing: a log of 100 MiB then takes about ten seconds."""
