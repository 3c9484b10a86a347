"""`vhdx2raw map`: the table and the JSON, held against files and other programs."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import jsonschema
import pytest

from tests.support.builder import GIB, MIB, TIB, Block, ImageSpec
from tests.support.cli import MODULE, run, small_disk, unusual_disk
from tests.support.files import names_in, sha256_of
from tests.support.logs import BLOCK, PAGE, disk_with, entry, erase, mark
from tests.support.maps import VALIDATOR, Facts, assert_tiles, family, fragmented, map_of
from tests.support.memory import MAX_RESIDENT, run_and_measure
from tests.support.naive_reader import NaiveDisk
from tests.support.peers import needs_program
from tests.support.real_images import DIRTY, REAL_IMAGES, needs_real_images, unpack_real_image

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
TABLE = """\
start     length        size  what    depth  offset    file
0x000000  0x100000      1MiB  data        0  0x500000  disk.vhdx
0x100000  0x100000      1MiB  absent      -  -         -
0x200000  0x100000      1MiB  data        0  0x600000  disk.vhdx
0x300000  0x100000      1MiB  zero        0  -         disk.vhdx
0x400000  0x100000      1MiB  data        0  0x400000  disk.vhdx
0x500000  0x000200      512B  absent      -  -         -
"""


def merged(facts: Iterable[Facts]) -> list[Facts]:
    """Give what both programs can agree on: all but the places in the file, neighbours as one."""
    parts: list[Facts] = []
    keys = ("depth", "present", "zero", "data")
    for extent in facts:
        part = {key: extent[key] for key in keys}
        if parts and all(parts[-1][key] == part[key] for key in keys):
            parts[-1]["length"] += extent["length"]
        else:
            parts.append(part | {"start": extent["start"], "length": extent["length"]})
    return parts


# -- the table ----------------------------------------------------------------------------------


def test_the_table_has_a_line_for_each_extent(disks: Path, capfd: Capture) -> None:
    outcome = run(capfd, "map", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out == TABLE


def test_the_table_names_the_file_of_each_depth(disks: Path, capfd: Capture) -> None:
    outcome = run(capfd, "map", "top.vhdx")
    rows = [line.split(maxsplit=6) for line in outcome.out.splitlines()[1:]]
    found = [(what, depth, Path(name).name) for *_, what, depth, _, name in rows]
    assert found == [
        ("data", "4", "layer0.vhdx"),
        ("data", "3", "layer1.vhdx"),
        ("data", "2", "layer2.vhdx"),
        ("data", "1", "layer3.vhdx"),
        ("data", "0", "top.vhdx"),
        ("zero", "0", "top.vhdx"),
        ("data", "0", "top.vhdx"),
        ("data", "4", "layer0.vhdx"),
        ("absent", "-", "-"),
    ]


def test_table_marks_what_is_in_the_log(disks: Path, capfd: Capture) -> None:
    disk_with(entry(0, 1, mark(3, 9))).write("dirty.vhdx")
    lines = run(capfd, "map", "dirty.vhdx").out.splitlines()
    assert lines[2].split() == ["0x003000", "0x001000", "4KiB", "data", "0", "log", "dirty.vhdx"]
    clean = run(capfd, "map", "--ignore-log", "dirty.vhdx").out.splitlines()
    assert [line.split()[3:6] for line in clean[1:]] == [
        ["data", "0", "0x400000"],
        ["absent", "-", "-"],
    ]


def test_file_name_is_escaped_in_a_map(disks: Path, capfd: Capture) -> None:
    name = "d\x1b[2J\nsk.vhdx"
    (disks / "disk.vhdx").rename(name)
    for option in ((), ("--picture",), ("--svg", "-")):
        outcome = run(capfd, "map", *option, name)
        assert outcome.exit_code == 0
        assert "\x1b" not in outcome.out
        assert "d\\x1b[2J\\nsk.vhdx" in outcome.out
    (extent, *_) = map_of(capfd, name)
    assert extent["filename"] == name


# -- JSON ---------------------------------------------------------------------------------------


def test_json_has_the_keys_of_qemu_img(disks: Path, capfd: Capture) -> None:
    first, hole, *_ = map_of(capfd, "disk.vhdx")
    assert first == {
        "start": 0,
        "length": MIB,
        "depth": 0,
        "present": True,
        "zero": False,
        "data": True,
        "offset": 5 * MIB,
        "filename": "disk.vhdx",
    }
    assert hole == {
        "start": MIB,
        "length": MIB,
        "depth": 0,
        "present": False,
        "zero": True,
        "data": False,
        "filename": "disk.vhdx",
    }


BROKEN = [
    {"offset": 5 * MIB},
    {"data": True},
    {"present": True, "zero": False},
    {"length": 0},
    {"compressed": False},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_the_schema_refuses_what_contradicts_itself(change: Facts) -> None:
    numbers = {"start": 0, "length": 1, "depth": 0}
    right = numbers | {"present": False, "zero": True, "data": False} | {"filename": "a"}
    VALIDATOR.validate([right])
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate([right | change])


@pytest.mark.parametrize("name", ["disk.vhdx", "top.vhdx"])
def test_json_map_reads_as_the_disk(disks: Path, capfd: Capture, name: str) -> None:
    spec = small_disk() if name == "disk.vhdx" else family()[name]
    facts = map_of(capfd, name)
    assert_tiles(facts, 0, spec.virtual_disk_size)
    is_right = assembled(facts) == spec.expected_disk(0, spec.virtual_disk_size)
    assert is_right


def assembled(facts: Iterable[Facts]) -> bytes:
    """Read a disk by its map, with no other knowledge."""
    data = bytearray()
    for extent in facts:
        if extent["zero"]:
            data += bytes(extent["length"])
            continue
        with Path(extent["filename"]).open("rb") as file:
            file.seek(extent["offset"])
            data += file.read(extent["length"])
    return bytes(data)


def test_what_is_under_the_log_has_no_offset(disks: Path, capfd: Capture) -> None:
    """Pages 3 to 6 were updated: two marked, two erased. All others are in the file."""
    disk_with(entry(0, 1, mark(3, 9), mark(4, 8), erase(5, 2))).write("dirty.vhdx")
    facts = map_of(capfd, "dirty.vhdx")
    found = [(e["start"] // PAGE, e["length"] // PAGE, e.get("offset")) for e in facts]
    assert found == [(0, 3, BLOCK), (3, 4, None), (7, 249, BLOCK + 7 * PAGE), (256, 256, None)]
    assert [extent["data"] for extent in facts] == [True, True, True, False]
    disk = NaiveDisk([Path("dirty.vhdx")])
    for extent in facts:
        if "offset" in extent:
            is_right = assembled([extent]) == disk.read(extent["start"], extent["length"])
            assert is_right


def test_a_parent_can_be_named(disks: Path, capfd: Capture) -> None:
    (disks / "elsewhere").mkdir()
    (disks / "layer3.vhdx").rename("elsewhere/layer3.vhdx")
    assert run(capfd, "map", "top.vhdx").exit_code == 6
    for option in ("--parent=elsewhere/layer3.vhdx", "--parent-dir=elsewhere"):
        facts = map_of(capfd, option, "--parent-dir=.", "top.vhdx")
        assert {Path(extent["filename"]).name for extent in facts} == set(family())


# -- ranges -------------------------------------------------------------------------------------

RANGES = [
    ("--start-offset=1M --max-length=1M", MIB, 2 * MIB),
    ("--start-offset=1047552", MIB - 1024, 5 * MIB + 512),
    ("--max-length=5000", 0, 5000),
    ("--start-offset=5M --max-length=1G", 5 * MIB, 5 * MIB + 512),
    ("--max-length=0", 0, 0),
    ("--start-offset=1T", 5 * MIB + 512, 5 * MIB + 512),
]


@pytest.mark.parametrize(("options", "start", "end"), RANGES, ids=[row[0] for row in RANGES])
def test_a_range_is_a_cut_of_the_whole(
    disks: Path, capfd: Capture, options: str, start: int, end: int
) -> None:
    facts = map_of(capfd, *options.split(), "disk.vhdx")
    assert_tiles(facts, start, end)
    expected = small_disk().expected_disk(start, end - start)
    is_right = assembled(facts) == expected
    assert is_right


@pytest.mark.parametrize("option", ["--start-offset", "--max-length"])
def test_a_range_that_is_no_size_is_wrong_usage(disks: Path, capfd: Capture, option: str) -> None:
    outcome = run(capfd, "map", option, "many", "disk.vhdx")
    assert outcome.exit_code == 2
    assert "'many' is not a size such as 4096, 4k or 1M" in " ".join(outcome.err.split())


@pytest.mark.parametrize("option", ["--picture", "--svg=-"])
def test_a_picture_of_nothing_has_no_cells(disks: Path, capfd: Capture, option: str) -> None:
    outcome = run(capfd, "map", option, "--max-length=0", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "0x0 bytes of it from 0x0 on" in outcome.out
    assert "cells" not in outcome.out


# -- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [["--json", "--picture"], ["--picture", "--svg=a"], ["--output=json", "--svg=a"]]
)
def test_two_forms_of_output_are_wrong_usage(
    disks: Path, capfd: Capture, options: list[str]
) -> None:
    before = names_in(disks)
    outcome = run(capfd, "map", *options, "disk.vhdx")
    assert outcome.exit_code == 2
    assert "give only one of --json, --picture and --svg" in " ".join(outcome.err.split())
    assert names_in(disks) == before


@pytest.mark.parametrize("option", [[], ["--json"], ["--picture"], ["--svg=a.svg"]], ids=str)
def test_unreadable_image_has_no_map(disks: Path, capfd: Capture, option: list[str]) -> None:
    (disks / "text.vhdx").write_text("no disk")
    (disks / "short.vhdx").write_bytes((disks / "disk.vhdx").read_bytes()[: 6 * MIB])
    (disks / "layer0.vhdx").unlink()
    before = names_in(disks)
    expected = {"missing.vhdx": 8, "text.vhdx": 4, "short.vhdx": 5, "top.vhdx": 6}
    for name, code in expected.items():
        outcome = run(capfd, "map", *option, name)
        assert outcome.exit_code == code, name
        assert (
            list(json.loads(outcome.out)) == ["error"] if option == ["--json"] else not outcome.out
        )
        assert outcome.err.startswith("vhdx2raw: ")
    assert names_in(disks) == before


def test_warnings_are_printed_unless_asked_for_quiet(disks: Path, capfd: Capture) -> None:
    unusual_disk().write("unusual.vhdx")
    assert run(capfd, "map", "-q", "unusual.vhdx").err == ""
    outcome = run(capfd, "map", "--json", "unusual.vhdx")
    assert outcome.err.startswith(
        "vhdx2raw: unusual.vhdx: warning: header 1 at file offset 0x10000: "
    )
    assert json.loads(outcome.out)


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["table", "json"])
def test_closed_pipe_ends_the_map_silently(tmp_path: Path, option: list[str]) -> None:
    fragmented(20_000).write(tmp_path / "disk.vhdx")
    with subprocess.Popen(
        [*MODULE, "map", *option, tmp_path / "disk.vhdx"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (7, b"")


# -- large disks --------------------------------------------------------------------------------


def test_map_of_many_extents_needs_little_memory(tmp_path: Path) -> None:
    """Its JSON alone, with a long name on each line, is more than may be taken."""
    path = tmp_path / ("x" * 250)
    fragmented(110_000).write(path)
    code, peak, text = run_and_measure("map", "--json", path)
    assert code == 0
    assert len(text) > MAX_RESIDENT
    assert peak < MAX_RESIDENT
    assert text.count('"data": true') == 110_000


@pytest.mark.parametrize("option", ["--json", "--picture", "--svg=-"])
def test_64_tib_take_little_memory(tmp_path: Path, option: str) -> None:
    last = 64 * TIB // MIB - 1
    spec = ImageSpec(64 * TIB, MIB, {index: Block(content=0) for index in (last, 4096, 0)})
    spec.write(tmp_path / "disk.vhdx")
    code, peak, text = run_and_measure("map", option, tmp_path / "disk.vhdx")
    assert code == 0
    assert peak < MAX_RESIDENT
    if option == "--json":
        found = [(e["start"], e["length"]) for e in json.loads(text) if e["data"]]
        assert found == [(0, MIB), (4 * GIB, MIB), (last * MIB, MIB)]
    else:
        assert "64 TiB; one cell is" in text
        assert "3 MiB in all" in text


# -- other truths -------------------------------------------------------------------------------


def demand_qemu() -> None:
    needs_program("qemu-img")
    needs_program("qemu-io")


def qemu(*command: str | Path) -> str:
    """Run a program of QEMU, which has to succeed."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", range(4))
