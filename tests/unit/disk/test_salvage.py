"""What is saved of a damaged disk: what is there, zeros for what is lost, and a list of that."""

from __future__ import annotations

import errno
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.support.builder import (
    BAT_REGION,
    KIB,
    LOGICAL_SECTOR_SIZE,
    METADATA_REGION,
    MIB,
    TIB,
    ZERO_GUID,
    BitmapSpec,
    Block,
    HeaderSpec,
    ImageSpec,
    RegionEntrySpec,
    make_dirty,
)
from tests.support.chains import BASE_NAME, chain_bytes, open_files
from tests.support.logs import DISK_SIZE, blank_disk, disk_with, entry, mark
from tests.support.peers import needs_program
from tests.support.random_chains import RandomChain, chains, numbers
from tests.support.seeded_faults import (
    BAT,
    FAULTS,
    METADATA,
    NO_SIZES,
    NO_TABLES,
    PARTIAL,
    UNKNOWN,
    Fault,
    child,
    disk,
    entry_of,
    family,
    headers,
    item,
    locator,
    only,
    regions,
    table,
    tables,
    with_log_place,
    without,
)
from tests.support.sinks import RecordingSink
from tests.unit.operations.test_check import LARGEST_WHOLE_COMPARISON, name_of, write
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind, iter_extents
from vhdx2raw.disk.salvage import LostRanges, iter_mapfile
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import (
    CorruptImageError,
    ParentMismatchError,
    TruncatedImageError,
    Vhdx2rawError,
)
from vhdx2raw.findings import Severity
from vhdx2raw.operations.convert import ConversionResult

Ranges = Sequence[tuple[int, int]]
"""(offset, length) each, in order."""
ALL = [(0, 4 * MIB)]
FIRST, SECOND, THIRD, FOURTH = ((index * MIB, MIB) for index in range(4))
"""The blocks of `disk`; the first and the third are stored, at 4 and 5 MiB of the file."""


@dataclass(frozen=True)
class Saved:
    """What was saved, and the rules that the damage breaks."""

    data: bytes
    result: ConversionResult
    damage: list[str]

    @property
    def lost(self) -> list[tuple[int, int]]:
        return list(self.result.lost_ranges)


def save(path: Path, *, workers: int = 1, sequential: bool = False, **options: Any) -> Saved:  # noqa: ANN401
    """Salvage a disk."""
    before = open_files()
    with open_disk(path, OpenOptions(salvage=True, **options)) as disk:
        damage = [str(finding.rule) for _, finding in disk.chain.damage]
        sink = RecordingSink(sequential=sequential, makes_holes=not sequential)
        result = convert(disk, sink, workers=workers)
        data = sink.contents(disk.size)
    assert open_files() == before
    return Saved(data, result, damage)


def whole(spec: ImageSpec) -> bytes:
    return spec.expected_disk(0, spec.virtual_disk_size)


def with_lost(data: bytes, lost: Ranges) -> bytes:
    """Give a disk with zeros in some ranges."""
    expected = bytearray(data)
    for offset, length in lost:
        expected[offset : offset + length] = bytes(length)
    return bytes(expected)


def wrong_sectors(data: bytes, expected: bytes) -> list[int]:
    assert len(data) == len(expected)
    if data == expected:
        return []
    return [at for at in range(0, len(data), 512) if data[at:][:512] != expected[at:][:512]]


def assert_blocks_are_saved(path: Path, spec: ImageSpec) -> None:
    """Salvage a disk that is too large to be compared as a whole; nothing of its blocks is lost."""
    with open_disk(path, OpenOptions(salvage=True)) as disk:
        assert disk.size == spec.virtual_disk_size
        assert spec.blocks
        for index in spec.blocks:
            start = index * spec.block_size
            data = disk.pread(spec.block_size, start)
            assert wrong_sectors(data, spec.expected_disk(start, spec.block_size)) == []
        assert disk.lost.merged() == ()


