"""What is salvaged of a damaged disk: its data, zeros for what is lost, and a list of that."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
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
from tests.support.chains import BASE_NAME, LARGEST_WHOLE_COMPARISON, chain_bytes
from tests.support.files import write_files
from tests.support.logs import DISK_SIZE, blank_disk, disk_with, entry, mark
from tests.support.properties import FACTOR, cases
from tests.support.random_chains import RandomChain, chains, numbers
from tests.support.raw import raw_of
from tests.support.salvage import (
    ALL,
    FIRST,
    FOURTH,
    THIRD,
    Ranges,
    Salvaged,
    assert_salvaged,
    salvage,
    with_lost,
    wrong_sectors,
)
from tests.support.seeded_faults import FAULTS
from tests.support.seeded_faults.disks import (
    BAT,
    METADATA,
    PARTIAL,
    UNKNOWN,
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
from tests.support.seeded_faults.fault import NO_SIZES, NO_TABLES, Fault
from tests.support.sinks import RecordingSink
from vhdx2raw import convert
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.disk.extents import ExtentKind
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import (
    CorruptImageError,
    ParentMismatchError,
    TruncatedImageError,
    Vhdx2rawError,
)
from vhdx2raw.findings import Severity


def assert_blocks_are_salvaged(path: Path, spec: ImageSpec) -> None:
    """Salvage a disk that is too large to be compared as a whole; nothing of its blocks is lost."""
    with open_disk(path, OpenOptions(salvage=True)) as disk:
        assert disk.size == spec.virtual_disk_size
        assert spec.blocks
        for index in spec.blocks:
            start = index * spec.block_size
            data = disk.pread(spec.block_size, start)
            assert wrong_sectors(data, spec.expected_disk(start, spec.block_size)) == []
        assert disk.lost.merged() == ()


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
        "headers of the same number", disk(headers=[HeaderSpec(1), HeaderSpec(1, UNKNOWN)]), "R9"
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
    damage("no BAT in the table", only(METADATA_REGION), "R49"),
    damage("a BAT past the end", regions(bat={"file_offset": 64 * MIB}), "R52", *ALL),
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
    damage("a place past the end", entries(b0=64 * MIB | 6), "R111", FIRST),
    damage("the last place of all", entries(b0=0xFFFF_FFFF_FFF0_0006), "R111", FIRST),
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
        "a bitmap of no place", family(child(bitmaps={0: BitmapSpec(file_offset=0)})), "R78", FIRST
    ),
    damage(
        "a bitmap past the end",
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
        "no parent", {"child.vhdx": child()}, "R110", (0, 512), (1536, MIB - 1536), THIRD, FOURTH
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [*HEADERS_AND_TABLES, *BLOCKS, *BITMAPS, *PARENTS], ids=lambda case: case.what
)
def test_damaged_file_is_salvaged(tmp_path: Path, case: Damage) -> None:
    path = write_files(tmp_path, case.files)
    spec = case.files[path.name]
    assert isinstance(spec, ImageSpec)
    assert_salvaged(path, raw_of(spec), merged(case.lost), case.rules)


def test_bat_in_the_header_section_is_lost(tmp_path: Path) -> None:
    """What stands in the header section would make blocks of zeros, and blocks that are lost."""
    path = write_files(tmp_path, {"disk.vhdx": regions(bat={"file_offset": 0})})
    salvaged = salvage(path)
    assert salvaged.lost == ALL
    assert not any(salvaged.data)


def test_a_partial_bitmap_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    """The file ends after the bits of the first block."""
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
    path = write_files(tmp_path, family(spec))
    assert_salvaged(path, raw_of(spec), [(2 * MIB, 2 * MIB)], ["R114"])


@pytest.mark.slow
@pytest.mark.parametrize("has_parent", [True, False])
def test_range_of_partial_blocks_is_salvaged(
    tmp_path: Path,
    has_parent: bool,  # noqa: FBT001
) -> None:
    """Three of them, one after the other in the file; every other sector is the parent's."""
    partial = {index: Block(PARTIAL, sector_bits=range(0, 2048, 2)) for index in range(3)}
    spec = child(blocks=partial)
    expected = raw_of(spec)
    path = write_files(tmp_path, family(spec))
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


@pytest.mark.slow
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
    ids=["no entry", "torn", "two newest", "past the end", "no length", "version"],
)
def test_unusable_log_leaves_the_state_before_it(
    tmp_path: Path, files: ImageSpec, rule: str
) -> None:
    assert_salvaged(write_files(tmp_path, {"disk.vhdx": files}), bytes(DISK_SIZE), [], [rule])


def dirty_and_cut(file_size: int) -> ImageSpec:
    """Describe a disk of three blocks, the last two by its log only, whose file was cut off."""
    before = disk(blocks={0: Block(file_offset=4 * MIB)})
    after = disk(blocks={index: Block(file_offset=(4 + index) * MIB) for index in range(3)})
    dirty = make_dirty(before, after)
    for logged in dirty.log.entries:
        logged.flushed_file_offset = logged.last_file_offset = 7 * MIB
    dirty.file_size = file_size
    return dirty


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_size", "rules", "lost"),
    [
        (6 * MIB, ["R36", "R111"], [THIRD]),
        (5 * MIB + 512, ["R36", "R111"], [(MIB + 512, 2 * MIB - 512)]),
        (4 * MIB + 4096, ["R36", "R111"], [(4096, 3 * MIB - 4096)]),
    ],
)
def test_dirty_file_that_was_cut_off_has_lost_its_end(
    tmp_path: Path, file_size: int, rules: Sequence[str], lost: Ranges
) -> None:
    """It does not grow by zeros, as another one with a log does (R36, R37)."""
    spec = dirty_and_cut(file_size)
    assert_salvaged(write_files(tmp_path, {"disk.vhdx": spec}), raw_of(spec), lost, rules)


