"""What the command line prints: summaries, bars and messages, on a terminal and elsewhere."""

import json
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.builder import MIB, ImageSpec, golden_g2
from tests.support.cli import (
    MODULE,
    drawn_lines,
    run,
    run_on_terminal,
    run_program,
    small_disk,
    unusual_disk,
)
from tests.support.files import has_expected_bytes, names_in

SIZE = small_disk().virtual_disk_size
SUMMARY_LINE = re.compile(
    r"^vhdx2raw: disk\.vhdx: 5 MiB dynamic disk, 3 MiB of it stored;"
    r" 1\.008 MiB written to out\.img in \d+\.\d s$"
)
Capture = pytest.CaptureFixture[str]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("disk")]


# -- the summary for programs -------------------------------------------------------------------


def test_the_summary_holds_the_facts_of_the_conversion(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--json", "--no-clone", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    summary = json.loads(outcome.out)
    seconds = summary.pop("duration-seconds")
    assert isinstance(seconds, float)
    assert 0 <= seconds < 60
    assert summary.pop("warnings") == []
    assert (
        summary.items()
        >= {
            "filename": "disk.vhdx",
            "destination": "out.img",
            "format": "raw",
            "virtual-size": SIZE,
            "data-size": 3 * MIB,
            "written-size": MIB + 8192,
            "logical-sector-size": 512,
            "actual-size": (folder / "out.img").stat().st_blocks * 512,
        }.items()
    )


def test_the_summary_lists_warnings(folder: Path, capfd: Capture) -> None:
    unusual_disk().write("unusual.vhdx")
    outcome = run(capfd, "--json", "unusual.vhdx", "out.img")
    assert outcome.exit_code == 0
    assert len(outcome.err_lines) == 2
    warnings = json.loads(outcome.out)["warnings"]
    assert [warning["rule"] for warning in warnings] == ["R7", "R80"]
    assert [warning["spec"] for warning in warnings] == ["2.2.2", "2.5.1.1"]
    assert {warning["filename"] for warning in warnings} == {"unusual.vhdx"}
    assert warnings[0]["message"].startswith("header 1 at file offset 0x10000: the checksum is ")
    assert all(set(warning) == {"filename", "rule", "spec", "message"} for warning in warnings)


def test_the_summary_names_the_sector_size_of_the_disk(folder: Path, capfd: Capture) -> None:
    ImageSpec(4 * MIB, MIB, logical_sector_size=4096).write("4k.vhdx")
    outcome = run(capfd, "--json", "4k.vhdx", "out.img")
    assert json.loads(outcome.out)["logical-sector-size"] == 4096


def test_name_that_is_no_text_fits_into_json(folder: Path, capfd: Capture) -> None:
    name = os.fsdecode(b"d\xffsk.vhdx")
    (folder / "disk.vhdx").rename(name)
    outcome = run(capfd, "--json", name, "out\n.img")
    assert outcome.exit_code == 0
    summary = json.loads(outcome.out)
    assert (summary["filename"], summary["destination"]) == (name, "out\n.img")


# -- words for people ---------------------------------------------------------------------------


def test_verbose_prints_a_summary(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "-v", "--no-clone", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (0, "")
    [line] = outcome.err_lines
    assert SUMMARY_LINE.match(line)


def test_verbose_prints_warnings_and_a_summary(folder: Path, capfd: Capture) -> None:
    unusual_disk().write("unusual.vhdx")
    outcome = run(capfd, "-v", "unusual.vhdx", "out.img")
    assert outcome.exit_code == 0
    header, state, summary = outcome.err_lines
    assert header.startswith("vhdx2raw: unusual.vhdx: warning: header 1 at file offset 0x10000: ")
    assert header.endswith(" (MS-VHDX 2.2.2)")
    assert state.startswith("vhdx2raw: unusual.vhdx: warning: BAT: blocks in state 5")
    assert summary.startswith("vhdx2raw: unusual.vhdx: 4 MiB dynamic disk, 1 MiB of it stored; ")


SIZES = [(512, "512 B"), (1536, "1.5 KiB"), (3 << 30, "3 GiB"), (5 << 39, "2.5 TiB")]


@pytest.mark.parametrize(("size", "words"), SIZES, ids=[words for _, words in SIZES])
def test_sizes_are_formatted(folder: Path, capfd: Capture, size: int, words: str) -> None:
    ImageSpec(size, 256 * MIB).write("empty.vhdx")
    outcome = run(capfd, "-v", "empty.vhdx", "null:")
    assert outcome.err.startswith(f"vhdx2raw: empty.vhdx: {words} dynamic disk, 0 B of it stored;")


@pytest.mark.parametrize("words", [["disk.vhdx", "out.img"], ["dirty.vhdx", "out.img"]])
@pytest.mark.parametrize("option", [[], ["-q"], ["--progress", "never"], ["--progress", "auto"]])
def test_success_without_a_terminal_is_silent(
    folder: Path, capfd: Capture, words: list[str], option: list[str]
) -> None:
    """Also that of a disk whose log is replayed: some pipelines take any word for a failure."""
    golden_g2().write("dirty.vhdx")
    outcome = run(capfd, *option, *words)
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("option", [[], ["--progress", "never"], ["--json"]])
def test_warnings_need_no_terminal(folder: Path, capfd: Capture, option: list[str]) -> None:
    unusual_disk().write("unusual.vhdx")
    outcome = run(capfd, *option, "unusual.vhdx", "out.img")
    assert outcome.exit_code == 0
    assert len(outcome.err_lines) == 2
    assert all(line.startswith("vhdx2raw: unusual.vhdx: warning: ") for line in outcome.err_lines)


def test_quiet_silences_warnings(folder: Path, capfd: Capture) -> None:
    unusual_disk().write("unusual.vhdx")
    outcome = run(capfd, "-q", "unusual.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")


def test_a_replayed_log_is_told_to_those_who_ask(folder: Path, capfd: Capture) -> None:
    golden_g2().write("dirty.vhdx")
    assert "warning: log at file" in run(capfd, "-v", "dirty.vhdx", "null:").err
    summary = json.loads(run(capfd, "--json", "dirty.vhdx", "null:").out)
    assert [warning["rule"] for warning in summary["warnings"]] == ["R120"]


@pytest.mark.parametrize("words", [["-p"], ["--progress", "always"], ["-p", "-q"]], ids=" ".join)
def test_progress_option_shows_a_bar(folder: Path, capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (0, "")
    last = drawn_lines(outcome.err)[-1]
    assert last.startswith("100%|")
    assert "3 MiB of 3 MiB" in last


def test_quiet_does_not_silence_errors(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "-q", "missing.vhdx", "out.img")
    assert outcome.exit_code == 8
    assert outcome.err == "vhdx2raw: missing.vhdx: No such file or directory\n"


@pytest.mark.parametrize("words", [["--bogus"], ["missing.vhdx", "out.img"]], ids=["usage", "file"])
def test_errors_go_to_standard_error_alone(capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words)
    assert outcome.exit_code in (2, 8)
    assert outcome.out == ""
    assert outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ["disk.vhdx", "out.img"],
        ["map", "disk.vhdx"],
        ["compare", "disk.vhdx", "disk.vhdx"],
        ["hash", "disk.vhdx"],
    ],
    ids=" ".join,
)
def test_quiet_and_verbose_contradict_each_other(capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words, "-q", "-v")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert "-q and -v contradict each other" in outcome.err_lines[0]


# -- on a terminal ------------------------------------------------------------------------------


def test_a_terminal_sees_a_bar_and_a_summary(folder: Path) -> None:
    outcome = run_on_terminal("--no-clone", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (0, "")
    *bars, summary = drawn_lines(outcome.err)
    assert SUMMARY_LINE.match(summary)
    assert bars[-1].startswith("100%|")
    assert "3 MiB of 3 MiB" in bars[-1]
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_progress_never_shows_no_bar(folder: Path) -> None:
    outcome = run_on_terminal("--no-clone", "--progress", "never", "disk.vhdx", "out.img")
    [summary] = outcome.err_lines
    assert SUMMARY_LINE.match(summary)


def test_quiet_silences_a_terminal(folder: Path) -> None:
    outcome = run_on_terminal("-q", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")


def test_error_on_a_terminal_has_its_own_line(folder: Path) -> None:
    """The bar has to be off the line before the words come."""
    outcome = run_on_terminal("disk.vhdx", "missing/out.img")
    assert outcome.exit_code == 7
    line = "vhdx2raw: missing/out.img: cannot be written: No such file or directory"
    assert line in drawn_lines(outcome.err)


def test_a_disk_is_not_sent_to_a_terminal(folder: Path) -> None:
    outcome = run_on_terminal("disk.vhdx", "-", streams=["stdout"])
    assert outcome.exit_code == 2
    assert "standard output is a terminal" in outcome.err
    assert len(outcome.err) < 500


# -- streams that are closed or full ------------------------------------------------------------


def test_broken_pipe_is_an_output_error(folder: Path) -> None:
    with subprocess.Popen(
        [*MODULE, "disk.vhdx", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(1) == b"\0"
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 7
    assert err.splitlines() == [
        "vhdx2raw: standard output: cannot be written: Broken pipe",
        "vhdx2raw: hint: the program that reads the output has ended",
    ]


def test_full_stdout_is_an_output_error(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        outcome = run_program("disk.vhdx", "-", stdout=full)
    assert outcome.exit_code == 8
    assert outcome.err_lines == [
        "vhdx2raw: standard output: cannot be written: No space left on device",
        "vhdx2raw: hint: make room, or write to another place",
    ]


RESULTS = [
    ["--json", "disk.vhdx", "out.img"],
    ["info", "disk.vhdx"],
    ["map", "disk.vhdx"],
    ["map", "--json", "disk.vhdx"],
    ["map", "--picture", "disk.vhdx"],
    ["map", "--svg=-", "disk.vhdx"],
    ["check", "disk.vhdx"],
    ["compare", "disk.vhdx", "disk.vhdx"],
    ["hash", "disk.vhdx", "disk.vhdx"],
]
READ_IN_PART = {"map"}
"""Commands whose reader may stop reading; they end without a message."""


@pytest.mark.parametrize("kind", ["full", "broken pipe"])
@pytest.mark.parametrize("words", RESULTS, ids=" ".join)
def test_unwritable_result_is_an_output_error(folder: Path, words: list[str], kind: str) -> None:
    """Not exit code 1, which means that contents differ."""
    if kind == "full":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    with closing(os.fdopen(stdout, "wb", buffering=0)) as stream:
        outcome = run_program(*words, stdout=stream)
    reason = "No space left on device" if kind == "full" else "Broken pipe"
    is_made = "out.img" in words
    assert outcome.exit_code == (8 if is_made or kind == "full" else 7)
    if kind == "broken pipe" and words[0] in READ_IN_PART:
        assert outcome.err == ""
    else:
        reason += "; the raw image in out.img is complete" if is_made else ""
        first = f"vhdx2raw: standard output: cannot be written: {reason}"
        assert outcome.err_lines[0] == first
    if is_made:
        assert has_expected_bytes(folder / "out.img", small_disk())


FULL_STDERR = [
    (["disk.vhdx", "out.img"], 0),
    (["--progress", "json", "disk.vhdx", "out.img"], 0),
    (["-v", "disk.vhdx", "out.img"], 0),
    (["missing.vhdx", "out.img"], 8),
]


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
@pytest.mark.parametrize(
    ("words", "code"), FULL_STDERR, ids=[" ".join(words) for words, _ in FULL_STDERR]
)
def test_full_or_closed_stderr_changes_nothing(
    folder: Path, words: list[str], code: int, redirection: str
) -> None:
    shell = ("sh", "-c", f'exec "$@" {redirection}', "sh", *MODULE)
    outcome = run_program(*words, command=shell)
    assert outcome.exit_code == code
    assert ("out.img" in names_in(folder)) == (code == 0)


def test_a_closed_standard_output_cannot_take_a_disk(folder: Path) -> None:
    outcome = run_program("disk.vhdx", "-", command=("sh", "-c", 'exec "$@" >&-', "sh", *MODULE))
    assert outcome.exit_code == 7
    assert outcome.err_lines[0].startswith("vhdx2raw: standard output: ")
