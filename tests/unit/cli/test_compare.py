"""`vhdx2raw compare`: what it prints, and its exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.builder import GIB, KIB, MIB, Block, ImageSpec, child_of
from tests.support.chains import RELATIVE, base_disk
from tests.support.cli import (
    TIMEOUT,
    drawn_lines,
    run,
    small_disk,
    start_program,
    stored_zeros,
    unusual_disk,
)
from tests.support.files import names_in, write_files
from tests.support.peers import needs_program
from tests.support.raw import break_file, raw_of, write_sparse
from tests.support.real_images import CLEAN, REAL_IMAGES, needs_real_images, unpack_real_image
from tests.support.schemas import validator_of

pytestmark = pytest.mark.slow

SIZE = small_disk().virtual_disk_size
VALIDATOR = validator_of("compare")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which holds disk.vhdx, its raw image disk.img, and bad.img."""
    monkeypatch.chdir(tmp_path)
    small_disk().write("disk.vhdx")
    raw = raw_of(small_disk())
    write_sparse(Path("disk.img"), raw)
    raw[2 * MIB + 1] = raw[4 * MIB] = raw[SIZE - 1] = 0xEE
    write_sparse(Path("bad.img"), raw)
    return tmp_path


def facts_of(capfd: Capture, *arguments: str, exit_code: int) -> dict[str, Any]:
    """Compare, and give the JSON, which must fit its schema."""
    outcome = run(capfd, "compare", "--json", *arguments)
    assert (outcome.exit_code, outcome.err) == (exit_code, "")
    facts: dict[str, Any] = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    assert facts["same"] == (exit_code == 0)
    return facts


# -- words --------------------------------------------------------------------------------------