def assert_saved(path: Path, expected: bytes, lost: Ranges, rules: Sequence[str]) -> None:
    """Salvage a disk that a strict reader refuses, in every way, and see what becomes of it."""
    with pytest.raises(Vhdx2rawError):
        open_chain(path).close()
    saved = save(path)
    assert saved.damage == list(rules)
    assert saved.lost == list(lost)
    assert saved.result.lost_bytes == sum(length for _, length in lost)
    assert wrong_sectors(saved.data, with_lost(expected, lost)) == []
    for other in (save(path, workers=4), save(path, sequential=True)):
        assert other.lost == saved.lost
        assert other.data == saved.data
    with open_disk(path, OpenOptions(salvage=True)) as opened:
        assert opened.read() == saved.data
        extents = [extent for extent in opened.extents() if extent.kind is ExtentKind.LOST]
    assert [(extent.virtual_offset, extent.length) for extent in extents] == saved.lost


# -- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """A damaged file, the rules that it breaks, and what is lost of its disk."""

    what: str
    files: Mapping[str, ImageSpec | bytes]
    rules: Sequence[str]
    lost: Ranges = ()


def damage(
    what: str,
    files: ImageSpec | Mapping[str, ImageSpec | bytes],
    rules: str,
    *lost: tuple[int, int],
) -> Damage:
    files = {"disk.vhdx": files} if isinstance(files, ImageSpec) else files
    return Damage(what, files, rules.split(), lost)


def entries(**values: int) -> ImageSpec:
    """Describe the disk with other BAT entries, such as b1=4 for block 1."""
    return disk(bat_overrides={int(name[1:]): value for name, value in values.items()})


WRONG_SUM = {"checksum": 0}
HEADERS_AND_TABLES = (
    damage("the first bytes", disk(signature=b"garbage!"), "R1"),
    damage("the first sector", disk(patches={0: bytes(512)}), "R1"),
    damage("checksums of both headers", disk(headers=headers(WRONG_SUM, WRONG_SUM)), "R10"),
    damage(
        "all of both headers",
        disk(patches={place * 64 * KIB: b"\xff" * 4096 for place in (1, 2)}),
        "R10",
    ),
    damage(
        "headers of the same number",
        disk(headers=[HeaderSpec(1), HeaderSpec(1, UNKNOWN)]),
        "R9",
    ),
    damage("checksums of both region tables", tables(WRONG_SUM, WRONG_SUM), "R43"),
    damage(
        "every checksum",
        disk(
            headers=headers(WRONG_SUM, WRONG_SUM),
            region_tables=tables(WRONG_SUM, WRONG_SUM).region_tables,
        ),
        "R10 R43",
    ),
    damage("a second BAT", regions(RegionEntrySpec(BAT_REGION, 8 * MIB, MIB)), "R46"),
    damage("an unknown region", regions(RegionEntrySpec(UNKNOWN, 9 * MIB, MIB, 1)), "R48"),
    damage("a region over the BAT", regions(RegionEntrySpec(UNKNOWN, BAT, MIB, 0)), "R51"),
    damage("no BAT", only(METADATA_REGION), "R49 R74", *ALL),
    damage("a BAT behind the end", regions(bat={"file_offset": 64 * MIB}), "R52", *ALL),
    damage("a BAT of no length", regions(bat={"length": 0}), "R47 R74", *ALL),
    damage("the signature of the metadata", table(signature=b"METADATA"), "R54"),
    damage("no sector size", without(LOGICAL_SECTOR_SIZE), "R61"),
    damage("a sector size of 3", item(LOGICAL_SECTOR_SIZE, data=b"\3\0\0\0"), "R67"),
    damage("a size that is no multiple", disk(virtual_disk_size=3 * MIB + 1), "R66"),
)

