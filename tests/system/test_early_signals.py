"""A signal that comes while the program starts or ends is answered as any other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import TIMEOUT, small_disk
from tests.support.signals import SIGNAL_MESSAGES

AT_AN_IMPORT = """
import os, sys
from vhdx2raw.cli import main

class Finder:
    count = 0

    def find_spec(self, name, path, target=None):
        Finder.count += 1
        if Finder.count == at:
            for _ in range(times):
                os.kill(os.getpid(), number)

number, at, times = map(int, sys.argv[1:4])
sys.meta_path.insert(0, Finder())
code = main(sys.argv[4:])
if not number:
    print(Finder.count)
sys.exit(code)
"""
"""Runs the program, which gets signals at one of the imports that it makes."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


def start(number: int, at: int, times: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    numbers = map(str, (number, at, times))
    return subprocess.run(
        [sys.executable, "-c", AT_AN_IMPORT, *numbers, *words],
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "times"),
    [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1), (signal.SIGHUP, 2)],
)
def test_a_signal_at_any_import_is_told_on_one_line(path: Path, number: int, times: int) -> None:
    count = int(start(0, -1, 0, "info", "-q", path).stdout.split()[-1])
    assert count > 10, "the heavy imports come before signals are caught"
    for at in {*range(1, count, max(1, count // 6)), 1, 2}:
        ended = start(number, at, times, "info", "-q", path)
        assert (ended.returncode, ended.stderr) == (
            128 + number,
            SIGNAL_MESSAGES[signal.Signals(number)],
        ), f"at import {at} of {count}"


def test_what_is_imported_before_signals_are_caught_is_little(path: Path) -> None:
    script = "import sys, vhdx2raw.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    ).stdout.split()
    assert {"vhdx2raw.cli", "vhdx2raw.cli.signals"} <= set(loaded)
    heavy = {"typer", "click", "tqdm", "vhdx2raw.cli.app", "vhdx2raw.cli.console"}
    assert heavy & set(loaded) == set()


SIGNAL_AT_THE_END = """
import os, signal, sys
from vhdx2raw.cli import app, main

def tell(*arguments):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments)

name = sys.argv[1]
real = getattr(app, name)
setattr(app, name, tell)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("function", "words", "exit_code", "line"),
    [
        (
            "print_last_failure",
            ["info", "nowhere.vhdx"],
            8,
            "nowhere.vhdx: No such file or directory",
        ),
        ("warn_of_slow_checksums", ["info", "disk.vhdx"], 130, "interrupted"),
    ],
)
def test_signals_do_not_keep_the_end_from_being_told(
    path: Path, function: str, words: list[str], exit_code: int, line: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_THE_END, function, *words],
        capture_output=True,
        cwd=path.parent,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (exit_code, f"vhdx2raw: {line}\n")
