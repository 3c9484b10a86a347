"""`vhdx2raw tree`: what it draws, its JSON, and that its commands convert."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, make_dirty
from tests.support.chains import base_disk
from tests.support.cli import MODULE, TIMEOUT, run, run_program
from tests.support.files import has_expected_bytes, write_files
from tests.support.raw import break_file
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]
WRITTEN = 1_700_000_000
"""2023-11-14 22:13:20 UTC."""


def guid(digits: str) -> UUID:
    """Give a GUID that begins with a digit eight times."""
    return UUID(f"{digits * 8}-0000-4000-8000-000000000000")


def child(parent: ImageSpec, digit: str, name: str, **fields: Any) -> ImageSpec:  # noqa: ANN401
    return child_of(parent, name, data_write_guid=guid(digit), **fields)


ROOT = base_disk(data_write_guid=guid("a"))
MIDDLE = child(ROOT, "b", "root.vhdx", blocks={0: Block()})
TIP = child(MIDDLE, "c", "middle.avhdx", blocks={1: Block()})
OTHER = child(MIDDLE, "d", "middle.avhdx", blocks={2: Block()})
MOVED = child(ROOT, "e", "gone.vhdx", blocks={3: Block()})
CHAIN = {
    "vm/root.vhdx": ROOT,
    "vm/middle.avhdx": MIDDLE,
    "vm/tip of it.avhdx": TIP,
    "vm/other.avhdx": OTHER,
    "vm/below/moved.avhdx": MOVED,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, where it is UTC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


def write(folder: Path, files: Mapping[str, ImageSpec | bytes]) -> None:
    """Write files of which all but the dates is known."""
    write_files(folder, files)
    for name in files:
        os.utime(folder / name, (WRITTEN, WRITTEN))


def facts_of(capfd: Capture, *words: str, exit_code: int = 0) -> dict[str, Any]:
    """Give the JSON, which must fit its schema."""
    outcome = run(capfd, "tree", "--json", *words)
    assert outcome.exit_code == exit_code
    facts: dict[str, Any] = json.loads(outcome.out)
    validator_of("tree").validate(facts)
    return facts


# -- the drawing --------------------------------------------------------------------------------


def test_chain_is_drawn_from_its_root_on(folder: Path, capfd: Capture) -> None:
    write(folder, CHAIN)
    outcome = run(capfd, "tree", "vm")
    assert (outcome.exit_code, outcome.err) == (0, "")
    header, *rows = outcome.out.partition("\n\n")[0].splitlines()
    assert header == "vm: 5 images, 3 tips"
    assert [row.split("  ")[0].rstrip() for row in rows[:2]] == ["root.vhdx", "├─ middle.avhdx"]
    names = ["root.vhdx", "├─ middle.avhdx", "│  ├─ other.avhdx", "│  └─ tip of it.avhdx"]
    names.append("└─ below/moved.avhdx")
    ends = ["aaaaaaaa", "bbbbbbbb", "dddddddd  tip", "cccccccc  tip", "eeeeeeee  tip"]
    for row, name, end in zip(rows, names, ends, strict=True):
        assert row.startswith(f"{name}  ")
        assert row.endswith(f"  2023-11-14 22:13  {end}")
        assert "  4 MiB  " in row
    assert len({row.index("2023-11-14") for row in rows}) == 1


@pytest.mark.slow
def test_only_a_stream_that_has_the_lines_gets_them(folder: Path) -> None:
    write(folder, CHAIN)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run_program("tree", "vm", env=environment)
    names = [line.split("  4 MiB")[0].rstrip() for line in done.out.splitlines()[1:6]]
    assert names == [
        *("root.vhdx", "|- middle.avhdx", "|  |- other.avhdx", "|  `- tip of it.avhdx"),
        "`- below/moved.avhdx",
    ]


def test_what_there_is_to_know_stands_at_the_end(folder: Path, capfd: Capture) -> None:
    old, new = base_disk(data_write_guid=guid("1")), base_disk(data_write_guid=guid("2"))
    empty, changed = base_disk(blocks={}), base_disk(blocks={0: Block()}, data_write_guid=guid("3"))
    dirty = make_dirty(empty, changed)
    write(
        folder,
        {
            "dirty.vhdx": dirty,
            "orphan.avhdx": child(ROOT, "4", "lost.vhdx"),
            "changed.avhdx": child(old, "5", "new.vhdx"),
            "new.vhdx": new,
            "itself.avhdx": child(base_disk(data_write_guid=guid("6")), "6", "itself.avhdx"),
        },
    )
    outcome = run(capfd, "tree", ".")
    assert (outcome.exit_code, outcome.err) == (0, "")
    header, *rows = outcome.out.partition("\n\n")[0].splitlines()
    assert header == ".: 5 images, 5 tips"
    assert [(row.split()[0], row.partition(" 22:13  ")[2]) for row in rows] == [
        ("changed.avhdx", "55555555  tip, mismatch (needs 11111111)"),
        ("dirty.vhdx", "33333333  tip, dirty log"),
        ("itself.avhdx", "66666666  tip, broken chain (needs 66666666)"),
        ("new.vhdx", "22222222  tip"),
        ("orphan.avhdx", "44444444  tip, orphan (needs aaaaaaaa)"),
    ]
    assert f"new.vhdx: has the DataWriteGuid {guid('2')}" in outcome.out
    assert "tried lost.vhdx: does not exist" in outcome.out
    assert outcome.out.count("name the parent with --parent FILE") == 2
    commands = [line for line in outcome.out.splitlines() if line.startswith("vhdx2raw ")]
    assert commands == [
        "vhdx2raw ./dirty.vhdx dirty.img",
        "vhdx2raw ./new.vhdx new.img",
    ]


def test_child_of_an_orphan_is_not_to_be_converted(folder: Path, capfd: Capture) -> None:
    write(folder, {"middle.avhdx": MIDDLE, "tip.avhdx": TIP})
    images = facts_of(capfd, ".")["images"]
    assert [image["error"] and image["error"]["reason"] for image in images] == [
        *("parent-not-found", None)
    ]
    assert [image["command"] for image in images] == [None, None]


def test_an_empty_folder_is_an_answer(capfd: Capture) -> None:
    assert run(capfd, "tree", ".").out == ".: 0 images, 0 tips\n"
    assert facts_of(capfd, ".") == {"folder": ".", "images": [], "failed": []}


def test_names_cannot_command_a_terminal(folder: Path, capfd: Capture) -> None:
    write(folder, {"\x1b[2J.vhdx": ROOT})
    text = run(capfd, "tree", ".").out
    assert "\x1b" not in text
    assert "\\x1b[2J.vhdx" in text


def test_another_name_of_a_file_does_not_double_what_is_below(folder: Path, capfd: Capture) -> None:
    write(folder, {"root.vhdx": ROOT, "middle.avhdx": MIDDLE, "tip.avhdx": TIP})
    for name in ("root.vhdx", "middle.avhdx", "tip.avhdx"):
        (folder / f"{name}.vhdx").hardlink_to(folder / name)
    images = facts_of(capfd, ".")["images"]
    names = [image["filename"] for image in images]
    assert len(names) == len(set(names)) == 6


def test_a_parent_elsewhere_is_part_of_the_chain(folder: Path, capfd: Capture) -> None:
    write(folder, {"vm/s.avhdx": child(ROOT, "e", "root.vhdx"), "root.vhdx": ROOT})
    (folder / "vm/root.vhdx.old").hardlink_to(folder / "root.vhdx")
    write(folder, {"vm/s.avhdx": child(ROOT, "e", "root.vhdx.old")})
    images = facts_of(capfd, "vm")["images"]
    assert [image["filename"] for image in images] == ["vm/root.vhdx.old", "vm/s.avhdx"]
    assert [image["tip"] for image in images] == [False, True]


# -- JSON ---------------------------------------------------------------------------------------


def test_facts_are_those_of_the_files(folder: Path, capfd: Capture) -> None:
    write(folder, CHAIN)
    facts = facts_of(capfd, "vm")
    by_name = {image["filename"]: image for image in facts["images"]}
    assert (facts["folder"], facts["failed"]) == ("vm", [])
    assert list(by_name) == [
        f"vm/{name}"
        for name in (
            *("root.vhdx", "middle.avhdx", "other.avhdx", "tip of it.avhdx", "below/moved.avhdx"),
        )
    ]
    path = folder / "vm/middle.avhdx"
    assert by_name["vm/middle.avhdx"] == {
        "filename": "vm/middle.avhdx",
        "disk-type": "differencing",
        "virtual-size": 4 * MIB,
        "actual-size": path.stat().st_blocks * 512,
        "modified": "2023-11-14T22:13:20Z",
        "virtual-disk-id": str(ROOT.virtual_disk_id),
        "data-write-guid": str(guid("b")),
        "dirty-flag": False,
        "parent": "vm/root.vhdx",
        "parent-guids": [str(guid("a"))],
        "children": ["vm/other.avhdx", "vm/tip of it.avhdx"],
        "tip": False,
        "error": None,
        "command": None,
    }
    assert by_name["vm/root.vhdx"]["parent"] is None
    assert by_name["vm/other.avhdx"]["command"] == [*("vhdx2raw", "vm/other.avhdx", "vm/other.img")]


# -- what cannot be read ------------------------------------------------------------------------


def test_what_cannot_be_read_is_listed_and_hides_nothing(folder: Path, capfd: Capture) -> None:
    write(folder, {"a.vhdx": b"PK" * 100, "root.vhdx": ROOT, "z.vhdx": b""})
    outcome = run(capfd, "tree", ".")
    assert outcome.exit_code == 4
    assert outcome.out.startswith(".: 1 image, 1 tip, 2 unreadable\nroot.vhdx ")
    told = [line.split(": ")[1] for line in outcome.err_lines]
    assert [name for name in told if name != "hint"] == ["./a.vhdx", "./z.vhdx"]
    facts = facts_of(capfd, ".", exit_code=4)
    assert [failed["filename"] for failed in facts["failed"]] == ["./a.vhdx", "./z.vhdx"]
    assert [failed["error"]["reason"] for failed in facts["failed"]] == ["unsupported-image"] * 2


def test_a_folder_that_cannot_be_listed_is_a_failure(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"root.vhdx": ROOT, "closed/s.avhdx": MIDDLE})
    real_scandir = os.scandir

    def scandir(path: str) -> Any:  # noqa: ANN401
        if path == "./closed":
            raise PermissionError(13, "Permission denied", path)
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    facts = facts_of(capfd, ".", exit_code=8)
    assert [failed["filename"] for failed in facts["failed"]] == ["./closed"]
    assert [image["filename"] for image in facts["images"]] == ["./root.vhdx"]


@pytest.mark.parametrize(
    ("name", "problem"), [("gone", "No such file or directory"), ("file", "Not a directory")]
)
def test_what_is_no_folder_is_refused(
    folder: Path, capfd: Capture, name: str, problem: str
) -> None:
    (folder / "file").write_bytes(b"")
    outcome = run(capfd, "tree", name)
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err_lines[0] == f"vhdx2raw: {name}: {problem}"


def test_neither_tables_nor_data_are_read(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"root.vhdx": ROOT})
    tables = (ROOT.bat_offset, ROOT.bat_offset + MIB)
    blocks = [ROOT.block_file_offset(index) for index in range(4)]
    data = ((place, place + MIB) for place in blocks)
    break_file(monkeypatch, folder / "root.vhdx", tables, *data)
    assert run(capfd, "info", "root.vhdx").exit_code == 8
    assert len(facts_of(capfd, ".")["images"]) == 1


# -- the commands -------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_command_converts_its_tip(folder: Path, capfd: Capture) -> None:
    """Also that of a tip whose parents were renamed and moved, in a folder like an option."""
    write(folder, {f"-{name}": file for name, file in CHAIN.items()})
    text = run(capfd, "tree", "--", "-vm").out
    commands = [line for line in text.splitlines() if line.startswith("vhdx2raw ")]
    assert sum("--parent" in line for line in commands) == 1
    images = facts_of(capfd, "--", "-vm")["images"]
    assert [shlex.split(line) for line in commands] == [
        image["command"] for image in images if image["command"]
    ]
    for line in commands:
        words = [*MODULE, *shlex.split(line)[1:]]
        subprocess.run(words, check=True, timeout=TIMEOUT)
    for name, spec in {"tip of it": TIP, "other": OTHER, "below/moved": MOVED}.items():
        assert has_expected_bytes(folder / "-vm" / f"{name}.img", spec)
