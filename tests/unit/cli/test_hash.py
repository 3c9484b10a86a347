"""`vhdx2raw hash`: its lines, as sha256sum writes them, and its exit codes."""

import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.builder import (
    GIB,
    MIB,
    Block,
    ImageSpec,
    child_of,
    make_dirty,
)
from tests.support.chains import RELATIVE, base_disk
from tests.support.cli import (
    MODULE,
    TIMEOUT,
    drawn_lines,
    run,
    run_on_terminal,
    run_program,
    small_disk,
    start_program,
    unusual_disk,
)
from tests.support.files import names_in, write_files
from tests.support.peers import needs_program
from tests.support.raw import break_file, raw_of
from tests.support.real_images import REAL_IMAGES, needs_real_images, unpack_real_image
from tests.support.schemas import validator_of
from vhdx2raw.output.hashes import ALGORITHMS

pytestmark = pytest.mark.slow

SIZE = small_disk().virtual_disk_size
SHA256 = small_disk().expected_sha256()
VALIDATOR = validator_of("hash")
LARGEST_REAL_DISK = GIB
"""To hash more takes too long."""
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which holds disk.vhdx."""
    folder = tmp_path / "images"
    folder.mkdir()
    monkeypatch.chdir(folder)
    small_disk().write("disk.vhdx")
    return folder


def facts_of(capfd: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    """Hash, and give the JSON, which must fit its schema."""
    outcome = run(capfd, "hash", "--json", *arguments)
    assert outcome.exit_code == exit_code
    facts: dict[str, Any] = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    return facts


def output_of(command: Sequence[str], folder: Path, environment: dict[str, str]) -> bytes:
    """Run a program in a folder; give the bytes that it writes."""
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True
    ).stdout


# -- lines --------------------------------------------------------------------------------------


def test_line_has_digest_and_image(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "hash", "disk.vhdx")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, f"{SHA256}  disk.vhdx\n", "")
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.parametrize("words", [["-a", "md5"], ["--algorithm", "SHA3_256"], ["-a", "blake2b"]])
def test_another_algorithm_can_be_asked_for(folder: Path, capfd: Capture, words: list[str]) -> None:
    name = words[1].lower().replace("-", "_")
    expected = hashlib.new(name, raw_of(small_disk())).hexdigest()
    assert run(capfd, "hash", *words, "disk.vhdx").out == f"{expected}  disk.vhdx\n"


NAMES = [
    b"disk.img",
    b"with space.img",
    b"back\\slash",
    b"new\nline",
    b"carriage\rreturn",
    b"all\\\n\rof them\\",
    b"no t\xe9xt",
    "größer".encode(),
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_line_equals_that_of_sha256sum(folder: Path, name: bytes) -> None:
    """For every name; and the raw image can be checked with it."""
    Path("disk.vhdx").rename(os.fsdecode(name))
    raw = folder.with_name("raw")
    raw.mkdir()
    (raw / os.fsdecode(name)).write_bytes(raw_of(small_disk()))
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    ours = output_of([*MODULE, "hash", "--", os.fsdecode(name)], folder, environment)
    sha256sum = needs_program("sha256sum")
    theirs = output_of([sha256sum, "--", os.fsdecode(name)], raw, environment)
    assert ours == theirs
    (folder / "SUMS").write_bytes(ours)
    check = [sha256sum, "--check", "--strict", "--status", str(folder / "SUMS")]
    assert subprocess.run(check, cwd=raw, env=environment, check=False).returncode == 0


def test_a_name_cannot_command_a_terminal(folder: Path) -> None:
    """A program gets the name as it is, so that it finds the file."""
    Path("disk.vhdx").rename("a\x1b[2Jb")
    outcome = run_on_terminal("hash", "a\x1b[2Jb", streams=["stdout"])
    assert (outcome.exit_code, outcome.err) == (0, f"{SHA256}  a\\x1b[2Jb\n")
    assert run_program("hash", "a\x1b[2Jb").out == f"{SHA256}  a\x1b[2Jb\n"


def test_several_images_give_several_lines(folder: Path, capfd: Capture) -> None:
    ImageSpec(MIB, MIB).write("empty.vhdx")
    outcome = run(capfd, "hash", "empty.vhdx", "disk.vhdx", "empty.vhdx")
    empty = hashlib.sha256(bytes(MIB)).hexdigest()
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        f"{empty}  empty.vhdx",
        f"{SHA256}  disk.vhdx",
        f"{empty}  empty.vhdx",
    ]


def test_verbose_prints_warnings_and_a_summary(folder: Path, capfd: Capture) -> None:
    spec = unusual_disk()
    spec.write("unusual.vhdx")
    outcome = run(capfd, "hash", "-v", "unusual.vhdx")
    assert (outcome.exit_code, outcome.out) == (0, f"{spec.expected_sha256()}  unusual.vhdx\n")
    header, state, summary = outcome.err_lines
    assert header.startswith("vhdx2raw: unusual.vhdx: warning: header 1 at file offset 0x10000: ")
    assert state.startswith("vhdx2raw: unusual.vhdx: warning: BAT: blocks in state 5")
    assert re.fullmatch(r"vhdx2raw: unusual\.vhdx: 4 MiB dynamic disk hashed in \d+\.\d s", summary)
    assert run(capfd, "hash", "unusual.vhdx").err_lines == [header, state]
    assert run(capfd, "hash", "-q", "unusual.vhdx").err == ""


def test_progress_option_shows_a_bar(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "hash", "-p", "disk.vhdx")
    assert (outcome.exit_code, outcome.out) == (0, f"{SHA256}  disk.vhdx\n")
    last = drawn_lines(outcome.err)[-1]
    assert last.startswith("100%|")
    assert "5 MiB of 5 MiB" in last


# -- chains and logs ----------------------------------------------------------------------------


def test_a_chain_is_hashed_as_one_disk(folder: Path, capfd: Capture) -> None:
    base = base_disk()
    child = child_of(base, RELATIVE, blocks={1: Block()})
    write_files(folder, {"a/child.vhdx": child, "b/base.vhdx": base})
    line = f"{child.expected_sha256()}  a/child.vhdx\n"
    for words in (["--parent", "b/base.vhdx"], ["--parent-dir", "b"]):
        assert run(capfd, "hash", *words, "a/child.vhdx").out == line
    outcome = run(capfd, "hash", "a/child.vhdx")
    assert (outcome.exit_code, outcome.out) == (6, "")


def test_the_log_is_replayed_ignored_or_refused(folder: Path, capfd: Capture) -> None:
    before, after = ImageSpec(4 * MIB, MIB), ImageSpec(4 * MIB, MIB, {0: Block()})
    make_dirty(before, after).write("dirty.vhdx")
    outcomes = [
        run(capfd, "hash", *words, "dirty.vhdx")
        for words in ([], ["--ignore-log"], ["--no-replay"])
    ]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0, 5]
    assert outcomes[0].out == f"{after.expected_sha256()}  dirty.vhdx\n"
    assert outcomes[1].out == f"{before.expected_sha256()}  dirty.vhdx\n"
    assert outcomes[2].out == ""


@needs_real_images
@pytest.mark.parametrize(
    "name", [name for name, (size, _) in REAL_IMAGES.items() if size <= LARGEST_REAL_DISK]
)
def test_a_real_image_has_the_known_digest(tmp_path: Path, capfd: Capture, name: str) -> None:
    image = unpack_real_image(name, tmp_path)
    assert run(capfd, "hash", image).out == f"{REAL_IMAGES[name][1]}  {image}\n"


# -- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--output=json"])
def test_json_holds_the_facts(folder: Path, capfd: Capture, option: str) -> None:
    assert facts_of(capfd, option, "-a", "sha256", "disk.vhdx") == {
        "algorithm": "sha256",
        "images": [
            {
                "filename": "disk.vhdx",
                "partition": None,
                "virtual-size": SIZE,
                "digest": SHA256,
                "digests": {"sha256": SHA256},
                "warnings": [],
                "damage": [],
            }
        ],
    }


def test_json_names_the_algorithm_in_one_way(folder: Path, capfd: Capture) -> None:
    facts = facts_of(capfd, "-a", "SHA3_256", "disk.vhdx")
    assert facts["algorithm"] == "sha3-256"
    assert facts["images"][0]["digest"] == hashlib.sha3_256(raw_of(small_disk())).hexdigest()


def test_json_lists_failures_in_their_place(folder: Path, capfd: Capture) -> None:
    facts = facts_of(capfd, "missing.vhdx", "disk.vhdx", exit_code=8)
    failed, hashed = facts["images"]
    error = "missing.vhdx: No such file or directory"
    assert failed["filename"] == failed["error"]["filename"] == "missing.vhdx"
    assert failed["error"]["message"] == error
    assert (failed["error"]["reason"], failed["error"]["exit-code"]) == ("host-failure", 8)
    assert hashed["digest"] == SHA256


BROKEN = [{"digest": "xyz"}, {"digest": "abc"}, {"error": "both"}, {"virtual-size": 0}]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_the_schema_refuses_what_is_wrong(
    folder: Path, capfd: Capture, change: dict[str, object]
) -> None:
    facts = facts_of(capfd, "disk.vhdx")
    facts["images"][0] |= change
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(facts)


# -- failures -----------------------------------------------------------------------------------


def test_failure_does_not_stop_the_other_hashes(folder: Path, capfd: Capture) -> None:
    Path("text").write_text("hello")
    outcome = run(capfd, "hash", "disk.vhdx", "text", "missing.vhdx", "disk.vhdx")
    assert outcome.exit_code == 4
    assert outcome.out == f"{SHA256}  disk.vhdx\n" * 2
    first, hint, second = outcome.err_lines
    assert first.startswith("vhdx2raw: text: file: is ")
    assert hint.startswith("vhdx2raw: hint: ")
    assert second == "vhdx2raw: missing.vhdx: No such file or directory"


def test_a_disk_that_cannot_be_read_has_no_digest(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_file(monkeypatch, folder / "disk.vhdx", small_disk().block_file_offset(4) + 70_000)
    outcome = run(capfd, "hash", "disk.vhdx")
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == "vhdx2raw: disk.vhdx: Input/output error\n"


WRONG_USAGE = [
    (["-"], "a VHDX cannot be read from standard input; name a file"),
    (["-a", "crc32", "disk.vhdx"], f"'crc32' is none of {', '.join(ALGORITHMS)}"),
    (["--parent", "x", "disk.vhdx", "disk.vhdx"], "--parent fits one IMAGE"),
]


@pytest.mark.parametrize(("words", "text"), WRONG_USAGE)
def test_wrong_usage_is_explained(
    folder: Path, capfd: Capture, words: list[str], text: str
) -> None:
    outcome = run(capfd, "hash", *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert text in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_work(tmp_path: Path, number: signal.Signals) -> None:
    ImageSpec(256 * GIB, 256 * MIB).write(tmp_path / "disk.vhdx")
    with start_program("hash", "--progress", "json", tmp_path / "disk.vhdx") as process:
        assert process.stderr
        assert process.stderr.readline().startswith(b'{"bytes-done"')
        process.send_signal(number)
        last = process.stderr.read().splitlines()[-1]
        assert process.wait(TIMEOUT) == 128 + number
    words = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert last.decode() == f"vhdx2raw: {words}"


def test_name_outside_the_encoding_is_escaped(tmp_path: Path) -> None:
    small_disk().write(tmp_path / "\u00e9.vhdx")
    outcome = run_program(
        "hash", "\u00e9.vhdx", cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.endswith("  \\xe9.vhdx\n")
