"""The help and the manual page: examples that work, colours that can be had without, one JSON."""

import json
import os
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import TIMEOUT, run, run_on_terminal
from tests.support.docs import (
    SEARCH_PATH,
    SERVES,
    environment,
    optional_programs_of,
    prepare,
    run_shell,
)
from tests.support.mounts import clean_up, is_mounted, needs_fuse
from tests.support.paths import ROOT
from tests.support.peers import needs_program
from vhdx2raw.cli import app
from vhdx2raw.cli.app import COMMANDS

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
MANUAL_PAGE = ROOT / "docs" / "vhdx2raw.1"
SALVAGED = 3
ENDED = 143
END_WHEN_IT_SERVES = (
    "until [ -s address ] || ! kill -0 $!; do sleep 0.02; done; kill -s TERM $!; wait $!"
)
"""For a shell that has started a server in the background, which then prints where it is."""
ESCAPE = "\x1b"


def examples_of(name: str) -> list[tuple[str, str]]:
    """Give (command, comment) of the examples in the help of a command, or of the program."""
    module = import_module(f"vhdx2raw.cli.commands.{name}") if name else app
    lines = module.EXAMPLES.removeprefix("\b\nExamples:\n").splitlines()
    assert all(line.startswith("  vhdx2raw ") for line in lines)
    pairs = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines)
    return [(words[0], words[1] if len(words) > 1 else "") for words in pairs]


EXAMPLES = [(name, words) for name in ("", *COMMANDS) for words, _ in examples_of(name)]


# -- examples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_examples(capfd: Capture, name: str) -> None:
    examples = examples_of(name)
    assert len(examples) >= 3
    help_text = run(capfd, name, "--help").out
    for words, comment in examples:
        # `vhdx2raw SRC DST` is short for the first command.
        first = words.split()[1]
        assert first == name or first not in COMMANDS
        assert words in help_text
        assert comment in help_text


@pytest.mark.parametrize(("name", "words"), EXAMPLES, ids=[words for _, words in EXAMPLES])
def test_an_example_of_the_help_works(name: str, words: str, tmp_path: Path) -> None:
    for program in optional_programs_of(words):
        needs_program(program, path=SEARCH_PATH)
    # A regular file stands in for the disk of the user; test_block_device.py has real ones.
    words = re.sub(r"/dev/sd(\w)", r"./sd\1.img", words)
    if words.startswith("vhdx2raw mount"):
        needs_fuse()
        (tmp_path / "dir").mkdir()
    prepare(tmp_path, f"disk.vhdx {words}")
    prepare_outputs(tmp_path, words)
    if words.startswith(SERVES) and words.endswith(".vhdx"):
        words = f"{words} >address & {END_WHEN_IT_SERVES}"
        expected = ENDED
    else:
        expected = SALVAGED if "--salvage" in words else 0
    try:
        (done,) = run_shell(tmp_path, [words])
        assert words.startswith("vhdx2raw mount") == is_mounted(tmp_path / "dir")
    finally:
        clean_up(tmp_path)
    assert done.exit_code == expected, done.output


def prepare_outputs(folder: Path, words: str) -> None:
    """Make the raw images that a command compares with, replaces or changes."""
    if words.startswith("vhdx2raw apply"):
        state = re.search(r"--state \S+", words)
        how = state[0] if state else "--save-state"
        image = "./sdx.img" if "sdx.img" in words else "disk.img"
        (done,) = run_shell(folder, [f"vhdx2raw {how} base.vhdx {image}"])
        assert done.exit_code == 0
    if words.startswith("vhdx2raw compare") or "--force" in words:
        for name in re.findall(r"\S+\.img\b", words):
            part = "--partition 2 server.vhdx" if "server.vhdx" in words else "disk.vhdx"
            (done,) = run_shell(folder, [f"vhdx2raw {part} {shlex.quote(name)}"])
            assert done.exit_code == 0


# -- colours ------------------------------------------------------------------------------------


