"""Reads a VHDX through a Python library and writes its disk to standard output.

A program of its own, which needs nothing but that library, so that it can run in an environment
that has it: ``python library_reader.py libvhdi|dissect IMAGE READ_SIZE``, or with ``--version``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

DISTRIBUTIONS = {"libvhdi": "libvhdi-python", "dissect": "dissect.hypervisor"}


def main() -> None:
    """Read the command line, and the disk."""
    library = sys.argv[1]
    if sys.argv[2:] == ["--version"]:
        print(importlib.metadata.version(DISTRIBUTIONS[library]))
        return
    image, read_size = Path(sys.argv[2]), int(sys.argv[3])
    opened = open_with_libvhdi(image) if library == "libvhdi" else open_with_dissect(image)
    read: Callable[[int], bytes] = opened.read_buffer if library == "libvhdi" else opened.read
    while piece := read(read_size):
        sys.stdout.buffer.write(piece)


def open_with_libvhdi(image: Path) -> Any:  # noqa: ANN401 - it has no types
    """Open a file and its parents, which lie beside it and have to be handed over."""
    pyvhdi = importlib.import_module("pyvhdi")
    opened = pyvhdi.file()
    opened.open(str(image))
    if opened.get_parent_identifier():
        parent = image.with_name(PureWindowsPath(opened.get_parent_filename()).name)
        opened.set_parent(open_with_libvhdi(parent))
    return opened


def open_with_dissect(image: Path) -> Any:  # noqa: ANN401 - not installed where types are checked
    """Open a file; it finds the parents itself."""
    return importlib.import_module("dissect.hypervisor.disk.vhdx").VHDX(image)


if __name__ == "__main__":
    main()
