"""What a log may change, the policies for it, and that the file stays as it was."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builder import (
    KIB,
    METADATA_REGION,
    MIB,
    Block,
    BlockState,
    DataDescriptorSpec,
    ImageSpec,
    ZeroDescriptorSpec,
    append_entries,
    child_of,
    golden_g1,
    golden_g2,
    make_dirty,
    table_sectors,
)
from tests.support.chains import chain_bytes, disk_bytes
from tests.support.cli import run
from tests.support.files import sha256_of
from tests.support.logs import (
    BAT,
    BLOCK,
    PAGE,
    bat_page,
    blank_disk,
    disk_with,
    entry,
    erase,
    mark,
    marks_on,
)
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.extents import Extent, ExtentKind
from vhdx2raw.disk.walk import iter_extents
from vhdx2raw.errors import CorruptImageError
from vhdx2raw.vhdx.image import open_image
from vhdx2raw.vhdx.log import LogPolicy, LogReport, LogState


def dirty_disk() -> ImageSpec:
    """Describe a disk with two marks, one of them in the log only."""
    block = Block(content={0: b"\x01" * PAGE})
    return disk_with(entry(0, 1, mark(1, 2)), blocks={0: block})


# -- what a log may rewrite (R38) ------------------------------------------------------------


def other_geometry(spec: ImageSpec) -> None:
    """Make a larger disk with larger blocks of it."""
    spec.virtual_disk_size = 8 * MIB - 512
    spec.block_size = 4 * MIB
    spec.blocks = {1: Block(), 0: Block(BlockState.ZERO)}


def moved_metadata(spec: ImageSpec) -> None:
    spec.metadata_offset = 9 * MIB
    spec.metadata.items.reverse()


def moved_bat(spec: ImageSpec) -> None:
    spec.bat_offset = 9 * MIB


def more_blocks(spec: ImageSpec) -> None:
    spec.blocks = {3: Block(), 1: Block(), 2: Block(BlockState.UNMAPPED)}


@pytest.mark.parametrize("change", [other_geometry, moved_metadata, moved_bat, more_blocks])
@pytest.mark.parametrize("entry_count", [1, 4])
def test_tables_are_read_through_the_log(
    change: Callable[[ImageSpec], None], entry_count: int, bench: Bench
) -> None:
    """R38: region tables, metadata and BAT."""
    before, after = golden_g1(), golden_g1()
    for spec in (before, after):
        spec.blocks[0].file_offset = 12 * MIB
    change(after)
    dirty = make_dirty(before, after, entry_count=entry_count, position=MIB - 3 * PAGE)
    bench.assert_reads(dirty, ("R120", rf"entries: {entry_count}\)"))


def test_first_region_table_alone_may_be_rewritten(bench: Bench) -> None:
    """Item 32: copy 1 names another place of the metadata, and is the copy that counts."""
    spec = golden_g1()
    spec.metadata_offset = 8 * MIB
    spec.region_tables[1].entry(METADATA_REGION).file_offset = 7 * MIB
    first = table_sectors(spec)[192 * KIB]
    spec.patches[192 * KIB] = bytes(PAGE)
    spec.log_guid = golden_g2().log_guid
    append_entries(spec.log, [[DataDescriptorSpec(192 * KIB, first)]])
    image = bench.open(spec)
    assert image.regions.metadata.file_offset == 8 * MIB
    assert [warning.rule for warning in image.warnings] == ["R120", "R44"]


def test_region_table_that_the_log_breaks_is_broken(bench: Bench) -> None:
    """R38: its checksum is that of the bytes after replay."""
    spec = blank_disk()
    places = (192 * KIB, 256 * KIB)
    append_entries(spec.log, [[DataDescriptorSpec(place, b"regi" * 1024) for place in places]])
    bench.assert_refused(spec, CorruptImageError, "R43", "region table")


def test_zeros_over_part_of_the_bat_take_blocks_away(bench: Bench) -> None:
    """Item 31: 512 entries of the table become not present."""
    spec = ImageSpec(600 * MIB, MIB, {k: Block(content={0: b"k"}) for k in (511, 512, 599)})
    spec.log_guid = golden_g2().log_guid
    append_entries(spec.log, [[ZeroDescriptorSpec(BAT + PAGE, 2 * PAGE)]])
    image = bench.open(spec)
    assert disk_bytes(image, 511 * MIB, 1) == b"k"
    assert disk_bytes(image, 512 * MIB, 1) == b"\0"
    assert disk_bytes(image, 599 * MIB, 1) == b"\0"


def test_sector_bitmap_is_read_through_the_log(tmp_path: Path) -> None:
    """Item 90: a page of the bitmap of a child lies in the log only."""
    base = ImageSpec(2 * MIB, MIB, {k: Block() for k in range(2)})
    before, after = (
        child_of(base, ".\\base.vhdx", blocks={1: Block(BlockState.PARTIALLY_PRESENT)})
        for _ in range(2)
    )
    before.blocks[1].sector_bits = ()
    after.blocks[1].sector_bits = {0, 7, 8, 2047}
    base.write(tmp_path / "base.vhdx")
    path = tmp_path / "child.vhdx"
    make_dirty(before, after).write(path)
    with open_chain(path) as chain:
        data = chain_bytes(chain)
    assert data == after.expected_disk(0, 2 * MIB)
    assert data != before.expected_disk(0, 2 * MIB)


def test_logged_payload_is_one_extent(bench: Bench) -> None:
    """R24, R38: a log may change payload; which parts, only the source knows."""
    image = bench.open(disk_with(entry(0, 1, mark(3, 1), erase(7, 2))))
    with open_chain(bench.path) as chain:
        first: Extent = next(iter_extents(chain))
    assert (first.kind, first.length) == (ExtentKind.DATA, MIB)
    assert list(image.source.iter_in_file(BLOCK, MIB)) == [
        (BLOCK, 3 * PAGE),
        (BLOCK + 4 * PAGE, 3 * PAGE),
        (BLOCK + 9 * PAGE, MIB - 9 * PAGE),
    ]


# -- policies and options (R14) --------------------------------------------------------------


def test_refused_dirty_disk_has_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    dirty_disk().write(path)
    with pytest.raises(CorruptImageError, match="holds updates that are not in the file") as caught:
        open_image(path, LogPolicy.REFUSE)
    assert caught.value.finding.rule == "R14"
    assert caught.value.finding.file_offset == MIB
    assert caught.value.remedy.startswith("leave out {no_replay}")
    assert caught.value.path == str(path)


def test_ignoring_the_log_gives_the_state_before_it(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    assert marks_on(dirty_disk(), path, LogPolicy.IGNORE) == {0: 1}
    assert marks_on(dirty_disk(), path) == {0: 1, 1: 2}
    with open_image(path, LogPolicy.IGNORE) as image:
        assert image.log == LogReport(LogState.IGNORED)
        assert image.source.size == path.stat().st_size
        (warning,) = image.warnings
    assert warning.rule == "R14"
    assert "holds updates, which were ignored: this is the state before them" in str(warning)


@pytest.mark.parametrize("policy", LogPolicy)
def test_clean_disk_is_read_alike_by_every_policy(policy: LogPolicy, tmp_path: Path) -> None:
    path = tmp_path / "g1.vhdx"
    golden_g1().write(path)
    with open_image(path, policy) as image:
        assert image.log == LogReport(LogState.CLEAN)
        assert image.warnings == ()


@pytest.mark.parametrize("spec", [disk_with(), disk_with(log_length=0)])
def test_log_without_a_sequence_can_be_ignored(spec: ImageSpec, tmp_path: Path) -> None:
    """R31: which is the only way to read such a file."""
    assert marks_on(spec, tmp_path / "disk.vhdx", LogPolicy.IGNORE) == {}


def test_no_replay_ends_with_code_5_and_a_hint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "disk.vhdx", tmp_path / "disk.img"
    dirty_disk().write(source)
    outcome = run(capfd, "--no-replay", source, target)
    assert outcome.exit_code == 5
    assert outcome.err == (
        f"vhdx2raw: {source}: log at file offset 0x100000: holds updates that are not in the file"
        " yet (MS-VHDX 2.3.3)\n"
        "vhdx2raw: hint: leave out --no-replay to have it replayed in memory, which does not"
        " change the file, or use --ignore-log to read the state before it\n"
    )
    assert not target.exists()


def test_no_replay_refuses_a_dirty_parent_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parent = dirty_disk()
    parent.write(tmp_path / "base.vhdx")
    child = tmp_path / "child.vhdx"
    child_of(parent, ".\\base.vhdx").write(child)
    outcome = run(capfd, "--no-replay", child, tmp_path / "disk.img")
    assert outcome.exit_code == 5
    base = tmp_path / "base.vhdx"
    assert outcome.err.startswith(f"vhdx2raw: {base}: log at file offset 0x100000")


def test_ignore_log_gives_stale_bytes_and_warns(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "disk.vhdx", tmp_path / "disk.img"
    dirty_disk().write(source)
    outcome = run(capfd, "--ignore-log", "-v", source, target)
    assert outcome.exit_code == 0
    assert outcome.err_lines[0] == (
        f"vhdx2raw: {source}: warning: log at file offset 0x100000: holds updates, which were"
        " ignored: this is the state before them (MS-VHDX 2.3.3)"
    )
    assert target.read_bytes() == (b"\x01" * PAGE).ljust(2 * MIB, b"\0")


def test_verbose_reports_replay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "disk.vhdx", tmp_path / "disk.img"
    dirty_disk().write(source)
    outcome = run(capfd, "-v", source, target)
    assert outcome.exit_code == 0
    assert outcome.err_lines[0] == (
        f"vhdx2raw: {source}: warning: log at file offset 0x100000: was replayed in memory"
        " (entries: 1); the file was not closed cleanly, or is in use (MS-VHDX 2.3.3)"
    )
    assert target.read_bytes() == (b"\x01" * PAGE + b"\x02" * PAGE).ljust(2 * MIB, b"\0")


def test_both_options_contradict_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "disk.vhdx", tmp_path / "disk.img"
    dirty_disk().write(source)
    outcome = run(capfd, "--no-replay", "--ignore-log", source, target)
    assert outcome.exit_code == 2
    assert "--no-replay and --ignore-log contradict each other" in outcome.err
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "log", "rules"),
    [
        ([], {"state": "replayed", "entries": 1}, ["R120"]),
        (["--ignore-log"], {"state": "ignored", "entries": 0}, ["R14"]),
    ],
)
def test_json_reports_state_of_the_log(
    options: list[str],
    log: dict[str, object],
    rules: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, target = tmp_path / "disk.vhdx", tmp_path / "disk.img"
    dirty_disk().write(source)
    outcome = run(capfd, "--json", *options, source, target)
    assert outcome.exit_code == 0
    assert ("warning" in outcome.err) == ("R14" in rules)
    summary = json.loads(outcome.out)
    [link] = summary["chain"]
    assert (link["filename"], link["log"]) == (str(source), log)
    assert [warning["rule"] for warning in summary["warnings"]] == rules


# -- the source stays as it was (R5) ---------------------------------------------------------


def test_source_is_opened_read_only_and_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened: dict[str, list[int]] = {}
    real_open = os.open

    def recording_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:  # noqa: ANN401
        opened.setdefault(os.path.basename(os.fsdecode(path)), []).append(flags)  # noqa: PTH119
        return real_open(path, flags, *rest, **more)

    sources = [tmp_path / "child.vhdx", tmp_path / "base.vhdx"]
    child_of(dirty_disk(), ".\\base.vhdx").write(sources[0])
    dirty_disk().write(sources[1])
    before = [(sha256_of(path), path.stat().st_mtime_ns) for path in sources]
    monkeypatch.setattr(os, "open", recording_open)
    assert run(capfd, sources[0], tmp_path / "disk.img").exit_code == 0
    monkeypatch.undo()
    for path in sources:
        flags = opened[path.name]
        assert flags
        assert not any(flag & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) for flag in flags)
    assert [(sha256_of(path), path.stat().st_mtime_ns) for path in sources] == before


def test_dirty_source_without_write_permission_is_read(tmp_path: Path) -> None:
    """Replay needs no place to write to: neither the file nor its folder."""
    path = tmp_path / "disk.vhdx"
    dirty_disk().write(path)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with open_image(path) as image:
            assert disk_bytes(image, PAGE, PAGE) == b"\x02" * PAGE
        assert [item.name for item in tmp_path.iterdir()] == ["disk.vhdx"]
    finally:
        tmp_path.chmod(0o755)


def test_table_of_a_dirty_disk_is_stale_in_the_file(tmp_path: Path) -> None:
    """The premise of these tests: without replay, block 3 of golden G2 is not there."""
    path = tmp_path / "g2.vhdx"
    golden_g2().write(path)
    assert path.read_bytes()[BAT : BAT + PAGE] == bat_page(BLOCK | 6, 0, 2)
