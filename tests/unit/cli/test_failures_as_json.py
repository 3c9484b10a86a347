"""With --json a failure is an object on standard output, the same in every command."""

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.builder import MIB, child_of
from tests.support.chains import base_disk
from tests.support.cli import Outcome, run, small_disk
from tests.support.schemas import validator_of
from vhdx2raw.cli.exit_codes import exit_code_of, reason_of
from vhdx2raw.errors import (
    NoSpaceError,
    OutputError,
    ParentNotFoundError,
    SourceChangedError,
    TruncatedImageError,
    UnsupportedImageError,
)
from vhdx2raw.findings import Finding
from vhdx2raw.operations import convert as operation
from vhdx2raw.rules import Rule

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
VALIDATOR = validator_of("error")
COMMANDS: dict[str, tuple[str, ...]] = {
    "convert": ("convert", "disk.vhdx", "out.img"),
    "no command": ("disk.vhdx", "out.img"),
    "map": ("map", "disk.vhdx"),
    "measure": ("measure", "disk.vhdx"),
    "compare": ("compare", "disk.vhdx", "disk.vhdx"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Give the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(outcome: Outcome) -> dict[str, Any]:
    """Give the failure that stdout tells of, which is also the exit code and the line on stderr."""
    facts = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    error: dict[str, Any] = facts["error"]
    assert error["exit-code"] == outcome.exit_code
    assert outcome.err_lines[0] == f"vhdx2raw: {error['message']}"
    hints = [f"vhdx2raw: hint: {error['hint']}"] if error["hint"] else []
    assert outcome.err_lines[1:] == hints
    return error


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("option", [("--json",), ("--output", "json")], ids=["json", "output"])
def test_every_command_tells_of_a_truncated_file(
    folder: Path, capfd: Capture, words: tuple[str, ...], option: tuple[str, ...]
) -> None:
    small_disk().write(folder / "disk.vhdx")
    os.truncate("disk.vhdx", 5 * MIB)
    outcome = run(capfd, *words, *option)
    error = error_of(outcome)
    assert (outcome.exit_code, error["reason"]) == (5, "truncated-image")
    assert (error["filename"], error["rule"]) == ("disk.vhdx", "R111")
    assert isinstance(error["file-offset"], int)


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_without_json_nothing_is_on_stdout(
    folder: Path, capfd: Capture, words: tuple[str, ...]
) -> None:
    (folder / "disk.vhdx").write_bytes(b"text")
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.out) == (4, "")


def test_a_failure_after_one_with_json_is_told_in_words(folder: Path, capfd: Capture) -> None:
    (folder / "disk.vhdx").write_bytes(b"text")
    assert run(capfd, "map", "--json", "disk.vhdx").out
    assert run(capfd, "map", "disk.vhdx").out == ""


def test_a_missing_parent_has_its_reason_and_its_hint(folder: Path, capfd: Capture) -> None:
    base_disk().write(folder / "base.vhdx")
    child_of(base_disk(), "gone.vhdx").write(folder / "child.avhdx")
    error = error_of(run(capfd, "--json", "child.avhdx", "out.img"))
    assert (error["reason"], error["exit-code"]) == ("parent-not-found", 6)
    assert (error["rule"], error["file-offset"]) == ("R110", None)
    assert "--parent" in error["hint"]


def test_a_missing_source_is_a_failure_of_the_host(folder: Path, capfd: Capture) -> None:
    error = error_of(run(capfd, "map", "--json", "gone.vhdx"))
    assert (error["reason"], error["exit-code"]) == ("host-failure", 8)
    assert (error["filename"], error["rule"]) == ("gone.vhdx", None)


def test_an_output_that_exists_has_its_reason(folder: Path, capfd: Capture) -> None:
    small_disk().write(folder / "disk.vhdx")
    (folder / "out.img").write_bytes(b"old")
    error = error_of(run(capfd, "--json", "disk.vhdx", "out.img"))
    assert (error["reason"], error["exit-code"], error["filename"]) == ("output", 7, "out.img")


def test_no_space_is_worth_another_try(folder: Path, capfd: Capture, monkeypatch: Patch) -> None:
    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    small_disk().write(folder / "disk.vhdx")
    monkeypatch.setattr(os, "ftruncate", refuse)
    error = error_of(run(capfd, "--json", "disk.vhdx", "out.img"))
    assert (error["reason"], error["exit-code"]) == ("no-space", 8)
    assert error["hint"] == "make room, or write to another place"


def test_a_source_that_changes_has_a_code_of_its_own(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    real_ftruncate = os.ftruncate

    def set_length_and_touch(descriptor: int, length: int) -> None:
        real_ftruncate(descriptor, length)
        os.utime("disk.vhdx", (1, 1))

    small_disk().write(folder / "disk.vhdx")
    monkeypatch.setattr(os, "ftruncate", set_length_and_touch)
    error = error_of(run(capfd, "--json", "disk.vhdx", "out.img"))
    assert (error["reason"], error["exit-code"]) == ("source-changed", 9)
    assert error["rule"] == "R119"
    assert "--allow-changed" in error["hint"]


def test_a_fault_of_the_program_is_an_object_too(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    small_disk().write(folder / "disk.vhdx")
    monkeypatch.setattr(operation, "check_acceptable", fail)
    error = error_of(run(capfd, "--json", "disk.vhdx", "out.img"))
    assert (error["reason"], error["exit-code"]) == ("internal-fault", 70)
    assert "no such luck" in error["message"]


def test_an_interruption_is_an_object_too(folder: Path, capfd: Capture, monkeypatch: Patch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    small_disk().write(folder / "disk.vhdx")
    monkeypatch.setattr("vhdx2raw.cli.commands.measure.open_chain", interrupt)
    error = error_of(run(capfd, "measure", "--json", "disk.vhdx"))
    assert (error["reason"], error["exit-code"]) == ("interrupted", 143)


FINDING = Finding(Rule.FILE_END, "file", "is odd")
ERRORS = [
    (UnsupportedImageError(FINDING), "unsupported-image", 4),
    (TruncatedImageError(FINDING), "truncated-image", 5),
    (ParentNotFoundError("no"), "parent-not-found", 6),
    (OutputError("no"), "output", 7),
    (NoSpaceError("no"), "no-space", 8),
    (OSError(errno.EIO, "no"), "host-failure", 8),
    (SourceChangedError(FINDING), "source-changed", 9),
]


@pytest.mark.parametrize(("error", "reason", "exit_code"), ERRORS, ids=[row[1] for row in ERRORS])
def test_each_error_has_a_reason_and_a_code(error: OSError, reason: str, exit_code: int) -> None:
    assert (reason_of(error), exit_code_of(error)) == (reason, exit_code)
