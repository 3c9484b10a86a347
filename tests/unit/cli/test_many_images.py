"""`info` and `check` of many files, of damaged ones, and of those whose parent is missing."""

import json
import os
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.builder import MIB, Block, child_of
from tests.support.chains import base_disk
from tests.support.cli import run, small_disk
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with a sound, a truncated and an orphaned disk."""
    monkeypatch.chdir(tmp_path)
    small_disk().write(tmp_path / "disk.vhdx")
    small_disk().write(tmp_path / "cut.vhdx")
    os.truncate("cut.vhdx", (tmp_path / "cut.vhdx").stat().st_size - MIB)
    child = child_of(base_disk(), "gone.vhdx")
    child.blocks[0] = Block(content=7)
    child.write(tmp_path / "child.avhdx")
    return tmp_path


# -- many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["info", "check"])
def test_many_images_give_an_object_a_line(folder: Path, capfd: Capture, command: str) -> None:
    names = ["disk.vhdx", "gone.vhdx", "cut.vhdx", "disk.vhdx"]
    outcome = run(capfd, command, "--json", *names)
    objects = [json.loads(line) for line in outcome.out.splitlines()]
    assert [facts["filename"] for facts in objects] == names
    assert outcome.exit_code == 8
    assert objects[1] == {"filename": "gone.vhdx", "error": objects[1]["error"]}
    validator_of("error").validate({"error": objects[1]["error"]})
    assert objects[2]["error"]["reason"] == "truncated-image"
    assert "vhdx2raw: gone.vhdx: No such file or directory" in outcome.err_lines
    for facts in (objects[0], objects[3]):
        validator_of(command).validate(facts)


@pytest.mark.parametrize("command", ["info", "check"])
def test_many_images_in_words_name_each(folder: Path, capfd: Capture, command: str) -> None:
    (folder / "second.vhdx").write_bytes((folder / "disk.vhdx").read_bytes())
    outcome = run(capfd, command, "disk.vhdx", "second.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "disk.vhdx" in outcome.out
    assert "second.vhdx" in outcome.out


def test_two_answers_of_info_are_apart(folder: Path, capfd: Capture) -> None:
    single = run(capfd, "info", "disk.vhdx").out
    assert run(capfd, "info", "disk.vhdx", "disk.vhdx").out == f"{single}\n{single}"


@pytest.mark.parametrize("command", ["info", "check", "hash", "measure"])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-",), "a VHDX cannot be read from standard input; name a file"),
        (("--parent", "a", "disk.vhdx", "cut.vhdx"), "--parent fits one IMAGE"),
    ],
    ids=["standard input", "parent"],
)
def test_what_fits_no_image_is_a_usage_error(
    folder: Path, capfd: Capture, command: str, words: tuple[str, ...], line: str
) -> None:
    outcome = run(capfd, command, *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert line in outcome.err


# -- check with a missing parent ----------------------------------------------------------------


def test_a_missing_parent_fails_the_check_and_the_file_is_sound(
    folder: Path, capfd: Capture
) -> None:
    outcome = run(capfd, "check", "child.avhdx")
    assert outcome.exit_code == 6
    *_, verdict = outcome.out.splitlines()
    assert verdict.startswith("child.avhdx: the file itself is sound, but its parent is missing (")
    assert "error: R1" in outcome.out
    facts = json.loads(run(capfd, "check", "--json", "child.avhdx").out)
    validator_of("check").validate(facts)
    assert (facts["error"]["reason"], facts["error"]["exit-code"]) == ("parent-not-found", 6)


def test_a_parent_of_another_version_fails_the_check_with_6(folder: Path, capfd: Capture) -> None:
    other = base_disk()
    for header in other.headers:
        header.data_write_guid = UUID(int=5)
    other.write(folder / "gone.vhdx")
    outcome = run(capfd, "check", "child.avhdx")
    assert outcome.exit_code == 6
    assert "but its parent cannot be used" in outcome.out


def test_damage_of_the_file_itself_comes_before_its_parent(folder: Path, capfd: Capture) -> None:
    os.truncate("child.avhdx", (folder / "child.avhdx").stat().st_size - MIB)
    outcome = run(capfd, "check", "child.avhdx")
    assert outcome.exit_code == 5
    assert outcome.out.splitlines()[-1].startswith("child.avhdx: NOT sound (")


COMMANDS = {
    "convert": ("disk.vhdx", "out.img"),
    "info": ("info", "disk.vhdx"),
    "map": ("map", "disk.vhdx"),
    "check": ("check", "disk.vhdx"),
    "hash": ("hash", "disk.vhdx"),
    "measure": ("measure", "disk.vhdx"),
    "compare": ("compare", "disk.vhdx", "disk.vhdx"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_broken_signature_is_4_in_every_command(
    folder: Path, capfd: Capture, words: tuple[str, ...]
) -> None:
    with (folder / "disk.vhdx").open("r+b") as file:
        file.write(b"VHDXFILE")
    assert run(capfd, *words).exit_code == 4


# -- salvage ------------------------------------------------------------------------------------

SALVAGED = {
    "info": (("info", "--salvage", "cut.vhdx"), "virtual size:"),
    "map": (("map", "--salvage", "cut.vhdx"), " lost "),
    "svg": (("map", "--salvage", "--svg=-", "cut.vhdx"), "lost"),
    "hash": (("hash", "--salvage", "cut.vhdx"), "  cut.vhdx"),
    "compare": (("compare", "--salvage", "cut.vhdx", "cut.vhdx"), "have the same contents"),
}


@pytest.mark.parametrize(("words", "text"), SALVAGED.values(), ids=SALVAGED)
def test_a_damaged_disk_can_be_looked_at(
    folder: Path, capfd: Capture, words: tuple[str, ...], text: str
) -> None:
    outcome = run(capfd, *words)
    assert outcome.exit_code == 3
    assert text in outcome.out
    assert "lies beyond the end of the file" in outcome.out + outcome.err


@pytest.mark.parametrize("command", ["info", "hash"])
def test_damage_is_in_json(folder: Path, capfd: Capture, command: str) -> None:
    outcome = run(capfd, command, "--json", "--salvage", "cut.vhdx")
    facts = json.loads(outcome.out)
    validator_of(command).validate(facts)
    assert outcome.exit_code == 3
    assert "R111" in outcome.out


def test_lost_ranges_are_in_the_map(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "map", "--json", "--salvage", "cut.vhdx")
    entries = json.loads(outcome.out)
    validator_of("map").validate(entries)
    assert outcome.exit_code == 3
    assert any(not entry["zero"] and not entry["data"] for entry in entries)


def test_a_salvaged_disk_compares_with_its_raw_image(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "--salvage", "cut.vhdx", "out.img").exit_code == 3
    outcome = run(capfd, "compare", "--salvage", "--json", "cut.vhdx", "out.img")
    facts = json.loads(outcome.out)
    validator_of("compare").validate(facts)
    assert (outcome.exit_code, facts["same"]) == (3, True)


def test_a_sound_disk_is_not_salvaged(folder: Path, capfd: Capture) -> None:
    for command in ("info", "map", "hash"):
        assert run(capfd, command, "--salvage", "disk.vhdx").exit_code == 0
