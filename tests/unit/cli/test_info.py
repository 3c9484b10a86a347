"""`vhdx2raw info`: facts for people and for programs, of every kind of image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.support.builder import (
    MIB,
    Block,
    BlockState,
    HeaderSpec,
    ImageSpec,
    child_of,
    linkage_text,
    make_dirty,
    parent_locator,
    same_bytes_guid,
)
from tests.support.chains import RELATIVE, base_disk, child_with, small_disk
from tests.support.cli import Outcome, run, unusual_disk
from tests.support.contents import DISK_GUID, LINUX, UUID_BYTES, UUID_TEXT, gpt, record
from tests.support.files import sha256_of
from tests.support.info import MOUNT, VALIDATOR, Capture, facts_of, named_lines

EXT2 = {1080: b"\x53\xef", 1128: UUID_BYTES, 1144: b"root"}
PARTIAL = BlockState.PARTIALLY_PRESENT

pytestmark = pytest.mark.usefixtures("folder")


def dynamic() -> ImageSpec:
    """Describe a disk with a bare ext2 in the first of 16 blocks."""
    blocks = {0: Block(content=EXT2), 5: Block(BlockState.ZERO), 7: Block(BlockState.UNMAPPED)}
    return ImageSpec(16 * MIB, MIB, blocks)


def dirty() -> ImageSpec:
    """Describe the same disk, whose first block is in the log only."""
    before = dynamic()
    del before.blocks[0]
    return make_dirty(before, dynamic(), entry_count=2)


def partitioned(sector_size: int = 512) -> ImageSpec:
    """Describe a disk with a GPT, whose partition holds ext2."""
    row = (LINUX, MIB // sector_size, 2 * MIB // sector_size - 1, "the \x1b[31mroot")
    pieces = gpt(row, size=4 * MIB, sector_size=sector_size)
    pieces |= {MIB + offset: data for offset, data in EXT2.items()}
    block = Block(content=pieces)
    return ImageSpec(4 * MIB, 4 * MIB, {0: block}, logical_sector_size=sector_size)


def family() -> dict[str, ImageSpec]:
    """Describe three layers; the file system lies in the lowest one."""
    base = base_disk(blocks={0: Block(content=EXT2)})
    middle = child_of(base, RELATIVE, tag="middle", blocks={1: Block()})
    top = child_of(middle, ".\\middle.vhdx", data_write_guid=same_bytes_guid(9))
    top.blocks = {2: Block(PARTIAL, sector_bits={3, 4})}
    return {"top.avhdx": top, "middle.vhdx": middle, "base.vhdx": base}


def broken_locator() -> ImageSpec:
    return child_of(small_disk(), RELATIVE, locator=parent_locator({"relative_path": RELATIVE}))


KINDS: dict[str, dict[str, ImageSpec]] = {
    "dynamic": {"disk.vhdx": dynamic()},
    "fixed": {
        "disk.vhdx": ImageSpec(2 * MIB, MIB, {0: Block(), 1: Block()}, leave_block_allocated=True)
    },
    "large sectors": {"disk.vhdx": partitioned(4096)},
    "partitioned": {"disk.vhdx": partitioned()},
    "mbr": {
        "disk.vhdx": ImageSpec(
            MIB, MIB, {0: Block(content={0: record((5, 8, 9), (0x42, 100, 0xFFFFFFFF))})}
        )
    },
    "image in an image": {"disk.vhdx": ImageSpec(MIB, MIB, {0: Block(content=b"QFI\xfb")})},
    "dirty": {"disk.vhdx": dirty()},
    "unusual": {"disk.vhdx": unusual_disk()},
    "every state": {
        "disk.vhdx": ImageSpec(
            9 * MIB,
            MIB,
            {i: Block(BlockState(state)) for i, state in enumerate([0, 1, 2, 3, 5, 6])},
        )
    },
    "no disk ID": {"disk.vhdx": dynamic()},
    "chain": family(),
    "parent missing": {"top.avhdx": family()["top.avhdx"]},
    "grandparent missing": {name: family()[name] for name in ("top.avhdx", "middle.vhdx")},
    "broken locator": {"disk.vhdx": broken_locator()},
    "parent not named": {"disk.vhdx": child_with({}), "base.vhdx": small_disk()},
}
KINDS["no disk ID"]["disk.vhdx"].metadata.items.pop(2)
WITHOUT_PARENT = {"parent missing", "grandparent missing", "broken locator", "parent not named"}


def write(kind: str) -> Path:
    """Write the images of a kind, and give the name of the first one."""
    for name, spec in KINDS[kind].items():
        spec.write(name)
    return Path(next(iter(KINDS[kind])))


# -- every kind ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_json_of_every_kind_fits_the_schema(kind: str, capfd: Capture) -> None:
    path = write(kind)
    spec = KINDS[kind][path.name]
    facts = facts_of(capfd, path)
    types = {0: "dynamic", 1: "fixed", 2: "differencing"}
    stored = [block for block in spec.blocks.values() if block.owns_space]
    expected = {
        "filename": path.name,
        "format": "vhdx",
        "virtual-size": spec.virtual_disk_size,
        "actual-size": path.stat().st_blocks * 512,
        "cluster-size": spec.block_size,
        "dirty-flag": bool(spec.log_guid.int),
        "disk-type": types[spec.flags],
        "block-size": spec.block_size,
        "allocated-size": len(stored) * spec.block_size,
        "logical-sector-size": spec.logical_sector_size,
        "physical-sector-size": 4096,
        "creator": "imagebuilder",
        "virtual-disk-id": None if kind == "no disk ID" else str(spec.virtual_disk_id),
        "file-write-guid": str(spec.file_write_guid),
        "data-write-guid": str(spec.data_write_guid),
        "header-number": 2,
        "sequence-number": 2,
    }
    assert {key: facts[key] for key in expected} == expected
    assert sum(facts["blocks"].values()) == spec.geometry.payload_block_count
    assert (facts["contents"] is None) == (kind in WITHOUT_PARENT)
    assert (facts["parent-error"] is None) == (kind not in WITHOUT_PARENT)
    assert "chain" not in facts


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - WITHOUT_PARENT))
def test_chain_in_json_begins_with_the_child(kind: str, capfd: Capture) -> None:
    facts = facts_of(capfd, "--chain", write(kind))
    assert [item["filename"] for item in facts["chain"]] == list(KINDS[kind])
    assert facts["chain"][0].items() <= facts.items()
    for item, spec in zip(facts["chain"], KINDS[kind].values(), strict=True):
        assert item["data-write-guid"] == str(spec.data_write_guid)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_printable_lines(kind: str, capfd: Capture) -> None:
    outcome = run(capfd, "info", write(kind))
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert all(line.isprintable() for line in outcome.out.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_changed(kind: str, capfd: Capture) -> None:
    path = write(kind)
    before = (sha256_of(path), path.stat().st_mtime_ns)
    run(capfd, "info", path)
    assert (sha256_of(path), path.stat().st_mtime_ns) == before


# -- words --------------------------------------------------------------------------------------


def test_lines_of_a_dynamic_disk(capfd: Capture) -> None:
    path = write("dynamic")
    actual = path.stat().st_blocks * 512
    outcome = run(capfd, "info", path)
    lines = [
        line if not line.startswith("actual size:") else line.partition("(")[2]
        for line in outcome.out.splitlines()
    ]
    assert lines == [
        "image:          disk.vhdx",
        "type:           dynamic VHDX",
        "virtual size:   16 MiB (16777216 bytes)",
        "allocated:      1 MiB (1048576 bytes) in 1 of 16 blocks",
        f"{actual} bytes)",
        "block size:     1 MiB",
        "blocks:         1 fully present, 1 unmapped, 1 zero, 13 not present",
        "sector size:    512 bytes logical, 4096 bytes physical",
        "creator:        imagebuilder",
        "disk ID:        33333333-3333-3333-3333-333333333333",
        "FileWriteGuid:  11111111-1111-1111-1111-111111111111",
        "DataWriteGuid:  22222222-2222-2222-2222-222222222222",
        "header:         2 is current, with sequence number 2",
        "log:            clean",
        f'contents:       ext2 "root", UUID {UUID_TEXT}, without a partition table',
        f"mount:          {MOUNT}",
    ]


def test_warnings_are_listed(capfd: Capture) -> None:
    header, state = named_lines(capfd, write("unusual"))["notes"]
    assert header.startswith("header 1 at file offset 0x10000: the checksum is wrong")
    assert state.startswith("BAT: blocks in state 5")
    assert [warning["rule"] for warning in facts_of(capfd, "disk.vhdx")["warnings"]] == [
        "R7",
        "R80",
    ]


def test_missing_facts_are_named(capfd: Capture) -> None:
    spec = KINDS["no disk ID"]["disk.vhdx"]
    spec.creator = ""
    spec.write("disk.vhdx")
    words = named_lines(capfd, "disk.vhdx")
    spec.creator = "imagebuilder"
    assert (words["creator"], words["disk ID"]) == (["not named"], ["none"])
    ImageSpec(MIB, MIB).write("empty.vhdx")
    assert named_lines(capfd, "empty.vhdx")["contents"] == ["nothing that is known"]


# -- what lies inside ---------------------------------------------------------------------------


def test_partitions_are_listed_with_what_they_hold(capfd: Capture) -> None:
    words = named_lines(capfd, write("partitioned"))
    table, line = words["contents"]
    assert table == f"GPT with 1 partition, sectors of 512 bytes, disk ID {DISK_GUID}"
    assert line == (
        r'  1  1 MiB from byte 1048576, Linux filesystem "the \x1b[31mroot":'
        f' ext2 "root", UUID {UUID_TEXT}'
    )
    assert words["mount"] == [
        "losetup --read-only --partscan --find --show disk.img",
        "mount -o ro /dev/loop0p1 /mnt",
    ]
    contents = facts_of(capfd, "disk.vhdx")["contents"]
    [partition] = contents["partition-table"]["partitions"]
    assert partition == {
        "number": 1,
        "start": MIB,
        "size": MIB,
        "type-id": str(LINUX),
        "type-name": "Linux filesystem",
        "name": "the \x1b[31mroot",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "volume": {"kind": "ext2", "usage": "filesystem", "label": "root", "uuid": UUID_TEXT},
    }
    assert contents["mount-commands"] == words["mount"]


def test_large_sectors_are_part_of_the_mount_command(capfd: Capture) -> None:
    words = named_lines(capfd, write("large sectors"))
    assert words["sector size"] == ["4096 bytes logical, 4096 bytes physical"]
    assert words["contents"][0].startswith("GPT with 1 partition, sectors of 4096 bytes, ")
    assert words["mount"] == [
        "losetup --sector-size 4096 --read-only --partscan --find --show disk.img",
        "mount -o ro /dev/loop0p1 /mnt",
        "these partitions cannot be found on a device with sectors of 512 bytes",
    ]


def test_mbr_with_a_partition_too_long_is_listed(capfd: Capture) -> None:
    words = named_lines(capfd, write("mbr"))
    assert words["contents"] == [
        "MBR with 2 partitions, sectors of 512 bytes, disk ID 12345678",
        "  1  4.5 KiB from byte 4096, Extended",
        "  2  2 TiB from byte 51200, SFS",
    ]
    assert words["notes"] == [
        "the record of a logical partition is missing in sector 8",
        "partition 2 ends past the end of the disk",
    ]


def test_image_inside_of_the_disk_is_listed(capfd: Capture) -> None:
    words = named_lines(capfd, write("image in an image"))
    assert words["contents"] == ["begins like a qcow2 image"]
    assert words["notes"][0].startswith("the disk begins like a qcow2 image: ")
    assert "mount" not in words


@pytest.mark.parametrize(
    ("pieces", "words", "commands"),
    [
        (
            {4086: b"SWAPSPACE2"},
            "swap, UUID 00000000-0000-0000-0000-000000000000, without a partition table",
            ["losetup --read-only --find --show disk.img"],
        ),
        (
            {32769: b"CD001", 0: record((0x17, 0, 100))},
            "ISO 9660, as the whole disk",
            [
                MOUNT,
                "losetup --read-only --partscan --find --show disk.img",
                "mount -o ro /dev/loop0p1 /mnt",
            ],
        ),
        ({0: record()}, "MBR with 0 partitions, sectors of 512 bytes, disk ID 12345678", []),
        (
            {0: record((0x99, 9, 9))},
            "MBR with 1 partition, sectors of 512 bytes, disk ID 12345678",
            ["losetup --read-only --partscan --find --show disk.img"],
        ),
    ],
    ids=["swap", "hybrid disc", "no partition", "unknown type"],
)
def test_mount_commands_follow_from_the_contents(
    pieces: dict[int, bytes], words: str, commands: list[str], capfd: Capture
) -> None:
    ImageSpec(MIB, MIB, {0: Block(content=pieces)}).write("disk.vhdx")
    lines = named_lines(capfd, "disk.vhdx")
    assert lines["contents"][0] == words
    assert lines.get("mount", []) == commands
    assert facts_of(capfd, "disk.vhdx")["contents"]["mount-commands"] == commands


# -- the log ------------------------------------------------------------------------------------


def test_a_dirty_log_is_replayed_in_memory(capfd: Capture) -> None:
    words = named_lines(capfd, write("dirty"))
    assert words["log"] == ["needs replay; replayed in memory (entries: 2)"]
    assert words["contents"][0].startswith('ext2 "root"')
    facts = facts_of(capfd, "disk.vhdx")
    assert (facts["dirty-flag"], facts["log"]) == (True, {"state": "replayed", "entries": 2})
    assert facts["blocks"]["fully-present"] == 1


def test_a_dirty_log_can_be_ignored(capfd: Capture) -> None:
    path = write("dirty")
    words = named_lines(capfd, "--ignore-log", path)
    assert words["log"] == ["needs replay; ignored, as was asked"]
    assert words["contents"] == ["nothing that is known"]
    facts = facts_of(capfd, "--ignore-log", path)
    assert (facts["dirty-flag"], facts["log"]) == (True, {"state": "ignored", "entries": 0})
    assert "fully-present" not in facts["blocks"]


def test_a_dirty_log_can_be_refused(capfd: Capture) -> None:
    outcome = run(capfd, "info", "--no-replay", write("dirty"))
    assert (outcome.exit_code, outcome.out) == (5, "")
    assert "log at file offset 0x100000: holds updates" in outcome.err


# -- parents ------------------------------------------------------------------------------------


def test_child_is_listed_with_its_parent(capfd: Capture) -> None:
    path = write("chain")
    words = named_lines(capfd, path)
    linkage = linkage_text(same_bytes_guid(0x66))
    assert words["parent"] == [
        f"parent_linkage = {linkage}",
        r"relative_path = .\middle.vhdx",
        "found at middle.vhdx",
    ]
    assert words["contents"][0].startswith('ext2 "root"')
    facts = facts_of(capfd, path)
    assert facts["backing-filename"] == ".\\middle.vhdx"
    assert facts["full-backing-filename"] == "middle.vhdx"
    assert facts["backing-filename-format"] == "vhdx"
    assert facts["parent-locator"] == {
        "parent_linkage": linkage,
        "relative_path": ".\\middle.vhdx",
    }


def test_chain_is_listed_child_first(capfd: Capture) -> None:
    outcome = run(capfd, "info", "--chain", write("chain"))
    sections = [section.splitlines() for section in outcome.out.split("\n\n")]
    assert [lines[0] for lines in sections] == [
        "image:          top.avhdx",
        "image:          middle.vhdx",
        "image:          base.vhdx",
    ]
    assert [lines[1] for lines in sections] == [
        "type:           differencing VHDX",
        "type:           differencing VHDX",
        "type:           dynamic VHDX",
    ]
    contents = [sum(line.startswith("contents:") for line in lines) for lines in sections]
    assert contents == [1, 0, 0]
    assert r"                relative_path = .\base.vhdx" in sections[1]


def test_warnings_of_a_chain_name_the_file(capfd: Capture) -> None:
    files = family()
    files["base.vhdx"].headers[0] = HeaderSpec(sequence_number=1, checksum=1)
    for name, spec in files.items():
        spec.write(name)
    [note] = named_lines(capfd, "top.avhdx")["notes"]
    assert note.startswith("base.vhdx: header 1 at file offset 0x10000: the checksum is wrong")


def test_child_without_its_parent_is_described(capfd: Capture) -> None:
    words = named_lines(capfd, write("parent missing"))
    assert words["type"] == ["differencing VHDX"]
    assert words["contents"] == ["unknown, the parent is missing"]
    error, place, hint = words["notes"]
    assert error == "top.avhdx: the parent is missing"
    assert place == "  tried middle.vhdx: does not exist"
    assert hint.startswith("hint: name the parent with --parent FILE")
    facts = facts_of(capfd, "top.avhdx")
    assert facts["parent-error"].startswith(
        "top.avhdx: its parent cannot be used: expected .\\middle.vhdx with the"
    )
    assert facts["backing-filename"] == ".\\middle.vhdx"
    assert "full-backing-filename" not in facts


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
def test_missing_grandparent_with_chain_is_refused(as_json: list[str], capfd: Capture) -> None:
    outcome = run(capfd, "info", "--chain", *as_json, write("grandparent missing"))
    assert outcome.exit_code == 6
    assert bool(outcome.out) == bool(as_json)
    assert "middle.vhdx: its parent cannot be used: expected .\\base.vhdx" in outcome.err


def test_wrong_parent_is_listed_unless_allowed(capfd: Capture) -> None:
    small_disk(data_write_guid=same_bytes_guid(0x99)).write("base.vhdx")
    child_with({"relative_path": RELATIVE}).write("child.vhdx")
    words = named_lines(capfd, "child.vhdx")
    assert words["contents"] == ["unknown, the parent cannot be used"]
    assert words["notes"][1].startswith("  tried base.vhdx: has the DataWriteGuid 99999999-")
    allowed = named_lines(capfd, "--allow-parent-mismatch", "child.vhdx")
    assert allowed["contents"] == ["nothing that is known"]
    assert "is not the version that the child was made from" in allowed["notes"][0]


@pytest.mark.parametrize("option", ["--parent", "--parent-dir"])
def test_a_parent_that_lies_elsewhere_can_be_named(
    option: str, folder: Path, capfd: Capture
) -> None:
    path = write("chain")
    away = folder / "away"
    away.mkdir()
    for name in ("middle.vhdx", "base.vhdx"):
        Path(name).rename(away / name)
    value = away / "middle.vhdx" if option == "--parent" else away
    facts = facts_of(capfd, option, value, path)
    assert facts["full-backing-filename"] == str(away / "middle.vhdx")
    assert facts["contents"]["volume"]["kind"] == "ext2"


def test_broken_locator_or_parent_is_listed(capfd: Capture) -> None:
    words = named_lines(capfd, write("broken locator"))
    assert "the key parent_linkage is missing" in words["notes"][0]
    assert words["contents"] == ["unknown, the parent cannot be used"]
    assert "parent" not in words
    broken = small_disk()
    for header in broken.headers:
        header.checksum = 1
    broken.write("base.vhdx")
    child_with({"relative_path": RELATIVE}).write("child.vhdx")
    assert named_lines(capfd, "child.vhdx")["notes"][0].startswith("base.vhdx: headers: none is")


def test_an_odd_locator_needs_no_parent(capfd: Capture) -> None:
    child_with({"relative_path": ".\\gone.vhdx\0"}).write("child.vhdx")
    facts = facts_of(capfd, "child.vhdx")
    assert facts["warnings"] == []
    assert facts["backing-filename"] == ".\\gone.vhdx"


# -- failures -----------------------------------------------------------------------------------


def truncated() -> str:
    write("dynamic")
    os.truncate("disk.vhdx", 3 * MIB)
    return "disk.vhdx"


def not_a_vhdx() -> str:
    Path("disk.qcow2").write_bytes(b"QFI\xfb".ljust(MIB, b"\0"))
    return "disk.qcow2"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "Usage: vhdx2raw info"),
        (["--no-replay", "--ignore-log", "x"], 2, "contradict each other"),
        (["gone.vhdx"], 8, "gone.vhdx: No such file or directory"),
        (["--parent", "base.vhdx", "base.vhdx"], 6, "has no use for the parent base.vhdx"),
    ],
    ids=["nothing", "contradiction", "no file", "no use for a parent"],
)
def test_failures_have_their_code(words: list[str], code: int, text: str, capfd: Capture) -> None:
    small_disk().write("base.vhdx")
    outcome = run(capfd, "info", *words)
    assert outcome.exit_code == code
    assert text in outcome.out + outcome.err
    assert outcome.out == "" or not words


def test_what_cannot_be_read_is_refused(capfd: Capture) -> None:
    outcome = run(capfd, "info", not_a_vhdx())
    assert (outcome.exit_code, outcome.out) == (4, "")
    assert outcome.err.startswith("vhdx2raw: disk.qcow2: file: is a qcow2 image, not a VHDX")
    outcome = run(capfd, "info", truncated())
    assert (outcome.exit_code, outcome.out) == (5, "")


def test_strings_of_an_image_are_escaped(capfd: Capture) -> None:
    escape = "\x1b]0;title\x07\x1b[31m\nlog: fine\u202e"
    spec = child_with({"relative_path": f".\\{escape}\ud800.vhdx", f"key{escape}": escape})
    spec.creator = f"name{escape}"
    spec.write(f"child{escape}.vhdx")
    outcome = run(capfd, "info", f"child{escape}.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert all(line.isprintable() for line in outcome.out.splitlines())
    assert "\nlog: fine" not in outcome.out
    assert r"relative_path = .\\x1b]0;title\x07\x1b[31m\nlog: fine\u202e\ud800.vhdx" in outcome.out
    label = {0: b"XFSB", 108: b"\x1b[31m\r\n"}
    ImageSpec(MIB, MIB, {0: Block(content=label)}).write("disk.vhdx")
    assert named_lines(capfd, "disk.vhdx")["contents"][0].startswith(r'XFS "\x1b[31m\r\n", ')


# -- the schema ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["top", "data", "chain", "contents"])
def test_schema_refuses_an_unknown_key(place: str, capfd: Capture) -> None:
    outcome = run(capfd, "info", "--json", "--chain", write("dynamic"))
    facts = json.loads(outcome.out)
    data = facts["format-specific"]["data"]
    VALIDATOR.validate(facts)
    parts = {"top": facts, "data": data, "chain": data["chain"][0], "contents": data["contents"]}
    parts[place]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        VALIDATOR.validate(facts)


@pytest.mark.slow
def test_info_loads_no_bars_or_colours(folder: Path) -> None:
    path = write("dynamic")
    code = (
        "import sys; from vhdx2raw.cli import main; main(sys.argv[1:]);"
        " print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "info", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert outcome.out.startswith("image:          disk.vhdx\n")
    assert not {"tqdm", "rich", "jsonschema"} & set(outcome.err.split())
