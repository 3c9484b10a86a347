"""Parent locators that no program writes: what could lead a reader astray."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.builder import ImageSpec, LocatorEntrySpec, linkage_text, parent_locator

LARGEST = 65534
"""Bytes of the longest key or value."""
FILE_NAMES = ("base.vhdx", "root.vhdx", "middle.vhdx", "child.vhdx", "top.vhdx")
PARTS = ("..", ".", "base.vhdx", "root.vhdx", "BASE.VHDX", "", "\0", "\ud800", "a" * 300, "C:", "~")


def _linkage(chance: random.Random, spec: ImageSpec) -> str:
    parent = spec.parent
    right = linkage_text(parent.data_write_guid) if isinstance(parent, ImageSpec) else ""
    wrong = (right[1:], right.upper(), "{" + right, "\N{KELVIN SIGN}" + right, "", right + "\0")
    return chance.choice(wrong) if chance.randrange(3) == 0 else right


def _with_path(chance: random.Random, spec: ImageSpec, path: str) -> bytes:
    key = chance.choice(("relative_path", "volume_path", "absolute_win32_path"))
    return parent_locator({"parent_linkage": _linkage(chance, spec), key: path})


def _strange_path(chance: random.Random, spec: ImageSpec) -> bytes:
    separator = chance.choice("\\/")
    parts = chance.choices(PARTS, k=chance.choice((1, 2, 5)))
    return _with_path(chance, spec, separator.join([*parts, chance.choice(FILE_NAMES)]))


def _long_path(chance: random.Random, spec: ImageSpec) -> bytes:
    part = chance.choice(("..\\", "a\\", "/", ".\\", "x", "..\\base.vhdx\\"))
    return _with_path(chance, spec, (part * (LARGEST // 2))[: LARGEST // 2])


def _many_entries(chance: random.Random, spec: ImageSpec) -> bytes:
    """Give as many entries as there can be, all of which share the longest text."""
    count = chance.choice((255, 256, 257, 5000))
    text = "k" * (LARGEST // 2)
    entries = [LocatorEntrySpec("parent_linkage", _linkage(chance, spec))]
    start = 20 + 12 * count + len("parent_linkage" + linkage_text(spec.file_write_guid)) * 2
    for index in range(count - 1):
        length = LARGEST - 2 * index if chance.randrange(2) else LARGEST
        entries.append(LocatorEntrySpec("", b"", start, start, max(2, length), LARGEST))
    return parent_locator(entries, trailing=text.encode("utf-16-le"))


def _noise(chance: random.Random, spec: ImageSpec) -> bytes:
    entries = [
        LocatorEntrySpec(chance.randbytes(2 * chance.randrange(1, 9)), chance.randbytes(8))
        for _ in range(chance.randrange(6))
    ]
    linkage = LocatorEntrySpec("parent_linkage", _linkage(chance, spec))
    return parent_locator([*entries, linkage], gap=chance.randbytes(chance.randrange(9)))


def _linkage_only(chance: random.Random, spec: ImageSpec) -> bytes:
    return parent_locator({"parent_linkage": _linkage(chance, spec)})


STRANGE_LOCATORS: tuple[tuple[str, Callable[[random.Random, ImageSpec], bytes]], ...] = (
    ("a strange path", _strange_path),
    ("a path as long as can be", _long_path),
    ("as many entries as can be", _many_entries),
    ("noise", _noise),
    ("no path", _linkage_only),
)