# -- what cannot be salvaged ----------------------------------------------------------------------

HOPELESS = (
    "the file ends after region table 1",
    "the metadata region lies past the end",
    "the parent is another version",
    "the parent has other sectors",
    "the child is its own parent",
)


def is_hopeless(fault: Fault) -> bool:
    """Return whether the layout of the disk, or the disk that a child belongs to, is unknown."""
    return bool({NO_SIZES, NO_TABLES} & set(fault.found)) or fault.what in HOPELESS


def is_sound(fault: Fault) -> bool:
    """Return whether a strict reader opens the disk."""
    return not fault.refused and Severity.ERROR not in {found.severity for found in fault.found}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_seeded_fault_is_salvaged_or_refused(tmp_path: Path, fault: Fault) -> None:
    """What is not listed as lost is what the disk holds, unless there is an error."""
    path = write_files(tmp_path, fault.files)
    spec = fault.files[path.name]
    assert isinstance(spec, ImageSpec)
    if is_hopeless(fault):
        with pytest.raises(Vhdx2rawError):
            open_chain(path, OpenOptions(salvage=True))
        return
    open_chain(path, OpenOptions(salvage=True)).close()
    if spec.virtual_disk_size > LARGEST_WHOLE_COMPARISON:
        assert_blocks_are_salvaged(path, spec)
        return
    salvaged = salvage(path)
    assert all(not any(salvaged.data[at : at + length]) for at, length in salvaged.lost)
    if not [f for f in fault.found if f.severity is Severity.ERROR or f.rule == "R122"]:
        assert bool(salvaged.damage) == fault.refused
        assert wrong_sectors(salvaged.data, with_lost(raw_of(spec), salvaged.lost)) == []


def test_wrong_parent_is_refused_when_salvaging(tmp_path: Path) -> None:
    """It would give bytes that were never written to this disk."""
    path = write_files(tmp_path, family(child(), disk(data_write_guid=ZERO_GUID)))
    with pytest.raises(ParentMismatchError, match="has the DataWriteGuid 0000"):
        open_chain(path, OpenOptions(salvage=True))
    salvaged = salvage(path, allow_parent_mismatch=True)
    assert (salvaged.lost, salvaged.damage) == ([], [])


def test_broken_locator_with_named_parent_is_salvaged(tmp_path: Path) -> None:
    spec = child(locator=locator(parent_linkage="{base}"))
    path = write_files(tmp_path, family(spec))
    salvaged = salvage(path, parents=[tmp_path / BASE_NAME], allow_parent_mismatch=True)
    assert (salvaged.lost, salvaged.damage) == ([], ["R99"])
    assert wrong_sectors(salvaged.data, raw_of(spec)) == []


def test_sound_disk_is_salvaged_whole(tmp_path: Path) -> None:
    path = write_files(tmp_path, family(child()))
    salvaged = salvage(path)
    assert (salvaged.lost, salvaged.damage, salvaged.result.lost_bytes) == ([], [], 0)
    assert wrong_sectors(salvaged.data, raw_of(child())) == []


@pytest.mark.slow
def test_strict_reader_loses_nothing(tmp_path: Path) -> None:
    read = 0
    for fault in FAULTS:
        path = write_files(tmp_path, fault.files)
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


@pytest.mark.slow
def test_64_tib_that_are_lost_are_one_range(tmp_path: Path) -> None:
    spec = disk(virtual_disk_size=64 * TIB, block_size=256 * MIB, blocks={}, file_size=BAT)
    path = write_files(tmp_path, {"disk.vhdx": spec})
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


DAMAGED = 50


@pytest.mark.slow
def test_random_damage_is_salvaged_or_refused() -> None:
    outcomes: Counter[str] = Counter()

    @cases(DAMAGED)
    @given(st.data())
    def damage_and_salvage(data: st.DataObject) -> None:
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
                salvaged = salvage(Path(folder, f"{chain.files[0].tag}.vhdx"))
            except Vhdx2rawError:
                outcomes["refused"] += 1
                return
        outcomes["salvaged"] += 1
        outcomes[assert_rightly_salvaged(salvaged, chain, kind)] += 1

    damage_and_salvage()
    # About three of five, and one of four.
    assert outcomes["salvaged"] > DAMAGED * FACTOR / 3
    assert outcomes["compared"] > DAMAGED * FACTOR / 10


def assert_rightly_salvaged(salvaged: Salvaged, chain: RandomChain, kind: str) -> str:
    """Compare where the damage leaves no doubt about the right bytes; return if that is so."""
    size = len(salvaged.data)
    assert all(not any(salvaged.data[at : at + length]) for at, length in salvaged.lost)
    trusted = kind == "cut" and not set(salvaged.damage) - {"R111", "R110", "R52", "R114", "R36"}
    if trusted:
        expected = with_lost(chain.specs[0].expected_disk(0, size), salvaged.lost)
        assert wrong_sectors(salvaged.data, expected) == []
        return "compared"
    if kind == "header" and not salvaged.damage:
        assert wrong_sectors(salvaged.data, raw_of(chain.specs[0])) == []
        assert salvaged.lost == []
        return "compared"
    return "in doubt"


# -- words ---------------------------------------------------------------------------------------


def test_damage_names_its_file(tmp_path: Path) -> None:
    path = write_files(tmp_path, family(child(), disk(file_size=5 * MIB)))
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