def test_equal_raw_image_is_reported(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "compare", "disk.vhdx", "disk.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out == "disk.vhdx and disk.img have the same contents\n"


def test_differences_are_counted(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "compare", "disk.vhdx", "bad.img")
    assert (outcome.exit_code, outcome.err) == (1, "")
    assert outcome.out == (
        "disk.vhdx and bad.img differ in 3 bytes, the first at offset 0x200001 (2097153)\n"
    )


def test_one_difference_is_one_byte(folder: Path, capfd: Capture) -> None:
    raw = raw_of(small_disk())
    raw[4096] = 0
    write_sparse(Path("bad.img"), raw)
    outcome = run(capfd, "compare", "disk.vhdx", "bad.img")
    assert (
        outcome.out == "disk.vhdx and bad.img differ in 1 byte, the first at offset 0x1000 (4096)\n"
    )


def test_first_stops_at_a_difference(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "compare", "--first", "disk.vhdx", "bad.img")
    assert (outcome.exit_code, outcome.err) == (1, "")
    assert outcome.out == (
        "disk.vhdx and bad.img differ, the first byte at offset 0x200001 (2097153)\n"
    )


@pytest.mark.parametrize(("file", "exit_code"), [("disk.img", 0), ("bad.img", 1)])
def test_quiet_leaves_only_the_exit_code(
    folder: Path, capfd: Capture, file: str, exit_code: int
) -> None:
    outcome = run(capfd, "compare", "-q", "disk.vhdx", file)
    assert (outcome.exit_code, outcome.out, outcome.err) == (exit_code, "", "")


@pytest.mark.parametrize(("strict", "exit_code"), [([], 0), (["--strict"], 1)])
def test_zeros_at_the_end_count_only_if_sizes_do(
    folder: Path, capfd: Capture, strict: list[str], exit_code: int
) -> None:
    os.truncate("disk.img", SIZE + 512)
    outcome = run(capfd, "compare", *strict, "disk.vhdx", "disk.img")
    assert (outcome.exit_code, outcome.err) == (exit_code, "")
    words = "disk.vhdx and disk.img have the same contents; disk.img is longer by 512 bytes"
    assert outcome.out == f"{words} of zeros\n"


def test_a_raw_image_that_is_cut_off_differs(folder: Path, capfd: Capture) -> None:
    os.truncate("disk.img", 4 * MIB + 512)
    outcome = run(capfd, "compare", "disk.vhdx", "disk.img")
    assert outcome.exit_code == 1
    assert re.fullmatch(
        r"disk\.vhdx and disk\.img differ in \d+ bytes, the first at offset 0x400201 \(\d+\);"
        r" disk\.vhdx is longer by 1048576 bytes\n",
        outcome.out,
    )


def test_names_cannot_command_a_terminal(folder: Path, capfd: Capture) -> None:
    Path("disk.img").rename("a\x1b[2Jb")
    outcome = run(capfd, "compare", "disk.vhdx", "a\x1b[2Jb")
    assert outcome.out == "disk.vhdx and a\\x1b[2Jb have the same contents\n"


def test_name_that_is_no_text_is_escaped(folder: Path, capfd: Capture) -> None:
    name = os.fsdecode(b"d\xffsk.img")
    Path("disk.img").rename(name)
    outcome = run(capfd, "compare", "disk.vhdx", name)
    assert outcome.out == "disk.vhdx and d\\xffsk.img have the same contents\n"


def test_verbose_prints_warnings_and_a_summary(folder: Path, capfd: Capture) -> None:
    unusual_disk().write("unusual.vhdx")
    unusual_disk().write("other.vhdx")
    outcome = run(capfd, "compare", "-v", "unusual.vhdx", "other.vhdx")
    assert outcome.exit_code == 0
    starts = [
        "vhdx2raw: unusual.vhdx: warning: header 1 at file offset 0x10000: ",
        "vhdx2raw: unusual.vhdx: warning: BAT: blocks in state 5",
        "vhdx2raw: other.vhdx: warning: header 1 at file offset 0x10000: ",
        "vhdx2raw: other.vhdx: warning: BAT: blocks in state 5",
        "vhdx2raw: 1 MiB compared in ",
    ]
    for line, start in zip(outcome.err_lines, starts, strict=True):
        assert line.startswith(start)


def test_progress_option_shows_a_bar(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "compare", "-p", "disk.vhdx", "disk.img")
    assert outcome.exit_code == 0
    last = drawn_lines(outcome.err)[-1]
    assert last.startswith("100%|")
    assert "2 MiB of 2 MiB" in last


# -- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--output=json"])
def test_json_holds_the_facts(folder: Path, capfd: Capture, option: str) -> None:
    facts = facts_of(capfd, option, "disk.vhdx", "bad.img", exit_code=1)
    assert facts.pop("duration-seconds") >= 0
    assert facts == {
        "same": False,
        "same-contents": False,
        "same-size": True,
        "first-difference": 2 * MIB + 1,
        "different-bytes": 3,
        "compared-bytes": 2 * MIB + 64 * KIB + 512,
        "images": [
            {"filename": "disk.vhdx", "format": "vhdx", "partition": None, "virtual-size": SIZE},
            {"filename": "bad.img", "format": "raw", "partition": None, "virtual-size": SIZE},
        ],
        "warnings": [],
        "damage": [],
    }


def test_json_does_not_count_what_was_not_counted(folder: Path, capfd: Capture) -> None:
    facts = facts_of(capfd, "--first", "disk.vhdx", "bad.img", exit_code=1)
    assert (facts["first-difference"], facts["different-bytes"]) == (2 * MIB + 1, None)
    facts = facts_of(capfd, "--first", "disk.vhdx", "disk.img", exit_code=0)
    assert (facts["first-difference"], facts["different-bytes"]) == (None, 0)


def test_json_separates_contents_and_size(folder: Path, capfd: Capture) -> None:
    os.truncate("disk.img", SIZE + 1)
    for words, exit_code in (([], 0), (["--strict"], 1)):
        facts = facts_of(capfd, *words, "disk.vhdx", "disk.img", exit_code=exit_code)
        assert (facts["same-contents"], facts["same-size"]) == (True, False)
        assert [image["virtual-size"] for image in facts["images"]] == [SIZE, SIZE + 1]


def test_quiet_does_not_silence_json(folder: Path, capfd: Capture) -> None:
    assert facts_of(capfd, "-q", "disk.vhdx", "disk.img", exit_code=0)["same-size"]


BROKEN = [{"same": 1}, {"first-difference": -1}, {"images": []}, {"warnings": None}, {"more": 0}]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_the_schema_refuses_what_is_wrong(
    folder: Path, capfd: Capture, change: dict[str, object]
) -> None:
    right = facts_of(capfd, "disk.vhdx", "disk.img", exit_code=0)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(right | change)


# -- what the other disk may be -----------------------------------------------------------------


def test_another_vhdx_is_known_by_its_signature(folder: Path, capfd: Capture) -> None:
    shutil.copy("disk.vhdx", "copy.img")
    facts = facts_of(capfd, "disk.vhdx", "copy.img", exit_code=0)
    assert [image["format"] for image in facts["images"]] == ["vhdx", "vhdx"]


def test_a_raw_disk_may_look_like_a_vhdx(folder: Path, capfd: Capture) -> None:
    """The first bytes of a disk are whatever its owner wrote there."""
    ImageSpec(MIB, MIB, {0: Block(content=b"vhdxfile")}).write("alike.vhdx")
    Path("alike.img").write_bytes(b"vhdxfile".ljust(MIB, b"\0"))
    assert run(capfd, "compare", "alike.vhdx", "alike.img").exit_code == 5
    assert facts_of(capfd, "--raw", "alike.vhdx", "alike.img", exit_code=0)["same-size"]


@pytest.mark.parametrize("size", [0, 5])
def test_a_tiny_raw_image_is_one_too(folder: Path, capfd: Capture, size: int) -> None:
    Path("tiny.img").write_bytes(b"vhdxf"[:size])
    facts = facts_of(capfd, "disk.vhdx", "tiny.img", exit_code=1)
    assert facts["images"][1] == {
        "filename": "tiny.img",
        "format": "raw",
        "partition": None,
        "virtual-size": size,
    }


def test_parent_option_is_for_the_image_alone(folder: Path, capfd: Capture) -> None:
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={1: Block()})
    write_files(folder, {"a/child.vhdx": child, "b/child.vhdx": child, "c/base.vhdx": base})
    words = ["--parent", "c/base.vhdx", "a/child.vhdx", "b/child.vhdx"]
    outcome = run(capfd, "compare", *words)
    assert outcome.exit_code == 6
    assert outcome.err.startswith("vhdx2raw: b/child.vhdx: its parent cannot be used: ")
    assert run(capfd, "compare", "--parent-dir", "c", *words).exit_code == 0
    write_sparse(folder / "child.img", raw_of(child))
    assert run(capfd, "compare", *words[:3], "child.img").exit_code == 0