BLOCKS = (
    damage("state 4", entries(b1=4, b2=5 * MIB | 4), "R80 R80", (MIB, 2 * MIB)),
    damage("reserved bits", disk(blocks={0: Block(reserved_bits=9), 2: Block()}), "R77"),
    damage("reserved bits of a block of zeros", entries(b1=2 | 8), "R77"),
    damage("no place", entries(b0=6), "R78", FIRST),
    damage("a place behind the end", entries(b0=64 * MIB | 6), "R111", FIRST),
    damage("a place behind all ends", entries(b0=0xFFFF_FFFF_FFF0_0006), "R111", FIRST),
    damage(
        "two blocks at one place",
        disk(blocks={index: Block(content=1, file_offset=4 * MIB) for index in (0, 2)}),
        "R84",
    ),
    damage("a file without its last block", disk(file_size=5 * MIB), "R111", THIRD),
    damage("a file without any block", disk(file_size=4 * MIB), "R111 R111", FIRST, THIRD),
    damage(
        "a file that ends in a block",
        disk(file_size=5 * MIB + 12345),
        "R111",
        (2 * MIB + 12345, MIB - 12345),
    ),
    damage(
        "a file that ends with the entries of its BAT",
        disk(file_size=BAT + 32),
        "R111 R111",
        FIRST,
        THIRD,
    ),
    damage("a file that ends in its BAT", disk(file_size=BAT + 8), "R52 R111", *ALL),
    damage("a file that ends with its metadata", disk(file_size=BAT), "R52", *ALL),
)

BITMAPS = (
    damage("no bitmap", family(child(bitmaps={0: None})), "R83", FIRST),
    damage("a bitmap in state 3", family(child(bitmaps={0: BitmapSpec(state=3)})), "R83", FIRST),
    damage(
        "a bitmap of no place",
        family(child(bitmaps={0: BitmapSpec(file_offset=0)})),
        "R78",
        FIRST,
    ),
    damage(
        "a bitmap behind the end",
        family(child(bitmaps={0: BitmapSpec(file_offset=64 * MIB)}, file_size=8 * MIB)),
        "R114",
        FIRST,
    ),
    damage(
        "a bitmap with reserved bits",
        family(child(bitmaps={0: BitmapSpec(reserved_bits=1)})),
        "R77",
    ),
)

PARENTS = (
    damage("a parent that is cut off", family(child(), disk(file_size=5 * MIB)), "R111", THIRD),
    damage("a parent without headers", family(child(), disk(signature=b"garbage!")), "R1"),
    damage(
        "no parent",
        {"child.vhdx": child()},
        "R110",
        (0, 512),
        (1536, MIB - 1536),
        THIRD,
        FOURTH,
    ),
    damage(
        "no locator",
        {"child.vhdx": child(locator=None, has_parent=True), BASE_NAME: disk()},
        "R94 R110",
        (0, 512),
        (1536, MIB - 1536),
        THIRD,
        FOURTH,
    ),
    damage(
        "a broken locator",
        family(child(locator=locator(parent_linkage="{base}"))),
        "R99 R110",
        (0, 512),
        (1536, MIB - 1536),
        THIRD,
        FOURTH,
    ),
)


def merged(ranges: Ranges) -> list[tuple[int, int]]:
    """Give ranges in order, neighbours as one."""
    joined: list[tuple[int, int]] = []
    for start, length in ranges:
        if joined and sum(joined[-1]) == start:
            joined[-1] = joined[-1][0], joined[-1][1] + length
        else:
            joined.append((start, length))
    return joined


@pytest.mark.parametrize(
    "case", [*HEADERS_AND_TABLES, *BLOCKS, *BITMAPS, *PARENTS], ids=lambda case: case.what
)
def test_what_a_damaged_file_holds_is_saved(tmp_path: Path, case: Damage) -> None:
    path = write(tmp_path, case.files)
    spec = case.files[path.name]
    assert isinstance(spec, ImageSpec)
    assert_saved(path, whole(spec), merged(case.lost), case.rules)


def test_entries_in_a_bat_that_is_none_are_lost_and_not_read(tmp_path: Path) -> None:
    """What stands in the header section would make blocks of zeros, and blocks that are lost."""
    path = write(tmp_path, {"disk.vhdx": regions(bat={"file_offset": 0})})
    saved = save(path)
    assert saved.lost == ALL
    assert not any(saved.data)


def test_a_partial_bitmap_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    """The file ends behind the bits of the first block."""
    blocks = {
        index: Block(PARTIAL, sector_bits=range(0, 4096, 2), file_offset=(5 + 2 * index) * MIB)
        for index in range(2)
    }
    spec = child(
        block_size=2 * MIB,
        blocks=blocks,
        bitmaps={0: BitmapSpec(file_offset=9 * MIB)},
        file_size=9 * MIB + 512,
    )
    path = write(tmp_path, family(spec))
    assert_saved(path, whole(spec), [(2 * MIB, 2 * MIB)], ["R114"])


