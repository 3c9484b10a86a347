"""Put the program and all that it needs into one file that Python runs as it is.

    python tools/make_zipapp.py WHEEL OUTPUT

The dependencies are those that are installed beside the Python that runs this. Two are left out:
crc32c, which is compiled and has a slow substitute in `vhdx2raw.crc`, and rich, which Typer uses
only where it is asked to. The same files give the same bytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

DEPENDENCIES = ("annotated-doc", "shellingham", "tqdm", "typer")
SHEBANG = b"#!/usr/bin/env python3\n"
# Read by every Python, however old.
MAIN = """\
import sys

if sys.version_info < (3, 10):
    sys.stderr.write("vhdx2raw: needs Python 3.10 or later, not %d.%d\\n" % sys.version_info[:2])
    sys.exit(2)

from vhdx2raw.cli import main

sys.exit(main())
"""
INCLUDED = re.compile(r"(?!\.\.)[^/]+/(.+\.py|METADATA|(licenses/)?(LICEN[CS]E|COPYING)[^/]*)")
"""Modules, and what tells whose they are and on which terms; no programs, no tests of types."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""What a zip can say; no file of it has a time of its own."""


def main(wheel: Path, output: Path) -> None:
    """Write `output` from the program in `wheel`."""
    contents = {"__main__.py": MAIN.encode(), **dict(_of_wheel(wheel))}
    for name in DEPENDENCIES:
        contents.update(_of_installed(name))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as file:
        file.write(SHEBANG)
        with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in sorted(contents.items()):
                entry = ZipInfo(name, EARLIEST)
                entry.compress_type = ZIP_DEFLATED
                entry.create_system = 3  # Unix, on every host
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data)
    output.chmod(0o755)


def _of_wheel(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if INCLUDED.fullmatch(name):
                yield name, archive.read(name)


def _of_installed(name: str) -> Iterator[tuple[str, bytes]]:
    for path in distribution(name).files or ():
        if INCLUDED.fullmatch(path.as_posix()):
            yield path.as_posix(), path.read_binary()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