def shown_on_terminal(folder: Path, *words: str, **variables: str) -> str:
    """Run the program with both streams on a terminal; give everything that it showed."""
    known = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    env = {**known, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    return run_on_terminal(*words, streams=["stdout", "stderr"], cwd=folder, env=env).err


COLOURLESS = [
    ["--help"],
    *([name, "--help"] for name in COMMANDS),
    ["--bogus"],
    ["disk.vhdx", "disk.img"],
    ["missing.vhdx", "disk.img"],
    ["info", "disk.vhdx"],
    ["map", "disk.vhdx"],
    ["map", "--picture", "disk.vhdx"],
    ["check", "disk.vhdx"],
    ["compare", "-p", "disk.vhdx", "copy.vhdx"],
    ["hash", "disk.vhdx"],
]


@pytest.mark.parametrize("words", COLOURLESS, ids=" ".join)
def test_no_color_is_honoured_by_every_command(words: list[str], tmp_path: Path) -> None:
    prepare(tmp_path, "disk.vhdx copy.vhdx")
    shown = shown_on_terminal(tmp_path, *words, NO_COLOR="1")
    assert shown
    # Colours end in "m"; a bar of progress moves the cursor in other ways.
    assert not re.search(rf"{ESCAPE}\[[\d;]*m", shown)


def test_only_the_picture_has_colours(tmp_path: Path) -> None:
    prepare(tmp_path, "disk.vhdx copy.vhdx")
    colour = re.compile(rf"{ESCAPE}\[[\d;]*m")
    coloured = [words for words in COLOURLESS if colour.search(shown_on_terminal(tmp_path, *words))]
    assert coloured == [["map", "--picture", "disk.vhdx"]]


# -- JSON ---------------------------------------------------------------------------------------

WORDS = {
    "batch": ["--output-dir", "raw", "--force", "disk.vhdx"],
    "apply": ["--dry-run", "snap1.avhdx", "disk.img"],
    "convert": ["disk.vhdx", "null:"],
    "info": ["disk.vhdx"],
    "map": ["disk.vhdx"],
    "check": ["disk.vhdx"],
    "compare": ["disk.vhdx", "copy.vhdx"],
    "hash": ["disk.vhdx"],
    "measure": ["disk.vhdx"],
    "tree": ["."],
}
"""The commands that have a result, and how each is had."""


def result_of(capfd: Capture, *words: str) -> Any:  # noqa: ANN401 - any JSON
    """Run a command; give its JSON, without what differs from run to run."""
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    if isinstance(result, dict):
        for key in ("duration-seconds", "command-line", "began", "ended"):
            result.pop(key, None)
    return result


@pytest.mark.parametrize("name", WORDS)
def test_output_json_is_json_for_every_command(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, "disk.vhdx copy.vhdx snap1.avhdx")
    prepare_outputs(tmp_path, f"vhdx2raw {name}")
    expected = result_of(capfd, name, "--json", *WORDS[name])
    for words in (["--output=json"], ["--output", "json"]):
        assert result_of(capfd, name, *words, *WORDS[name]) == expected
    plain = run(capfd, name, "--output=human", *WORDS[name])
    assert plain == run(capfd, name, *WORDS[name])
    assert not plain.out.startswith(("{", "["))


# -- the manual page ----------------------------------------------------------------------------

FORMATTERS = {
    "groff": ["groff", "-man", "-ww", "-z", "-Tutf8"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "style"],
    "man": ["man", "--warnings", "-E", "UTF-8", "-l"],
}


@pytest.mark.parametrize("program", FORMATTERS)
def test_manual_page_has_no_warnings(program: str, tmp_path: Path) -> None:
    needs_program(program)
    done = subprocess.run(
        [*FORMATTERS[program], MANUAL_PAGE],
        env={**environment(tmp_path), "MANPAGER": "cat", "MANWIDTH": "80"},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if program == "mandoc":
        assert done.stdout == ""


def test_manual_page_has_every_section_and_option(capfd: Capture) -> None:
    text = MANUAL_PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\.SH (.*)$", text, re.MULTILINE) == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "ENVIRONMENT"),
        *("EXAMPLES", "SEE ALSO"),
    ]
    assert re.findall(r"^\.SS (.*)$", text, re.MULTILINE) == list(COMMANDS)
    plain = text.replace("\\-", "-")
    for name in COMMANDS:
        section = plain.partition(f".SS {name}\n")[2].partition("\n.S")[0]
        options = re.findall(
            r"^  (?:-\w, )?(--[\w-]+)", run(capfd, name, "--help").out, re.MULTILINE
        )
        assert len(options) >= 2
        assert all(f"{option} " in f"{section} ".replace("\\fR", " ") for option in options)
    assert "NO_COLOR" in text
    assert "VHDX2RAW_DEBUG" in text
