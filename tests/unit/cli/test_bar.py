"""The bar of progress: its units, and what it sends to a terminal, a dumb one, and a pipe."""

import re
from pathlib import Path

import pytest

from tests.support.cli import drawn_lines, run, run_on_terminal, small_disk

Capture = pytest.CaptureFixture[str]
ERASE = "\x1b[J"
STATE = re.compile(r" *\d+%\|.*\| [\d.]+ ([KMG]i)?B of 3 MiB \[.*, [\d.]+ ([KMGT]i)?B/s\]")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, which holds disk.vhdx."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path


def states_of(text: str) -> list[str]:
    """Return the states of the bar that were drawn."""
    return [line for line in drawn_lines(text) if "%|" in line]


@pytest.mark.slow
def test_bar_counts_in_binary_units() -> None:
    outcome = run_on_terminal("-q", "-p", "disk.vhdx", "out.img")
    states = states_of(outcome.err)
    assert len(states) >= 2
    assert all(STATE.fullmatch(state.rstrip()) for state in states), states
    assert states[-1].startswith("100%|")


@pytest.mark.slow
def test_cursor_waits_at_the_beginning_of_the_line() -> None:
    """Where a window becomes narrower, all rows of the bar follow the cursor, and are erased."""
    outcome = run_on_terminal("-q", "-p", "disk.vhdx", "out.img")
    *drawn, end = outcome.err.split(f"\r{ERASE}")
    assert drawn[0] == ""
    assert all(piece.endswith("\r") for piece in drawn[1:])
    assert end.endswith("\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("term", ["dumb", "pipe"])
def test_only_a_terminal_that_can_gets_escape_codes(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    words = ("-q", "-p", "disk.vhdx", "out.img")
    outcome = run_on_terminal(*words) if term == "dumb" else run(capfd, *words)
    assert outcome.exit_code == 0
    assert "\x1b" not in outcome.err
    assert states_of(outcome.err)[-1].startswith("100%|")
