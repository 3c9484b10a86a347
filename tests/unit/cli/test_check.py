"""`vhdx2raw check`: what it prints, its JSON, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import GIB, MIB, Block, BlockState, ImageSpec, golden_g2
from tests.support.chains import BASE_NAME, OTHER_GUID
from tests.support.cli import SCRIPT, Outcome, run, run_program, small_disk
from tests.support.files import names_in, sha256_of, write_files
from tests.support.schemas import validator_of
from tests.support.seeded_faults import FAULTS
from tests.support.seeded_faults.disks import BAT, child, disk, locator
from tests.support.seeded_faults.fault import Fault
from vhdx2raw import check
from vhdx2raw.findings import MAX_FINDINGS_PER_RULE, Severity

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
Facts = dict[str, Any]
VALIDATOR = validator_of("check")


def faulty_disk() -> ImageSpec:
    """Describe a disk with an error, a warning and a note."""
    return disk(bat_overrides={1: 4, 5: 7}, file_parameters_flags=4)


def facts_of(outcome: Outcome) -> Facts:
    """Read the JSON, which must fit its schema."""
    assert outcome.err == ""
    facts: Facts = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    return facts


# -- for people ---------------------------------------------------------------------------------


def test_a_sound_disk_is_one_line(folder: Path, capfd: Capture) -> None:
    small_disk().write("disk.vhdx")
    outcome = run(capfd, "check", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out == "disk.vhdx: sound (errors 0, warnings 0, notes 0)\n"


def test_findings_are_listed_with_consequences(folder: Path, capfd: Capture) -> None:
    faulty_disk().write("disk.vhdx")
    outcome = run(capfd, "check", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (5, "")
    assert outcome.out == (
        "warning: R65: metadata item File Parameters at file offset 0x210000: reserved flags are"
        " set: found 0x4 (MS-VHDX 2.6.2.1)\n"
        "  consequence: none for the contents; the file was written carelessly, or damaged a"
        " little\n"
        "error: R80: BAT entry of payload block 1 at file offset 0x300008: the state 4 is"
        " reserved: found 0x0000000000000004 (MS-VHDX 2.5.1.1)\n"
        "  consequence: refused without --salvage, which gives zeros for the block\n"
        "note: R75: BAT region at file offset 0x300028: something stands where the table has no"
        " entry in use, which is ignored (MS-VHDX 2.5)\n"
        "disk.vhdx: NOT sound (errors 1, warnings 1, notes 1)\n"
    )


def test_warnings_and_notes_are_no_failure(folder: Path, capfd: Capture) -> None:
    disk(bat_overrides={5: 7}, file_parameters_flags=4).write("disk.vhdx")
    outcome = run(capfd, "check", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.endswith("disk.vhdx: sound (errors 0, warnings 1, notes 1)\n")


def test_findings_that_are_not_listed_are_counted(folder: Path, capfd: Capture) -> None:
    blocks = {2 * index: Block(BlockState.RESERVED_4) for index in range(30)}
    disk(virtual_disk_size=GIB, blocks=blocks).write("disk.vhdx")
    outcome = run(capfd, "check", "disk.vhdx")
    assert outcome.exit_code == 5
    assert outcome.out.count("error: R80: BAT entry") == MAX_FINDINGS_PER_RULE
    assert outcome.out.endswith(
        "error: R80: 10 more of this kind\ndisk.vhdx: NOT sound (errors 30, warnings 0, notes 0)\n"
    )
    facts = facts_of(run(capfd, "check", "--json", "disk.vhdx"))
    assert facts["corruptions"] == 30
    assert facts["suppressed"] == [{"severity": "error", "rule": "R80", "count": 10}]


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_check_leaves_only_the_exit_code(folder: Path, capfd: Capture, option: str) -> None:
    small_disk().write("sound.vhdx")
    faulty_disk().write("faulty.vhdx")
    assert run(capfd, "check", option, "sound.vhdx") == Outcome(0, "", "")
    assert run(capfd, "check", option, "faulty.vhdx") == Outcome(5, "", "")


def test_strings_of_a_file_are_escaped(folder: Path, capfd: Capture) -> None:
    """In its name as in the texts that it holds."""
    spec = child(locator=locator(relative_path=".\\\x1b[31mred\x07.vhdx"))
    spec.write("\x1b[2Jchild.vhdx")
    outcome = run(capfd, "check", "\x1b[2Jchild.vhdx")
    assert outcome.exit_code == 6
    assert "\\x1b[31mred\\x07" in outcome.out
    assert "\\x1b[2Jchild.vhdx: the file itself is sound" in outcome.out
    assert all(char.isprintable() or char == "\n" for char in outcome.out)


def test_the_file_is_not_changed(folder: Path, capfd: Capture) -> None:
    golden_g2().write("disk.vhdx")
    before = sha256_of(Path("disk.vhdx")), Path("disk.vhdx").stat().st_mtime_ns
    assert run(capfd, "check", "disk.vhdx").exit_code == 0
    assert (sha256_of(Path("disk.vhdx")), Path("disk.vhdx").stat().st_mtime_ns) == before
    assert names_in(folder) == ["disk.vhdx"]


# -- for programs -------------------------------------------------------------------------------


def test_the_schema_allows_nothing_else(folder: Path, capfd: Capture) -> None:
    faulty_disk().write("disk.vhdx")
    facts = facts_of(run(capfd, "check", "--json", "disk.vhdx"))
    wrong: list[Facts] = [
        {**facts, "surprise": 1},
        {**facts, "format": "vhd"},
        {**facts, "corruptions": -1},
        {**facts, "check-errors": 1},
        {**facts, "findings": [{**facts["findings"][0], "severity": "fatal"}]},
        {**facts, "findings": [{**facts["findings"][0], "rule": "65"}]},
        {**facts, "findings": [{**facts["findings"][0], "file-offset": "0x10"}]},
        {**facts, "suppressed": [{"severity": "error", "rule": "R80", "count": 0}]},
        {key: value for key, value in facts.items() if key != "notes"},
    ]
    for variant in wrong:
        assert not VALIDATOR.is_valid(variant)


@pytest.mark.parametrize("option", ["--json", "--output=json"])
def test_json_holds_all_facts(folder: Path, capfd: Capture, option: str) -> None:
    faulty_disk().write("disk.vhdx")
    outcome = run(capfd, "check", option, "disk.vhdx")
    facts = facts_of(outcome)
    assert outcome.exit_code == 5
    assert (facts["filename"], facts["format"], facts["check-errors"]) == ("disk.vhdx", "vhdx", 0)
    assert (facts["corruptions"], facts["warnings"], facts["notes"]) == (1, 1, 1)
    assert facts["suppressed"] == []
    assert facts["findings"][1] == {
        "severity": "error",
        "rule": "R80",
        "spec": "2.5.1.1",
        "section": "BAT entry of payload block 1",
        "file-offset": BAT + 8,
        "problem": "the state 4 is reserved",
        "found": "0x0000000000000004",
        "expected": "",
        "message": "BAT entry of payload block 1 at file offset 0x300008: the state 4 is reserved:"
        " found 0x0000000000000004 (MS-VHDX 2.5.1.1)",
        "consequence": "refused without --salvage, which gives zeros for the block",
    }


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_fault_is_reported_in_both_forms(folder: Path, capfd: Capture, fault: Fault) -> None:
    path = write_files(folder, fault.files).name
    outcome = run(capfd, "check", "--json", path)
    facts = facts_of(outcome)
    report = check(path)
    assert facts["corruptions"] == report.count(Severity.ERROR)
    converted = run(capfd, path, "null:").exit_code
    assert outcome.exit_code == (converted if facts["corruptions"] else 0)
    assert [f["message"] for f in facts["findings"]] == [str(f) for _, f in report.results]
    text = run(capfd, "check", path)
    assert (text.exit_code, text.err) == (outcome.exit_code, "")
    lines = re.findall(r"^(error|warning|note): (R\d+): (?!\d+ more)", text.out, re.MULTILINE)
    assert lines == [(f["severity"], f["rule"]) for f in facts["findings"]]
    assert text.out.count("  consequence: ") == sum(kind != "note" for kind, _ in lines)


# -- options ------------------------------------------------------------------------------------


def test_a_parent_can_be_named(folder: Path, capfd: Capture) -> None:
    write_files(folder, {"child.vhdx": child(), "other.vhdx": disk(data_write_guid=OTHER_GUID)})
    (folder / "parents").mkdir()
    disk().write(folder / "parents" / BASE_NAME)
    outcome = run(capfd, "check", "child.vhdx")
    assert (outcome.exit_code, outcome.out.splitlines()[0][:11]) == (6, "error: R110")
    for words in (["--parent", f"parents/{BASE_NAME}"], ["--parent-dir", "parents"]):
        outcome = run(capfd, "check", *words, "child.vhdx")
        assert outcome == Outcome(0, "child.vhdx: sound (errors 0, warnings 0, notes 0)\n", "")
    outcome = run(capfd, "check", "--parent", "other.vhdx", "child.vhdx")
    assert (outcome.exit_code, outcome.out.splitlines()[0][:12]) == (6, "error: R100:")


def test_the_state_before_the_log_can_be_checked(folder: Path, capfd: Capture) -> None:
    golden_g2().write("disk.vhdx")
    replayed = facts_of(run(capfd, "check", "--json", "disk.vhdx"))
    assert [(f["severity"], f["rule"]) for f in replayed["findings"]] == [("note", "R120")]
    ignored = facts_of(run(capfd, "check", "--json", "--ignore-log", "disk.vhdx"))
    assert [(f["severity"], f["rule"]) for f in ignored["findings"]] == [("warning", "R14")]


# -- what cannot be checked ---------------------------------------------------------------------


def test_foreign_file_has_its_own_exit_code(folder: Path, capfd: Capture) -> None:
    Path("disk.qcow2").write_bytes(b"QFI\xfb" + bytes(MIB))
    for words in ([], ["--json"], ["-q"]):
        outcome = run(capfd, "check", *words, "disk.qcow2")
        assert outcome.exit_code == 4
        assert bool(outcome.out) == (words == ["--json"])
        assert outcome.err.startswith("vhdx2raw: disk.qcow2: file: is a qcow2 image, not a VHDX")


def test_missing_file_is_a_host_failure(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "check", "missing.vhdx")
    assert outcome == Outcome(8, "", "vhdx2raw: missing.vhdx: No such file or directory\n")


def test_it_is_a_command_of_the_program(folder: Path) -> None:
    faulty_disk().write("disk.vhdx")
    outcome = run_program("check", "--json", "disk.vhdx", command=SCRIPT)
    assert outcome.exit_code == 5
    assert facts_of(outcome)["corruptions"] == 1
    help_text = run_program("check", "--help").out
    assert "Check each IMAGE against every rule of the format" in help_text
    assert "vhdx2raw check --parent base.vhdx child.avhdx" in help_text
    assert run_program("check").exit_code == 2