def test_qemu_img_map_agrees(tmp_path: Path, capfd: Capture, seed: int) -> None:
    """In a qcow2 whose clusters are as large as our blocks: of a VHDX qemu-img maps nothing."""
    demand_qemu()
    choose = random.Random(seed)
    block_size, size = choose.choice([1, 2]) * MIB, 40 * MIB + 512
    vhdx, qcow2 = tmp_path / "disk.vhdx", tmp_path / "disk.qcow2"
    options = f"subformat=dynamic,block_state_zero=off,block_size={block_size}"
    qemu("qemu-img", "create", "-f", "vhdx", "-o", options, vhdx, str(size))
    qemu("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size={block_size}", qcow2, str(size))
    places = [choose.randrange(size // 512) * 512 for _ in range(8)]
    writes = [f"-cwrite -P 7 {at} {min(4096, size - at)}" for at in (*places, size - 512)]
    for kind, path in (("vhdx", vhdx), ("qcow2", qcow2)):
        qemu("qemu-io", "-f", kind, *writes, path)
    theirs = json.loads(qemu("qemu-img", "map", "-f", "qcow2", "--output=json", qcow2))
    ours = map_of(capfd, vhdx)
    assert merged(ours) == merged(theirs)
    raw = tmp_path / "disk.raw"
    qemu("qemu-img", "convert", "-f", "vhdx", "-O", "raw", vhdx, raw)
    is_right = assembled(ours) == raw.read_bytes()
    assert is_right


REAL = [name for name, (size, _) in REAL_IMAGES.items() if size <= GIB or name == DIRTY]

# Its writer crashed: two blocks that it had made are not in the table.
UNCLAIMED = r".*: warning: file at file offset 0xa00000: holds data that .*: found 8 MiB\n"


@needs_real_images
def test_some_real_images_are_read() -> None:
    assert len(REAL) >= 3
    assert DIRTY in REAL


@pytest.mark.parametrize("name", REAL)
def test_real_image_read_by_its_map_is_right(tmp_path: Path, capfd: Capture, name: str) -> None:
    size, expected = REAL_IMAGES[name]
    facts = map_of(
        capfd, unpack_real_image(name, tmp_path), warning=UNCLAIMED if name == DIRTY else ""
    )
    assert_tiles(facts, 0, size)
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(size)
        for extent in facts:
            if extent["data"]:
                file.seek(extent["start"])
                file.write(assembled([extent]))
    assert sha256_of(raw) == expected