# -- failures -----------------------------------------------------------------------------------


WRONG_USAGE = [
    (["disk.vhdx", "-"], "disks cannot be read from standard input; name a file"),
    (["-", "disk.img"], "disks cannot be read from standard input; name a file"),
    (["--no-replay", "--ignore-log", "disk.vhdx", "disk.img"], "contradict each other"),
]


@pytest.mark.parametrize(("words", "text"), WRONG_USAGE)
def test_wrong_usage_is_explained(
    folder: Path, capfd: Capture, words: list[str], text: str
) -> None:
    outcome = run(capfd, "compare", *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert text in outcome.err


FAILURES = [
    (["disk.img", "disk.vhdx"], 4, "disk.img: file: is something else, not a VHDX (MS-VHDX 2.2.1)"),
    (["disk.vhdx", "."], 4, ".: file: is a directory, not a VHDX file"),
    (["disk.vhdx", "missing.img"], 8, "missing.img: No such file or directory"),
    (["missing.vhdx", "disk.img"], 8, "missing.vhdx: No such file or directory"),
]


@pytest.mark.parametrize(("words", "exit_code", "line"), FAILURES)
def test_failure_is_no_difference(
    folder: Path, capfd: Capture, words: list[str], exit_code: int, line: str
) -> None:
    outcome = run(capfd, "compare", *words)
    assert (outcome.exit_code, outcome.out) == (exit_code, "")
    assert outcome.err_lines[0] == f"vhdx2raw: {line}"


@pytest.mark.parametrize("file", ["disk.vhdx", "disk.img"])
def test_unreadable_disk_is_no_difference(
    folder: Path, capfd: Capture, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = small_disk().block_file_offset(0) if file == "disk.vhdx" else 0
    break_file(monkeypatch, folder / file, place + 6000)
    outcome = run(capfd, "compare", "disk.vhdx", "disk.img")
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == f"vhdx2raw: {file}: Input/output error\n"


def test_nothing_is_written_anywhere(folder: Path, capfd: Capture) -> None:
    names = ["bad.img", "disk.img", "disk.vhdx"]
    before = [(Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in names]
    run(capfd, "compare", "disk.vhdx", "bad.img")
    assert names_in(folder) == names
    assert [(Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in names] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_comparison(tmp_path: Path, number: signal.Signals) -> None:
    stored_zeros(256 * GIB).write(tmp_path / "disk.vhdx")
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(256 * GIB)
    files = (tmp_path / "disk.vhdx", tmp_path / "disk.img")
    with start_program("compare", "--progress", "json", *files) as process:
        assert process.stderr
        assert process.stderr.readline().startswith(b'{"bytes-done"')
        process.send_signal(number)
        last = process.stderr.read().splitlines()[-1]
        assert process.wait(TIMEOUT) == 128 + number
    words = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert last.decode() == f"vhdx2raw: {words}"


# -- another truth ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longer", "strict"),
    [(0, False), (512, False), (512, True), (3 * MIB, False), (3 * MIB, True)],
)
@pytest.mark.parametrize("file", ["disk.img", "bad.img"])
def test_qemu_img_compare_agrees(
    folder: Path, capfd: Capture, file: str, longer: int, *, strict: bool
) -> None:
    """Except for equal sizes with -s: there qemu-img also looks at what is allocated."""
    os.truncate(file, SIZE + longer)
    needs_program("qemu-img")
    command = ["qemu-img", "compare", "-q", "-f", "vhdx", "-F", "raw", "disk.vhdx", file]
    theirs = subprocess.run(command + ["-s"] * strict, check=False).returncode
    assert theirs in (0, 1)
    words = ["--strict"] * strict
    assert run(capfd, "compare", "-q", *words, "disk.vhdx", file).exit_code == theirs


@needs_real_images
@pytest.mark.parametrize("name", CLEAN)
def test_real_image_equals_that_of_qemu_img(tmp_path: Path, capfd: Capture, name: str) -> None:
    needs_program("qemu-img")
    image, raw = unpack_real_image(name, tmp_path), tmp_path / "disk.img"
    command = ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", str(image), str(raw)]
    subprocess.run(command, check=True)
    assert run(capfd, "compare", "-q", "--strict", image, raw).exit_code == 0
    with raw.open("r+b") as file:
        file.seek(REAL_IMAGES[name][0] - 7)
        file.write(b"\xa5\x5a")
    outcome = run(capfd, "compare", image, raw)
    assert outcome.exit_code == 1
    assert f"at offset {REAL_IMAGES[name][0] - 7:#x} " in outcome.out
