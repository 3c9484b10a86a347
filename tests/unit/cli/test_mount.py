"""What `mount` refuses before there is anything to mount."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.cli import run
from vhdx2raw.cli.signals import by_default, catch_signals

Captured = pytest.CaptureFixture[str]


def test_a_system_without_background_processes_is_told_what_works(
    disk: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fork")
    Path("dir").mkdir()
    outcome = run(capfd, "mount", disk, "dir")
    assert outcome.exit_code == 8
    assert outcome.err_lines == [
        "vhdx2raw: there are no background processes here",
        "vhdx2raw: hint: use --foreground",
    ]


@pytest.mark.parametrize("words", [["-", "dir"], ["disk.vhdx"], ["disk.vhdx", "dir", "more"]])
def test_wrong_use_is_refused(disk: str, capfd: Captured, words: list[str]) -> None:
    assert run(capfd, "mount", "--foreground", *words).exit_code == 2


def test_signals_do_what_they_do_by_default_for_a_while() -> None:
    with catch_signals():
        ours = signal.getsignal(signal.SIGTERM)
        with by_default():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is ours
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with by_default():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