@pytest.mark.parametrize("has_parent", [True, False])
def test_a_range_of_partial_blocks_is_saved_and_nothing_around_it(
    tmp_path: Path,
    has_parent: bool,  # noqa: FBT001
) -> None:
    """Three of them, which lie one behind the other; every other sector is the parent's."""
    partial = {index: Block(PARTIAL, sector_bits=range(0, 2048, 2)) for index in range(3)}
    spec = child(blocks=partial)
    expected = whole(spec)
    path = write(tmp_path, family(spec))
    if not has_parent:
        (tmp_path / BASE_NAME).unlink()
        of_parent = [(at, 512) for at in range(512, 3 * MIB, 1024)]
        expected = with_lost(expected, [*of_parent, FOURTH])
    with open_chain(path, OpenOptions(salvage=True)) as chain:
        for start in (0, 512, MIB - 512, MIB, MIB + 1, 2 * MIB + 1536):
            for length in (1, 512, 1024, MIB, 2 * MIB - 1):
                data = chain_bytes(chain, start, length)  # which also sees whether they tile it
                assert wrong_sectors(data, expected[start : start + length]) == []


# -- the log -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        (blank_disk(), "R31"),
        (disk_with(entry(0, 1, mark(0, 1), checksum=0)), "R31"),
        (disk_with(entry(0, 5, mark(0, 1)), entry(9, 5, mark(1, 1))), "R29"),
        (with_log_place(log_offset=64 * MIB), "R15"),
        (with_log_place(log_length=0), "R15"),
        (with_log_place(log_version=7), "R12"),
    ],
    ids=["no entry", "torn", "two newest", "behind the end", "no length", "version"],
)
def test_without_a_usable_log_the_state_before_it_is_saved(
    tmp_path: Path, files: ImageSpec, rule: str
) -> None:
    assert_saved(write(tmp_path, {"disk.vhdx": files}), bytes(DISK_SIZE), [], [rule])


def dirty_and_cut(file_size: int) -> ImageSpec:
    """Describe a disk of three blocks, the last two by its log only, whose file was cut off."""
    before = disk(blocks={0: Block(file_offset=4 * MIB)})
    after = disk(blocks={index: Block(file_offset=(4 + index) * MIB) for index in range(3)})
    dirty = make_dirty(before, after)
    for logged in dirty.log.entries:
        logged.flushed_file_offset = logged.last_file_offset = 7 * MIB
    dirty.file_size = file_size
    return dirty


@pytest.mark.parametrize(
    ("file_size", "rules", "lost"),
    [
        (6 * MIB, ["R36", "R111"], [THIRD]),
        (5 * MIB + 512, ["R36", "R111"], [(MIB + 512, 2 * MIB - 512)]),
        (4 * MIB + 4096, ["R36", "R111"], [(4096, 3 * MIB - 4096)]),
    ],
)
def test_a_file_that_was_cut_off_before_its_log_was_replayed_has_lost_its_end(
    tmp_path: Path, file_size: int, rules: Sequence[str], lost: Ranges
) -> None:
    """It does not grow by zeros, as another one with a log does (R36, R37)."""
    spec = dirty_and_cut(file_size)
    assert_saved(write(tmp_path, {"disk.vhdx": spec}), whole(spec), lost, rules)


# -- what the host cannot read -------------------------------------------------------------------

Bad = Sequence[tuple[int, int]]
"""(start, end) of what cannot be read of a file."""


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Bad], None]:
    """Give a function that makes parts of a file unreadable."""
    real_pread, real_preadv = os.pread, os.preadv

    def spoil(path: Path, bad: Bad) -> None:
        identity = path.stat().st_dev, path.stat().st_ino

        def require_readable(descriptor: int, offset: int, length: int) -> None:
            status = os.fstat(descriptor)
            touched = any(start < offset + length and offset < end for start, end in bad)
            if touched and (status.st_dev, status.st_ino) == identity:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            require_readable(descriptor, offset, length)
            return real_pread(descriptor, length, offset)

        def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            require_readable(descriptor, offset, sum(map(len, buffers)))
            return real_preadv(descriptor, buffers, offset)

        monkeypatch.setattr(os, "pread", pread)
        monkeypatch.setattr(os, "preadv", preadv)

    return spoil


