"""What else is done with an image: it is salvaged, checked, mapped, hashed and looked into."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path

import vhdx2raw
from tests.fuzz.actions import (
    LARGEST_WHOLE_READ,
    MOST_CONVERTED_DATA,
    MOST_EXTENTS,
    Action,
    check_conversion,
    check_tiling,
    data_of,
    demand,
    ranges_of,
    read_extents,
)
from tests.fuzz.limits import SECONDS
from tests.support.builder import MIB
from vhdx2raw import ExtentKind, Vhdx2rawError, check
from vhdx2raw.cli import main
from vhdx2raw.cli.commands.map.grid import make_grid
from vhdx2raw.disk.contents import read_contents
from vhdx2raw.disk.map import iter_map
from vhdx2raw.operations.digest import digest
from vhdx2raw.vhdx.image import open_image

LARGEST_FILE_IN_MEMORY = 16 * MIB
MOST_CELLS = 1000
COMMANDS = (
    *(("info",), ("info", "--json"), ("map",), ("check",), ("check", "--json")),
    ("measure", "--json"),
)
END_OF_PARTITION = 4096
EXIT_CODES = (0, 4, 5, 6)
"""Read; not for us; corrupt; a parent cannot be used. Nothing else can be the fault of a file."""


def salvage(path: Path) -> None:
    """Read what a damaged disk still holds; of a sound one that is all."""
    with vhdx2raw.open(path, salvage=True) as disk:
        extents = list(islice(disk.extents(), MOST_EXTENTS))
        is_whole = len(extents) < MOST_EXTENTS
        check_tiling(disk, extents, is_whole=is_whole)
        for start, length in ranges_of(disk, extents):
            piece = disk.pread(length, start)
            demand(piece == read_extents(extents, start, length), f"differs at {start:#x}")
        if is_whole and data_of(extents) <= MOST_CONVERTED_DATA:
            check_conversion(disk, extents)
        _compare_with_strict_reading(path, disk)


def _compare_with_strict_reading(path: Path, salvaged: vhdx2raw.VirtualDisk) -> None:
    """Demand that what can be read strictly is not lost, and reads the same."""
    try:
        strict = vhdx2raw.open(path)
    except Vhdx2rawError:
        return
    with strict:
        demand(strict.size == salvaged.size, "salvaged to another size")
        extents = list(islice(strict.extents(), MOST_EXTENTS))
        again = list(islice(salvaged.extents(), MOST_EXTENTS))
        demand(all(extent.kind is not ExtentKind.LOST for extent in again), "lost what is there")
        for start, length in ranges_of(strict, extents):
            same = strict.pread(length, start) == salvaged.pread(length, start)
            demand(same, f"salvaged to other bytes at {start:#x}")


def check_everything(path: Path) -> None:
    """Check the file; it is sound if, and only if, it can be opened."""
    report = check(path)
    for _, finding in report.results:
        demand(str(finding), "a finding without a message")
    try:
        open_image(path).close()
    except Vhdx2rawError as error:
        demand(not report.is_sound, f"sound, but cannot be opened: {error}")


def make_map(path: Path) -> None:
    """Make the map and the grid of the disk, as `map` does."""
    with vhdx2raw.open(path) as disk:
        entries = list(islice(iter_map(disk.chain), MOST_EXTENTS))
        end = 0
        for entry in entries:
            demand(entry.start == end and entry.length > 0, f"the map has a gap at {end:#x}")
            end += entry.length
        if len(entries) < MOST_EXTENTS:
            demand(end == disk.size, "the map ends before the disk")
            grid = make_grid(entries, 0, disk.size, MOST_CELLS)
            demand(sum(grid.totals.values()) == disk.size, "the grid does not add up")


def look_inside(path: Path) -> None:
    """Read partition tables and file systems, as `info` does, and the ends of each partition."""
    with vhdx2raw.open(path) as disk:
        read_contents(disk, disk.metadata.logical_sector_size)
        for part in disk.partitions():
            demand(0 <= part.start < part.start + part.size <= disk.size, "lies elsewhere")
            length = min(part.size, END_OF_PARTITION)
            for start in (0, part.size - length):
                right = disk.pread(length, part.start + start)
                demand(part.pread(2 * length, start)[:length] == right, "differs in a partition")
            demand(part.pread(length, part.size) == b"", "a partition has no end")


def take_digest(path: Path) -> None:
    """Hash a small disk."""
    with vhdx2raw.open(path) as disk:
        if disk.size <= LARGEST_WHOLE_READ:
            right = hashlib.sha256(disk.pread(disk.size, 0)).hexdigest()
            demand(digest(disk, "sha256") == right, "another digest than that of the bytes")


def open_object(path: Path) -> None:
    """Open a small file as bytes in memory; that must end as it does by its name."""
    if path.stat().st_size > LARGEST_FILE_IN_MEMORY:
        return
    data = path.read_bytes()
    by_name, by_object = "", ""
    try:
        open_image(path).close()
    except Vhdx2rawError as error:
        by_name = error.message
    try:
        open_image(io.BytesIO(data)).close()
    except Vhdx2rawError as error:
        by_object = error.message
    demand(by_name == by_object, f"by name: {by_name!r}, as an object: {by_object!r}")


def run_commands(path: Path) -> None:
    """Run the commands that only read: no fault of the program, nothing that moves a terminal."""
    for words in COMMANDS:
        with redirect_stdout(_Captured()) as out, redirect_stderr(_Captured()) as err:
            code = main([words[0], *words[1:], str(path)])
        stdout, stderr = out.text(), err.text()
        demand(code in EXIT_CODES, f"{words} ends with {code}: {stderr}")
        strange = {char for char in stdout + stderr if not char.isprintable()} - {"\n"}
        demand(not strange, f"{words} prints {strange}")
        if "--json" in words and stdout:
            json.loads(stdout)


class _Captured(io.TextIOWrapper):
    """A stream that is no terminal, and what was written to it."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="surrogateescape")

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


MORE_ACTIONS: tuple[Action, ...] = (
    Action(salvage, seconds=3 * SECONDS),
    Action(check_everything, seconds=2 * SECONDS),
    Action(run_commands, seconds=len(COMMANDS) * SECONDS),
    *map(Action, (make_map, look_inside, take_digest, open_object)),
)
