"""What a check finds: every seeded fault, all of them at once, and nothing in sound files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.builder import (
    GIB,
    MIB,
    TIB,
    ZERO_GUID,
    BitmapSpec,
    Block,
    BlockState,
    HeaderSpec,
    ImageSpec,
    MetadataItemSpec,
    RegionEntrySpec,
    RegionTableSpec,
    child_of,
    golden_g1,
    golden_g2,
    golden_g3,
    golden_g4,
    make_dirty,
)
from tests.support.chains import BASE_NAME, LARGEST_WHOLE_COMPARISON, OTHER_GUID, table_7_4
from tests.support.cli import small_disk
from tests.support.files import open_files, write_files
from tests.support.logs import disk_with, entry, mark, table_7_3
from tests.support.memory import peak_memory
from tests.support.peers import needs_program
from tests.support.real_images import CLEAN, DIRTY, needs_real_images, unpack_real_image
from tests.support.seeded_faults import FAULTS, NOT_CHECKABLE
from tests.support.seeded_faults.disks import (
    HEADER_2,
    METADATA,
    PARTIAL,
    UNKNOWN,
    child,
    current,
    disk,
    entry_of,
    family,
    more_items,
    regions,
)
from tests.support.seeded_faults.fault import Fault
from vhdx2raw import check
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import ImageError, ParentError, UnsupportedImageError, Vhdx2rawError
from vhdx2raw.findings import MAX_FINDINGS_PER_RULE, Severity
from vhdx2raw.operations.check import CheckReport, consequence_of
from vhdx2raw.operations.check.report import OF_SEVERITY
from vhdx2raw.rules import Rule
from vhdx2raw.vhdx.log import LogPolicy


def found_in(report: CheckReport) -> list[tuple[Severity, str, int | None]]:
    return [(severity, f.rule, f.file_offset) for severity, f in report.results]


def rules_in(report: CheckReport, severity: Severity) -> list[str]:
    return [finding.rule for kind, finding in report.results if kind is severity]


def assert_right_bytes(path: Path, spec: ImageSpec) -> None:
    """Compare the disk, or what lies around its blocks if it is large."""
    size = spec.virtual_disk_size
    places = [(0, size)]
    if size > LARGEST_WHOLE_COMPARISON:
        places = [(index * spec.block_size, spec.block_size) for index in spec.blocks]
    with open_disk(path) as disk:
        assert disk.size == size
        for offset, length in places:
            is_right = disk.pread(length, offset) == spec.expected_disk(offset, length)
            assert is_right, f"wrong bytes from {offset:#x} on"


# -- the table -----------------------------------------------------------------------------------


def all_rules() -> set[str]:
    """Give the number of every rule; some stand in the table as a range, such as R86-R87."""
    numbers = [re.findall(r"\d+", rule) for rule in Rule]
    return {
        f"R{n}"
        for first, *last in numbers
        for n in range(int(first), int((last or [first])[0]) + 1)
    }


def test_every_rule_has_a_fault_or_a_reason() -> None:
    seeded = {fault.rule for fault in FAULTS}
    assert seeded | set(NOT_CHECKABLE) == all_rules()
    assert seeded & set(NOT_CHECKABLE) == set()
    assert len(FAULTS) >= 150
    assert len({str(fault) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_seeded_fault_is_the_only_finding(tmp_path: Path, fault: Fault) -> None:
    before = open_files()
    path = write_files(tmp_path, fault.files)
    report = check(path)
    assert open_files() == before
    assert report.filename == str(path)
    assert found_in(report) == [(f.severity, f.rule, f.file_offset) for f in fault.found]
    for (_, finding), expected in zip(report.results, fault.found, strict=True):
        assert re.search(expected.text, str(finding)), str(finding)
        assert finding.structure
    assert report.suppressed == {}
    for severity in Severity:
        assert report.count(severity) == len(rules_in(report, severity))
    assert report.is_sound == (report.count(Severity.ERROR) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_strict_reader_refuses_what_check_calls_an_error(tmp_path: Path, fault: Fault) -> None:
    """It refuses the file for the first error, and reads any other file right."""
    path = write_files(tmp_path, fault.files)
    errors = [found.rule for found in fault.found if found.severity is Severity.ERROR]
    if not errors and not fault.refused:
        spec = fault.files[path.name]
        assert isinstance(spec, ImageSpec)
        if fault.rule != "R122":  # whose bytes are lost
            assert_right_bytes(path, spec)
        return
    with pytest.raises(Vhdx2rawError) as caught:
        open_chain(path).close()
    if isinstance(caught.value, ParentError):
        assert errors in (["R100"], ["R105"], ["R108"], ["R110"])
    elif errors != ["R104"]:
        assert isinstance(caught.value, ImageError)
        assert caught.value.finding.rule == errors[0]


def test_what_is_no_vhdx_is_not_checked(tmp_path: Path) -> None:
    for content in (b"", b"vhdxfile", b"QFI\xfb" + bytes(MIB), bytes(MIB)):
        path = write_files(tmp_path, {"disk.vhdx": content})
        with pytest.raises(UnsupportedImageError, match="not a VHDX") as caught:
            check(path)
        assert caught.value.path == str(path)
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "missing.vhdx")


# -- several faults at once ----------------------------------------------------------------------


def test_several_faults_in_one_file_are_all_found(tmp_path: Path) -> None:
    spec = child(
        headers=[HeaderSpec(1), HeaderSpec(2, checksum=0)],
        blocks={
            0: Block(PARTIAL, sector_bits={1}, file_offset=6 * MIB),
            1: Block(file_offset=6 * MIB),
            2: Block(reserved_bits=3),
            3: Block(BlockState.RESERVED_4),
        },
        file_parameters_flags=2 | 64,
        virtual_disk_id=ZERO_GUID,
        physical_sector_size=7,
    )
    spec.region_tables[1].checksum = 0
    path = write_files(tmp_path, family(spec, disk(data_write_guid=OTHER_GUID)))
    assert found_in(check(path)) == [
        (Severity.WARNING, "R7", HEADER_2),
        (Severity.WARNING, "R42", 256 * 1024),
        (Severity.WARNING, "R65", METADATA + 64 * 1024),
        (Severity.NOTE, "R68", METADATA + 64 * 1024 + 36),
        (Severity.ERROR, "R84", entry_of(1)),
        (Severity.ERROR, "R77", entry_of(2)),
        (Severity.ERROR, "R80", entry_of(3)),
        (Severity.NOTE, "R68", None),
        (Severity.NOTE, "R69", None),
        (Severity.ERROR, "R100", None),
    ]


def test_file_that_cannot_be_opened_is_checked(tmp_path: Path) -> None:
    """Both headers, both tables and the sizes are damaged."""
    spec = disk(
        headers=[HeaderSpec(1, checksum=0), HeaderSpec(2, checksum=0)],
        region_tables=[RegionTableSpec(checksum=0), RegionTableSpec(checksum=0, reserved=1)],
        block_size=3 * MIB,
        blocks={},
        patches={600: b"x"},
        file_size=6 * MIB,
    )
    report = check(write_files(tmp_path, {"disk.vhdx": spec}))
    assert [rule for _, rule, _ in found_in(report)] == ["R10", "R43", "R63", "R61", "R16", "R53"]


def test_bat_is_checked_after_damaged_headers(tmp_path: Path) -> None:
    spec = disk(
        headers=[HeaderSpec(1, checksum=0), HeaderSpec(2, checksum=0)],
        bat_overrides={1: 4 * MIB | 6, 3: 4},
    )
    report = check(write_files(tmp_path, {"disk.vhdx": spec}))
    assert found_in(report) == [
        (Severity.ERROR, "R10", None),
        (Severity.ERROR, "R84", entry_of(1)),
        (Severity.ERROR, "R80", entry_of(3)),
    ]


def test_no_entries_are_read_from_what_is_no_bat(tmp_path: Path) -> None:
    """One entry is wrong, not each of those that would be read out of the header section."""
    path = write_files(tmp_path, {"disk.vhdx": regions(bat={"file_offset": 0})})
    assert rules_in(check(path), Severity.ERROR) == ["R47", "R74"]
    assert rules_in(check(path), Severity.WARNING) == []


# -- many faults ---------------------------------------------------------------------------------


def test_many_findings_of_one_kind_are_only_counted(
    tmp_path: Path,
) -> None:
    blocks = {2 * index: Block(BlockState.RESERVED_4) for index in range(30)}
    blocks |= {2 * index + 1: Block(BlockState.UNDEFINED, reserved_bits=1) for index in range(25)}
    report = check(write_files(tmp_path, {"disk.vhdx": disk(virtual_disk_size=GIB, blocks=blocks)}))
    listed = rules_in(report, Severity.ERROR)
    assert (listed.count("R77"), listed.count("R80")) == (MAX_FINDINGS_PER_RULE,) * 2
    assert report.suppressed == {
        (Severity.ERROR, Rule.ENTRY_RESERVED): 5,
        (Severity.ERROR, Rule.BLOCK_STATE): 10,
    }
    assert report.count(Severity.ERROR) == 55
    assert report.count(Severity.WARNING) == 0
    assert not report.is_sound


def test_many_overlaps_are_counted(tmp_path: Path) -> None:
    spec = disk(virtual_disk_size=200 * MIB, blocks={})
    spec.bat_overrides = dict.fromkeys(range(200), 4 * MIB | 6)
    spec.file_size = 5 * MIB
    report = check(write_files(tmp_path, {"disk.vhdx": spec}))
    assert rules_in(report, Severity.ERROR) == ["R84"] * MAX_FINDINGS_PER_RULE
    assert report.count(Severity.ERROR) == 199


@pytest.mark.slow
def test_64_tib_of_faults_take_little_memory(tmp_path: Path) -> None:
    """In every 256th chunk a block is damaged, another overlaps, and a bitmap entry is stray."""
    spec = ImageSpec(64 * TIB, MIB, {0: Block()})
    index, bitmap = spec.geometry.payload_bat_index, spec.geometry.bitmap_bat_index
    chunks = range(0, spec.geometry.chunk_count, 256)
    place = spec.block_file_offset(0)
    for chunk in chunks:
        first = chunk * spec.geometry.chunk_ratio + 1
        spec.bat_overrides[index(first)] = 4
        spec.bat_overrides[index(first + 1)] = place | 6
        spec.bat_overrides[index(first + 2)] = 8 | 1
        spec.bat_overrides[bitmap(chunk)] = 6
    spec.bat_overrides.pop(bitmap(chunks[-1]), None)
    path = write_files(tmp_path, {"disk.vhdx": spec})
    reports: list[CheckReport] = []
    assert peak_memory(lambda: reports.append(check(path))) < 16 * MIB
    [report] = reports
    for rule in (Rule.ENTRY_RESERVED, Rule.BLOCK_STATE, Rule.BLOCK_OVERLAP):
        kind = Severity.ERROR, rule
        assert rules_in(report, Severity.ERROR).count(rule) == MAX_FINDINGS_PER_RULE
        assert report.suppressed[kind] == len(chunks) - MAX_FINDINGS_PER_RULE
    (stray,) = [finding for _, finding in report.results if finding.rule == "R82"]
    assert stray.found == str(len(chunks) - 1)


# -- sound files ---------------------------------------------------------------------------------


def assert_healthy(path: Path) -> CheckReport:
    """Check a file in which there is nothing worse than a note."""
    report = check(path)
    worse = [str(finding) for kind, finding in report.results if kind is not Severity.NOTE]
    assert worse == []
    assert report.is_sound
    assert (report.count(Severity.ERROR), report.count(Severity.WARNING)) == (0, 0)
    return report


def _unusual_but_allowed() -> Mapping[str, ImageSpec]:
    last = 64 * TIB // (256 * MIB) - 1
    one = disk(headers=[HeaderSpec(1), HeaderSpec(1)])
    reversed_items = disk()
    reversed_items.metadata.items.reverse()
    return {
        "golden 1": golden_g1(),
        "golden 4": golden_g4(),
        "small": small_disk(),
        "without any block": disk(blocks={}),
        "R2: a Creator that is no text": disk(creator=b"\x00\xd8\x1b[31m" * 80),
        "R2: no Creator": disk(creator=""),
        "R8: the greatest and the smallest number": disk(
            headers=[HeaderSpec(2**64 - 1), HeaderSpec(0)]
        ),
        "R9: two headers alike": one,
        "R13: no log": disk(headers=current(log_offset=0, log_length=0)),
        "R41: stale log entries": disk_with(entry(0, 7, mark(0, 1)), log_guid=ZERO_GUID),
        "R45: an optional region": regions(
            RegionEntrySpec(UNKNOWN, 6 * MIB, MIB, 0), file_size=7 * MIB
        ),
        "R59: user items": more_items(
            MetadataItemSpec(UNKNOWN, b"x", 1), MetadataItemSpec(OTHER_GUID, b"", 0)
        ),
        "R64: fixed": disk(leave_block_allocated=True),
        "R66: 64 TiB": disk(
            virtual_disk_size=64 * TIB, block_size=256 * MIB, blocks={last: Block(content=1)}
        ),
        "R70: items in another order": reversed_items,
        "R79: a place of old contents": disk(
            blocks={0: Block(), 2: Block(BlockState.UNMAPPED, file_offset=4 * MIB)}
        ),
        "R92: sectors of 4096 bytes": disk(logical_sector_size=4096),
        "R112: the last block is short": disk(
            virtual_disk_size=9 * MIB,
            block_size=8 * MIB,
            blocks={0: Block(), 1: Block()},
            file_size=13 * MIB,
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("what", _unusual_but_allowed())
def test_allowed_file_has_no_findings(tmp_path: Path, what: str) -> None:
    path = write_files(tmp_path, {"disk.vhdx": _unusual_but_allowed()[what]})
    assert assert_healthy(path).results == ()


ALLOWED_CHILDREN: Mapping[str, Mapping[str, ImageSpec]] = {
    "golden 3": {"g3.vhdx": golden_g3(), "g1.vhdx": golden_g1()},
    **{
        row.case: row.files
        for row in table_7_4()
        if row.refusal is None and not row.warnings and "both flags" not in row.case
    },
    "R88: a bitmap that is not needed": {
        "child.vhdx": child(bitmaps={0: BitmapSpec(fill=0x5A)}, blocks={1: Block()}),
        BASE_NAME: disk(),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ALLOWED_CHILDREN)
def test_allowed_child_has_no_findings(tmp_path: Path, what: str) -> None:
    report = assert_healthy(write_files(tmp_path, ALLOWED_CHILDREN[what]))
    merges = [finding.rule for _, finding in report.results]
    odd = ["R99"] if what == "GUID without braces" else []
    assert merges == (["R101"] if "parent_linkage2" in what else odd)


REPLAYABLE = {row.case: row.spec for row in table_7_3() if isinstance(row.outcome, dict)}


@pytest.mark.slow
@pytest.mark.parametrize("what", REPLAYABLE)
def test_a_log_that_can_be_replayed_is_only_noted(tmp_path: Path, what: str) -> None:
    report = assert_healthy(write_files(tmp_path, {"disk.vhdx": REPLAYABLE[what]}))
    assert [finding.rule for _, finding in report.results] == ["R120"]


def test_what_the_log_repairs_is_no_fault(tmp_path: Path) -> None:
    """Everything is judged as it reads after the replay."""
    report = assert_healthy(write_files(tmp_path, {"disk.vhdx": golden_g2()}))
    assert [finding.rule for _, finding in report.results] == ["R120"]
    before = disk(bat_overrides={1: 4, 3: 6})
    path = write_files(tmp_path, {"disk.vhdx": make_dirty(before, disk())})
    assert [finding.rule for _, finding in assert_healthy(path).results] == ["R120"]
    found = found_in(check(path, log_policy=LogPolicy.IGNORE))
    assert found == [
        (Severity.WARNING, "R14", MIB),
        (Severity.ERROR, "R80", entry_of(1)),
        (Severity.ERROR, "R78", entry_of(3)),
    ]


@pytest.mark.parametrize("name", CLEAN)
def test_real_images_have_no_warnings(tmp_path: Path, name: str) -> None:
    assert_healthy(unpack_real_image(name, tmp_path))


@needs_real_images
def test_real_image_of_a_crashed_writer_has_two_blocks_that_belong_to_nothing(
    tmp_path: Path,
) -> None:
    report = check(unpack_real_image(DIRTY, tmp_path))
    [(severity, unclaimed)] = [row for row in report.results if row[0] is not Severity.NOTE]
    assert (severity, unclaimed.rule) == (Severity.WARNING, "R122")
    assert (unclaimed.file_offset, unclaimed.found) == (10 * MIB, "8 MiB")
    assert report.is_sound


@pytest.mark.parametrize("subformat", ["dynamic", "fixed", "fixed,block_state_zero=off"])
@pytest.mark.parametrize("size", [9 * MIB + 512, 5 * GIB])
def test_images_of_qemu_have_no_warnings(tmp_path: Path, subformat: str, size: int) -> None:
    needs_program("qemu-img")
    path = tmp_path / "disk.vhdx"
    options = f"subformat={subformat}"
    command = ["qemu-img", "create", "-q", "-f", "vhdx", "-o", options, str(path), str(size)]
    subprocess.run(command, check=True)
    report = assert_healthy(path)
    assert {finding.rule for _, finding in report.results} <= {"R50", "R113"}


# -- the parent ----------------------------------------------------------------------------------


def test_a_child_can_be_held_against_a_named_parent(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"child.vhdx": child(), "elsewhere.vhdx": disk()})
    assert [finding.rule for _, finding in check(path).results] == ["R110"]
    assert check(path, parents=[tmp_path / "elsewhere.vhdx"]).results == ()
    disk(data_write_guid=OTHER_GUID).write(tmp_path / "other.vhdx")
    report = check(path, parents=[tmp_path / "other.vhdx"])
    assert found_in(report) == [(Severity.ERROR, "R100", None)]


def test_a_parent_is_looked_for_in_named_folders(tmp_path: Path) -> None:
    (tmp_path / "parents").mkdir()
    disk().write(tmp_path / "parents" / BASE_NAME)
    path = write_files(tmp_path, {"child.vhdx": child()})
    assert check(path, parent_dirs=[tmp_path / "parents"]).results == ()


def test_child_without_a_locator_matches_no_parent(
    tmp_path: Path,
) -> None:
    """It does not record which version it needs."""
    path = write_files(
        tmp_path, {"child.vhdx": child(locator=None, has_parent=True), BASE_NAME: disk()}
    )
    report = check(path, parents=[tmp_path / BASE_NAME])
    assert rules_in(report, Severity.ERROR) == ["R94", "R100"]


@pytest.mark.parametrize(
    ("grandparent", "severity", "rule"),
    [
        (None, Severity.ERROR, "R110"),
        (disk(data_write_guid=OTHER_GUID), Severity.ERROR, "R100"),
        (disk(logical_sector_size=4096), Severity.ERROR, "R105"),
        (disk(file_size=5 * MIB), Severity.ERROR, "R104"),
        (b"no VHDX", Severity.ERROR, "R110"),
    ],
    ids=["missing", "another version", "other sectors", "cut off", "no VHDX"],
)
def test_a_wrong_grandparent_is_found(
    tmp_path: Path, grandparent: ImageSpec | bytes | None, severity: Severity, rule: str
) -> None:
    middle = child(data_write_guid=disk().data_write_guid)
    files = {"top.vhdx": child_of(middle, ".\\middle.vhdx"), "middle.vhdx": middle}
    path = write_files(tmp_path, files if grandparent is None else files | {BASE_NAME: grandparent})
    report = check(path)
    assert found_in(report) == [(severity, rule, None)]
    assert str(tmp_path / ("middle.vhdx" if rule != "R104" else BASE_NAME)) in str(report.results)


def test_a_sound_chain_has_no_findings(tmp_path: Path) -> None:
    middle = child(data_write_guid=disk().data_write_guid)
    top = child_of(middle, ".\\middle.vhdx")
    path = write_files(tmp_path, {"top.vhdx": top, "middle.vhdx": middle, BASE_NAME: disk()})
    assert check(path).results == ()


# -- consequences --------------------------------------------------------------------------------


def test_every_error_has_a_consequence() -> None:
    consequences = {str(rule): rule.error for rule in Rule}
    for fault in FAULTS:
        for found in fault.found:
            if found.severity is Severity.ERROR:
                assert consequences[found.rule], found.rule


def test_consequence_defaults_to_that_of_the_severity(tmp_path: Path) -> None:
    report = check(write_files(tmp_path, {"disk.vhdx": disk(patches={600: b"x"})}))
    ((severity, finding),) = report.results
    assert consequence_of(severity, finding) == "none"
    assert consequence_of(Severity.ERROR, finding) == OF_SEVERITY[Severity.ERROR]
    of_rules = [words for rule in Rule for words in (rule.error, rule.warning, rule.note) if words]
    for words in (*of_rules, *OF_SEVERITY.values()):
        assert re.fullmatch(r"[a-z][^.]*[^. ]", words), words