BLOCK = 4 * MIB
"""Where the first block of `disk` lies in its file."""


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("bad", "lost"),
    [
        ([(BLOCK, BLOCK + 1)], [(0, 512)]),
        ([(BLOCK + 511, BLOCK + 513)], [(0, 1024)]),
        ([(BLOCK + 4096, BLOCK + 8192)], [(4096, 4096)]),
        ([(BLOCK + MIB - 1, BLOCK + MIB)], [(MIB - 512, 512)]),
        ([(BLOCK, BLOCK + MIB)], [FIRST]),
        (
            [(BLOCK + 7, BLOCK + 8), (BLOCK + 99999, BLOCK + 100_000), (5 * MIB, 5 * MIB + 600)],
            [(0, 512), (99840, 512), (2 * MIB, 1024)],
        ),
        ([(BLOCK, 6 * MIB)], [FIRST, THIRD]),
    ],
)
def test_sectors_that_cannot_be_read_are_lost_and_no_others(
    tmp_path: Path,
    spoil: Callable[[Path, Bad], None],
    bad: Bad,
    lost: Ranges,
    workers: int,
) -> None:
    path = write(tmp_path, {"disk.vhdx": disk()})
    spoil(path, bad)
    saved = save(path, workers=workers)
    assert saved.lost == list(lost)
    assert saved.damage == []
    assert wrong_sectors(saved.data, with_lost(whole(disk()), lost)) == []
    with open_disk(path) as opened, pytest.raises(OSError, match="Input/output error"):
        convert(opened, RecordingSink())


