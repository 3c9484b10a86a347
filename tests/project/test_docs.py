"""The documents: what they show is what happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs import (
    DOCUMENTS,
    SEARCH_PATH,
    TIMEOUT,
    Code,
    Command,
    commands_of,
    environment,
    is_shown,
    prepare,
    read_blocks,
    run_shell,
)
from tests.support.mounts import clean_up, needs_fuse
from tests.support.paths import ROOT
from tests.support.peers import needs_module, needs_program
from vhdx2raw.cli import exit_codes
from vhdx2raw.rules import Rule

CONSOLE = read_blocks("console")
PYTHON = read_blocks("python")
EXIT_CODE = "echo $?"
TESTED_ELSEWHERE = {
    "cli.md": "test_help.py",
    "batch.md": "test_docs_recipes.py",
    "remote.md": "test_docs_remote.py",
    "schedulers.md": "test_parallel.py",
}
"""Documents with scripts (`sh`), and what runs these."""
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def require_runnable(block: Code) -> None:
    """Skip what needs more than a folder, saying what that is."""
    if block.reason_not_to_run:
        pytest.skip(f"{block.name} is not run: {block.reason_not_to_run}")
    for program in block.optional_programs:
        needs_program(program, path=SEARCH_PATH)
    if "vhdx2raw mount" in block.text:
        needs_fuse()


def assert_does_what_it_shows(folder: Path, commands: list[Command]) -> None:
    """Run commands; one may fail only if its exit code is asked for next."""
    folder.mkdir()
    prepare(folder, "\n".join(command.words for command in commands))
    try:
        done = run_shell(folder, [command.words for command in commands])
    finally:
        clean_up(folder)
    asked = [command.words == EXIT_CODE for command in commands[1:]]
    for command, result, may_fail in zip(commands, done, [*asked, False], strict=True):
        assert may_fail or result.exit_code == 0, f"{command.words}\n{result.output}"
        # What is not shown is not promised.
        assert not command.output or is_shown(command.output, result.output), (
            f"{command.words}\n--- shown:\n{command.output}\n--- but:\n{result.output}"
        )


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.name)
def test_shell_example_prints_what_is_shown(block: Code, tmp_path: Path) -> None:
    require_runnable(block)
    commands = commands_of(block.text)
    runs = [[command] for command in commands] if block.mark == "each alone" else [commands]
    for index, run in enumerate(runs):
        assert_does_what_it_shows(tmp_path / str(index), run)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_python_example_prints_what_is_shown(block: Code, tmp_path: Path) -> None:
    require_runnable(block)
    if "dissect" in block.text:
        needs_module("dissect.extfs")
    prepare(tmp_path, block.text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    printed = iter(done.stdout.splitlines())
    for expected in PRINTED.findall(block.text):
        assert expected in printed, f"{expected!r} is not among, or not in order:\n{done.stdout}"


def test_there_are_examples_to_run() -> None:
    assert len([block for block in CONSOLE if not block.reason_not_to_run]) >= 20
    assert len(PYTHON) >= 8


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_of_a_tested_kind(path: Path) -> None:
    known = {"console", "python", "text", "json"} | (
        {"sh"} if path.name in TESTED_ELSEWHERE else set()
    )
    assert {block.language for block in read_blocks() if block.document == path} <= known


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        ("a\nb", "a\nb", True),
        ("a\nb", "a\nb\nc", False),
        ("a", "b", False),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("1 MiB written to x in 0.0 s", "2 MiB written to x in 7.5 s", True),
        ("1 MiB written to x in 0.0 s", "1 MiB written to y in 0.0 s", False),
    ],
)
def test_shown_output_is_compared(*, shown: str, output: str, expected: bool) -> None:
    assert is_shown(shown, output) is expected


def test_an_example_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="No such file"):
        assert_does_what_it_shows(tmp_path / "0", [Command("vhdx2raw missing.vhdx x", "")])
    with pytest.raises(AssertionError, match=r"but:\s+7\b"):
        assert_does_what_it_shows(
            tmp_path / "1",
            [Command("vhdx2raw disk.vhdx disk.vhdx", ""), Command(EXIT_CODE, "5")],
        )


MARKS = ("", "each alone", "not run")


@pytest.mark.parametrize("block", [*CONSOLE, *PYTHON], ids=lambda block: block.name)
def test_marks_of_blocks_are_known(block: Code) -> None:
    kind, _, reason = block.mark.partition(": ")
    assert kind in MARKS
    assert bool(reason) == (kind == "not run")


def anchors_of(path: Path) -> set[str]:
    """Give the anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_exist(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor[1:] in anchors_of(file), target + anchor


# -- exit codes ---------------------------------------------------------------------------------

DEFINED = {
    *("0", "2", "129, 130, 143"),  # of every program
    *(str(code) for name, code in vars(exit_codes).items() if name.isupper() and name[0] != "_"),
}


@pytest.mark.parametrize("name", ["exit-codes.md", "cli.md"])
def test_every_exit_code_is_listed(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert set(re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)) == DEFINED


# -- the generated documents --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cli.md", "format-rules.md", "vhdx2raw.1"])
def test_the_generated_documents_are_up_to_date(name: str, tmp_path: Path) -> None:
    generator = ROOT / "docs" / "generate.py"
    subprocess.run([sys.executable, generator, tmp_path], check=True, timeout=TIMEOUT)
    fresh = (tmp_path / name).read_text(encoding="utf-8")
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == fresh, "run `make docs`"


def test_every_rule_is_listed_once_in_order() -> None:
    text = (ROOT / "docs" / "format-rules.md").read_text(encoding="utf-8")
    rules = text.partition("## With `--salvage`")[0]
    assert re.findall(r"^\| (R[\dR-]+) \|", rules, re.MULTILINE) == list(Rule)
    assert "{" not in text
