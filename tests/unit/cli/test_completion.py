"""Completion in the shells: they are started, and asked what they would complete."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.cli import SCRIPT, TIMEOUT, run
from tests.support.peers import needs_program
from vhdx2raw.cli.app import COMMANDS

pytestmark = pytest.mark.slow

PROGRAM_FOLDER = Path(SCRIPT[0]).parent
FILES = ("disk 1.vhdx", "snapshot.avhdx")
Complete = Callable[[Path, str], set[str]]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Give the environment of a user who has the program on the path and `folder` as home."""
    path = f"{PROGRAM_FOLDER}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", **variables}


def run_in(folder: Path, *words: str, **variables: str) -> str:
    """Run a program with `folder` as home; give its output, or fail with it."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


# -- three shells -------------------------------------------------------------------------------


@cache
def registration(shell: str) -> str:
    """Give what a shell is to evaluate, as the program prints it."""
    with TemporaryDirectory() as name:
        return run_in(Path(name), "vhdx2raw", _VHDX2RAW_COMPLETE=f"source_{shell}")


# Readline falls back to names of files when a function finds nothing and was registered with
# `-o default`; compgen gives those names.
BASH = """
eval "$REGISTRATION"
registered=$(complete -p vhdx2raw)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
function=${registered#* -F }
${function%% *} vhdx2raw
if [[ ${#COMPREPLY[@]} -eq 0 && $registered == *"-o default"* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
fi
printf '%s\\n' "${COMPREPLY[@]}"
"""

ZSH_INIT = 'autoload -Uz compinit && compinit -u -d "$HOME/dump"'
ZSH_START = f"""
PS1='ready> '
{ZSH_INIT}
eval "$REGISTRATION"
save() {{ print -r -- "$BUFFER" > "$HOME/buffer"; exit }}
zle -N save && bindkey '^G' save
unsetopt beep
"""


def complete_in_bash(folder: Path, line: str) -> set[str]:
    """Ask bash for the completions of the last word."""
    words = line.split(" ")
    command = ("bash", "--norc", "-c", BASH, "bash", *words)
    return set(run_in(folder, *command, REGISTRATION=registration("bash")).splitlines())


def complete_in_fish(folder: Path, line: str) -> set[str]:
    """Ask fish for the completions of the last word."""
    script = "printf '%s' $REGISTRATION | source; complete --do-complete $argv[1]"
    command = ("fish", "--no-config", "-c", script, line)
    shown = run_in(folder, *command, REGISTRATION=registration("fish")).splitlines()
    return {candidate.partition("\t")[0] for candidate in shown}


@cache
def dump_of_zsh() -> bytes:
    """Give what zsh keeps of all its completions, which take it a second to collect."""
    with TemporaryDirectory() as name:
        run_in(Path(name), "zsh", "-f", "-c", ZSH_INIT)
        return (Path(name) / "dump").read_bytes()


def complete_in_zsh(folder: Path, line: str) -> set[str]:
    """Type a line and a tab in zsh; give the word that it has become, if it is the only one."""
    (folder / ".zshrc").write_text(ZSH_START)
    (folder / "dump").write_bytes(dump_of_zsh())
    variables = {"ZDOTDIR": str(folder), "TERM": "dumb", "REGISTRATION": registration("zsh")}
    terminal, inner = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-i"],
        cwd=folder,
        env=environment(folder, **variables),
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    ):
        os.close(inner)
        try:
            read_until(terminal, b"ready> ")
            os.write(terminal, f"{line}\t\x07".encode())
            read_until(terminal, b"")
        finally:
            os.close(terminal)
    buffer = (folder / "buffer").read_text().removesuffix("\n")
    assert buffer.startswith(line)
    return {buffer[line.rindex(" ") + 1 :].rstrip(" ").replace("\\ ", " ")}


def read_until(terminal: int, words: bytes) -> None:
    """Read what a terminal shows until it shows `words`, or its end if there are none."""
    shown, end = bytearray(), time.monotonic() + TIMEOUT
    while not words or words not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, shown
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux reports that the other side has ended
            piece = b""
        if not piece:
            assert not words, shown
            return
        shown += piece


SHELLS: dict[str, Complete] = {
    "bash": complete_in_bash,
    "zsh": complete_in_zsh,
    "fish": complete_in_fish,
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Give the name of each shell that is installed."""
    name: str = request.param
    needs_program(name)
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two files."""
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


UNIQUE = [
    ("vhdx2raw inf", "info"),
    ("vhdx2raw conv", "convert"),
    ("vhdx2raw snap", "snapshot.avhdx"),
    ("vhdx2raw --vers", "--version"),
    ("vhdx2raw --forc", "--force"),
    ("vhdx2raw disk.vhdx --sparse", "--sparse-size"),
    ("vhdx2raw convert disk.vhdx sna", "snapshot.avhdx"),
    ("vhdx2raw --force --progress alw", "always"),
    ("vhdx2raw --parent snap", "snapshot.avhdx"),
    ("vhdx2raw map --pict", "--picture"),
    ("vhdx2raw info --chain snap", "snapshot.avhdx"),
    ("vhdx2raw hash -a sha256 --verb", "--verbose"),
    ("vhdx2raw hash --alg", "--algorithm"),
    ("vhdx2raw compare disk.vhdx snap", "snapshot.avhdx"),
]


@pytest.mark.parametrize(("line", "word"), UNIQUE, ids=[line for line, _ in UNIQUE])
def test_a_word_is_completed(shell: str, folder: Path, line: str, word: str) -> None:
    assert SHELLS[shell](folder, line) == {word}


@pytest.mark.parametrize("name", ["bash", "fish"])
def test_the_commands_are_offered_first(folder: Path, name: str) -> None:
    needs_program(name)
    assert SHELLS[name](folder, "vhdx2raw ") == set(COMMANDS)


@pytest.mark.parametrize("name", ["bash", "fish"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_option_in_the_help_is_offered(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    needs_program(name)
    words = ["vhdx2raw", *command.split()]
    lines = run(capfd, *words[1:], "--help").out.splitlines()
    options = {
        word.strip(",") for line in lines for word in line.split()[:2] if line.startswith("  -")
    }
    offered = SHELLS[name](folder, " ".join([*words, "--"]))
    assert "--help" in options
    # A second line of help would be offered as if it were a word of its own.
    assert all(word.startswith("--") for word in offered)
    assert {option for option in options if option.startswith("--")} <= offered


# -- installing, and what it costs --------------------------------------------------------------


def test_completion_is_installed_for_this_shell(folder: Path) -> None:
    # Not the last command, which bash would become instead of staying the parent.
    output = run_in(folder, "bash", "--norc", "-c", "vhdx2raw --install-completion; true")
    assert output.startswith("bash completion installed in ")
    assert ".bash_completions/vhdx2raw.sh" in (folder / ".bashrc").read_text()
    typed = 'source "$HOME/.bashrc"; complete -p vhdx2raw'
    assert run_in(folder, "bash", "--norc", "-c", typed).strip().endswith(" vhdx2raw")


def test_the_script_can_be_shown(folder: Path) -> None:
    shown = run_in(folder, "bash", "--norc", "-c", "vhdx2raw --show-completion; true")
    assert "_VHDX2RAW_COMPLETE=complete_bash" in shown
    assert shown.strip() == run_in(folder, "vhdx2raw", _VHDX2RAW_COMPLETE="source_bash").strip()


LOADED = """
import json, sys
from vhdx2raw.cli import app, main
app.app._add_completion = sys.argv[1] == "with"
main(["--version"])
print(json.dumps(sorted(sys.modules)))
"""


def test_run_without_completion_loads_none_of_it(folder: Path) -> None:
    loaded = [
        set(json.loads(run_in(folder, sys.executable, "-c", LOADED, how).splitlines()[-1]))
        for how in ("with", "without")
    ]
    assert loaded[0] == loaded[1]
    assert "rich" not in loaded[0]