def test_what_cannot_be_read_of_a_parent_is_lost_where_it_shows(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    spec = child()
    path = write(tmp_path, family(spec))
    spoil(tmp_path / BASE_NAME, [(BLOCK, BLOCK + 4096)])
    lost = [(0, 512), (1536, 4096 - 1536)]
    saved = save(path)
    assert saved.lost == lost
    assert wrong_sectors(saved.data, with_lost(whole(spec), lost)) == []


@pytest.mark.parametrize(
    ("what", "bad", "rules"),
    [
        ("a header", [(64 * KIB, 65 * KIB)], []),
        ("both headers", [(64 * KIB, 65 * KIB), (128 * KIB, 129 * KIB)], ["R10"]),
        ("a region table", [(192 * KIB, 193 * KIB)], []),
        ("the first sector", [(0, 512)], ["R1"]),
    ],
)
def test_what_cannot_be_read_of_the_header_section_is_damage(
    tmp_path: Path, spoil: Callable[[Path, Bad], None], what: str, bad: Bad, rules: Sequence[str]
) -> None:
    path = write(tmp_path, {"disk.vhdx": disk()})
    spoil(path, bad)
    saved = save(path)
    assert (saved.damage, saved.lost) == (list(rules), [])
    assert wrong_sectors(saved.data, whole(disk())) == []


def test_blocks_whose_entries_cannot_be_read_are_lost(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    path = write(tmp_path, {"disk.vhdx": disk()})
    spoil(path, [(BAT, BAT + 4096)])
    saved = save(path)
    assert (saved.damage, saved.lost) == (["R52"], ALL)
    assert not any(saved.data)
    with pytest.raises(OSError, match="Input/output error"):
        open_chain(path).close()


def test_an_unreadable_sector_of_the_bat_costs_no_more_than_its_entries(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    """64 entries in 512 bytes."""
    spec = disk(virtual_disk_size=200 * MIB, blocks={0: Block(), 100: Block(), 199: Block()})
    path = write(tmp_path, {"disk.vhdx": spec})
    spoil(path, [(BAT + 512, BAT + 1024)])
    saved = save(path)
    assert (saved.damage, saved.lost) == (["R52"], [(64 * MIB, 64 * MIB)])


def test_a_block_whose_bitmap_cannot_be_read_is_lost(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    spec = child()
    path = write(tmp_path, family(spec))
    bitmap = spec.placement().bitmaps[0]
    spoil(path, [(bitmap, bitmap + 512)])
    saved = save(path)
    assert saved.lost == [FIRST]
    assert wrong_sectors(saved.data, with_lost(whole(spec), [FIRST])) == []


def test_a_strict_reader_is_told_that_a_bitmap_cannot_be_read(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    spec = child()
    path = write(tmp_path, family(spec))
    bitmap = spec.placement().bitmaps[0]
    with open_chain(path) as chain:
        spoil(path, [(bitmap, bitmap + 512)])
        with pytest.raises(OSError, match="Input/output error"):
            list(iter_extents(chain))


def test_a_log_that_cannot_be_read_is_left_out(
    tmp_path: Path, spoil: Callable[[Path, Bad], None]
) -> None:
    path = write(tmp_path, {"disk.vhdx": disk_with(entry(0, 1, mark(0, 1)))})
    spoil(path, [(MIB, MIB + 4096)])
    saved = save(path)
    assert (saved.damage, saved.lost) == (["R31"], [])
    assert not any(saved.data)


def test_a_file_that_shrinks_while_it_is_saved_has_lost_its_end(tmp_path: Path) -> None:
    """The change as such is allowed here."""
    path = write(tmp_path, {"disk.vhdx": disk()})
    with open_disk(path, OpenOptions(salvage=True)) as opened:
        os.truncate(path, 5 * MIB + 1024)
        sink = RecordingSink()
        result = convert(opened, sink, allow_changed=True)
    lost = [(2 * MIB + 1024, MIB - 1024)]
    assert list(result.lost_ranges) == lost
    assert [finding.rule for _, finding in result.warnings] == ["R119"]
    assert wrong_sectors(sink.contents(4 * MIB), with_lost(whole(disk()), lost)) == []


# -- what cannot be saved ------------------------------------------------------------------------

HOPELESS = (
    "the file ends behind region table 1",
    "both tables have no signature",
    "there is no metadata region",
    "the metadata region lies behind the end",
    "the parent is another version",
    "the parent has other sectors",
    "the child is its own parent",
)


def is_hopeless(fault: Fault) -> bool:
    """Tell whether nothing says how the disk is laid out, or which disk a child belongs to."""
    return bool({NO_SIZES, NO_TABLES} & set(fault.found)) or fault.what in HOPELESS


def is_sound(fault: Fault) -> bool:
    """Tell whether a strict reader opens the disk."""
    return not fault.refused and Severity.ERROR not in {found.severity for found in fault.found}


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_every_seeded_fault_is_saved_or_refused_in_words(tmp_path: Path, fault: Fault) -> None:
    """What is not listed as lost is what the disk holds, unless an error says that it may not."""
    path = write(tmp_path, fault.files)
    spec = fault.files[path.name]
    assert isinstance(spec, ImageSpec)
    if is_hopeless(fault):
        with pytest.raises(Vhdx2rawError):
            open_chain(path, OpenOptions(salvage=True))
        return
    open_chain(path, OpenOptions(salvage=True)).close()
    if spec.virtual_disk_size > LARGEST_WHOLE_COMPARISON:
        assert_blocks_are_saved(path, spec)
        return
    saved = save(path)
    assert all(not any(saved.data[at : at + length]) for at, length in saved.lost)
    if not [found for found in fault.found if found.severity is Severity.ERROR]:
        assert bool(saved.damage) == fault.refused
        assert wrong_sectors(saved.data, with_lost(whole(spec), saved.lost)) == []


def test_a_wrong_parent_is_refused_even_so(tmp_path: Path) -> None:
    """It would give bytes that nobody ever wrote to this disk."""
    path = write(tmp_path, family(child(), disk(data_write_guid=ZERO_GUID)))
    with pytest.raises(ParentMismatchError, match="has the DataWriteGuid 0000"):
        open_chain(path, OpenOptions(salvage=True))
    saved = save(path, allow_parent_mismatch=True)
    assert (saved.lost, saved.damage) == ([], [])


def test_a_child_with_a_broken_locator_can_be_given_its_parent(tmp_path: Path) -> None:
    spec = child(locator=locator(parent_linkage="{base}"))
    path = write(tmp_path, family(spec))
    saved = save(path, parents=[tmp_path / BASE_NAME], allow_parent_mismatch=True)
    assert (saved.lost, saved.damage) == ([], ["R99"])
    assert wrong_sectors(saved.data, whole(spec)) == []


def test_a_sound_disk_is_read_as_ever(tmp_path: Path) -> None:
    path = write(tmp_path, family(child()))
    saved = save(path)
    assert (saved.lost, saved.damage, saved.result.lost_bytes) == ([], [], 0)
    assert wrong_sectors(saved.data, whole(child())) == []


def test_nothing_is_ever_lost_to_a_strict_reader(tmp_path: Path) -> None:
    read = 0
    for fault in FAULTS:
        path = write(tmp_path, fault.files)
        try:
            with open_chain(path) as chain:
                kinds = {extent.kind for extent in iter_extents(chain)}
                assert chain.damage == ()
        except Vhdx2rawError:
            continue
        assert ExtentKind.LOST not in kinds
        read += 1
    assert read == len([fault for fault in FAULTS if is_sound(fault)])
    assert read > 50


def test_64_tib_that_are_lost_are_one_range(tmp_path: Path) -> None:
    spec = disk(virtual_disk_size=64 * TIB, block_size=256 * MIB, blocks={}, file_size=BAT)
    path = write(tmp_path, {"disk.vhdx": spec})
    with open_disk(path, OpenOptions(salvage=True)) as opened:
        result = convert(opened, RecordingSink())
    assert result.lost_ranges == ((0, 64 * TIB),)


# -- random damage -------------------------------------------------------------------------------


@st.composite
def harm(draw: st.DrawFn, chain: RandomChain) -> tuple[int, str, int, bytes]:
    """Give a way to damage a file: its number, what happens, where, and what stands there then."""
    number = draw(st.integers(0, len(chain.files) - 1))
    spec = chain.files[number]
    kind = draw(st.sampled_from(["cut", "cut", "header", "regions", "metadata", "bat", "bat"]))
    starts = {
        "cut": (0, spec.resolved_file_size),
        "header": (0, 192 * KIB),
        "regions": (192 * KIB, 128 * KIB),
        "metadata": (METADATA, 66 * KIB),
        "bat": (spec.bat_offset, 64),
    }
    start, length = starts[kind]
    place = start + draw(numbers(length))
    return number, kind, place, draw(st.binary(min_size=1, max_size=64))


def test_random_damage_is_saved_or_refused_in_words() -> None:
    outcomes: Counter[str] = Counter()

    @seed(20261122)
    @settings(max_examples=80, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def damage_and_save(data: st.DataObject) -> None:
        chain = data.draw(chains())
        number, kind, place, raw = data.draw(harm(chain))
        with TemporaryDirectory() as folder:
            for spec in chain.files:
                spec.write(Path(folder, f"{spec.tag}.vhdx"))
            path = Path(folder, f"{chain.files[number].tag}.vhdx")
            if kind == "cut":
                os.truncate(path, place)
            else:
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(raw)
            try:
                saved = save(Path(folder, f"{chain.files[0].tag}.vhdx"))
            except Vhdx2rawError:
                outcomes["refused"] += 1
                return
        outcomes["saved"] += 1
        outcomes[assert_rightly_saved(saved, chain, kind)] += 1

    damage_and_save()
    # Of 80, some 50 and 20.
    assert outcomes["saved"] > 25
    assert outcomes["compared"] > 8


def assert_rightly_saved(saved: Saved, chain: RandomChain, kind: str) -> str:
    """Compare where the damage leaves no doubt about the right bytes; tell if that is so."""
    size = len(saved.data)
    assert all(not any(saved.data[at : at + length]) for at, length in saved.lost)
    trusted = kind == "cut" and not set(saved.damage) - {"R111", "R110", "R52", "R114", "R36"}
    if trusted:
        expected = with_lost(chain.specs[0].expected_disk(0, size), saved.lost)
        assert wrong_sectors(saved.data, expected) == []
        return "compared"
    if kind == "header" and not saved.damage:
        assert wrong_sectors(saved.data, whole(chain.specs[0])) == []
        assert saved.lost == []
        return "compared"
    return "in doubt"


# -- lists of what is lost -----------------------------------------------------------------------


def test_lost_ranges_are_told_in_order_and_as_few(tmp_path: Path) -> None:
    lost = LostRanges()
    for start, length in ((4096, 512), (4608, 512), (0, 512), (512, 1), (9000, 100), (9050, 20)):
        lost.add(start, length)
    assert lost.merged() == ((0, 513), (4096, 1024), (9000, 100))
    assert LostRanges().merged() == ()


def parse_mapfile(lines: Sequence[str], size: int) -> list[tuple[int, int, str]]:
    """Read a map file as strictly as its format allows, which has to be finished and complete."""
    fields = [line.split() for line in lines if not line.startswith("#")]
    position, status, current_pass = fields[0]
    assert (int(position, 0), status, int(current_pass)) == (size, "+", 1)
    blocks: list[tuple[int, int, str]] = []
    end = 0
    for start, length, kind in fields[1:]:
        assert int(start, 0) == end, "a gap, or an overlap"
        assert start.startswith("0x")
        assert length.startswith("0x")
        assert int(length, 0) > 0
        assert kind in ("+", "-")
        assert not blocks or blocks[-1][2] != kind, "two blocks that could be one"
        blocks.append((end, int(length, 0), kind))
        end += int(length, 0)
    assert end == size
    return blocks


MAPS: Sequence[tuple[Ranges, int, list[tuple[int, int, str]]]] = [
    ([], 4096, [(0, 4096, "+")]),
    ([(0, 4096)], 4096, [(0, 4096, "-")]),
    ([(512, 512)], 4096, [(0, 512, "+"), (512, 512, "-"), (1024, 3072, "+")]),
    ([(0, 512), (3584, 512)], 4096, [(0, 512, "-"), (512, 3072, "+"), (3584, 512, "-")]),
    (
        [(63 * TIB, MIB)],
        64 * TIB,
        [(0, 63 * TIB, "+"), (63 * TIB, MIB, "-"), (63 * TIB + MIB, TIB - MIB, "+")],
    ),
]


@pytest.mark.parametrize(("lost", "size", "blocks"), MAPS)
def test_a_map_file_tells_what_is_there_and_what_is_lost(
    lost: Ranges, size: int, blocks: list[tuple[int, int, str]]
) -> None:
    assert parse_mapfile(list(iter_mapfile(lost, size)), size) == blocks


@pytest.mark.parametrize(("lost", "size", "blocks"), MAPS)
def test_ddrescue_understands_a_map_file(
    tmp_path: Path, lost: Ranges, size: int, blocks: list[tuple[int, int, str]]
) -> None:
    program = needs_program("ddrescuelog")
    path = tmp_path / "disk.map"
    path.write_text("".join(f"{line}\n" for line in iter_mapfile(lost, size)))

    def ddrescuelog(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [program, *map(str, arguments), str(path)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    shown = ddrescuelog("-t")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ddrescuelog("--done-status").returncode == (1 if lost else 0)
    listed = ddrescuelog("--block-size=512", "--list-blocks=-").stdout.split()
    sectors = [str(n) for at, length in lost for n in range(at // 512, (at + length) // 512)]
    assert listed == sectors


# -- words ---------------------------------------------------------------------------------------


def test_the_damage_names_the_file_that_it_is_about(tmp_path: Path) -> None:
    path = write(tmp_path, family(child(), disk(file_size=5 * MIB)))
    with open_chain(path, OpenOptions(salvage=True)) as chain:
        ((name, finding),) = chain.damage
        assert name == str(tmp_path / BASE_NAME)
        assert str(finding).startswith("BAT entry of payload block 2 at file offset 0x300010: ")
        assert chain.salvaging
    with pytest.raises(TruncatedImageError, match=r"payload block 2 .* beyond the end"):
        open_chain(path)
    disk(bat_overrides={1: 4}).write(path)
    with pytest.raises(CorruptImageError, match="the state 4 is reserved"):
        open_chain(path)
    with open_chain(path, OpenOptions(salvage=True)) as chain:
        assert [finding.file_offset for _, finding in chain.damage] == [entry_of(1)]
