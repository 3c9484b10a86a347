"""However it is ended, the program leaves a perfect file under the final name, or none."""

import fcntl
import json
import os
import random
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import TIMEOUT, small_disk, start_program
from tests.support.files import has_expected_bytes, names_in
from tests.support.signals import (
    SIGNAL_MESSAGES,
    SIGNALS,
    Program,
    inherited,
    running,
    wait_for_end,
)
from vhdx2raw.cli import main
from vhdx2raw.cli.signals import Interrupted, catch_signals, defer, deferring, raise_if_interrupted
from vhdx2raw.output.sparse_file import SparseFileSink

DEADLY = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
PIPE_SIZE = 65536


def wait_until_begun(process: Program, folder: Path) -> None:
    """Wait until there is anything in `folder`."""
    deadline = time.monotonic() + TIMEOUT
    while not names_in(folder):
        assert process.poll() is None, "ended before it began"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_until_full(process: Program) -> None:
    """Wait until the pipe is full, so that the program hangs in a write."""
    assert process.stdout
    waiting = bytearray(4)
    deadline = time.monotonic() + TIMEOUT
    while int.from_bytes(waiting, "little") < PIPE_SIZE:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)
    time.sleep(0.05)


def wait_until_stopped(process: Program) -> None:
    """Wait until SIGSTOP has had its effect on all threads."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "ended instead"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the empty folder of the output."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


FULL_DISK = ImageSpec(96 * MIB, 32 * MIB, {index: Block() for index in (1, 0, 2)})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image of nothing but data."""
    path = tmp_path_factory.mktemp("full") / "disk.vhdx"
    FULL_DISK.write(path)
    return path


# -- in the middle of the work --------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_nothing_at_all(
    endless: Path, folder: Path, number: signal.Signals, seed: int
) -> None:
    delay = random.Random(f"{number} {seed}").uniform(0, 0.4)
    with running(endless, folder / "out.img") as process:
        wait_until_begun(process, folder)
        time.sleep(delay)
        process.send_signal(number)
        assert wait_for_end(process) == (128 + number, SIGNAL_MESSAGES[number])
    assert names_in(folder) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_the_old_file_as_it_was(
    endless: Path, folder: Path, number: signal.Signals
) -> None:
    (folder / "out.img").write_bytes(b"precious")
    inode = (folder / "out.img").stat().st_ino
    with running("--force", endless, folder / "out.img") as process:
        deadline = time.monotonic() + TIMEOUT
        while len(names_in(folder)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        assert wait_for_end(process) == (128 + number, SIGNAL_MESSAGES[number])
    assert names_in(folder) == ["out.img"]
    assert (folder / "out.img").read_bytes() == b"precious"
    assert (folder / "out.img").stat().st_ino == inode


def test_second_interrupt_leaves_nothing(endless: Path, folder: Path) -> None:
    with running(endless, folder / "out.img") as process:
        wait_until_begun(process, folder)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process) == (130, SIGNAL_MESSAGES[signal.SIGINT])
    assert names_in(folder) == []


def test_killed_program_leaves_no_named_file(endless: Path, folder: Path) -> None:
    with running(endless, folder / "out.img") as process:
        wait_until_begun(process, folder)
        process.kill()
        assert wait_for_end(process) == (-signal.SIGKILL, "")
    [name] = names_in(folder)
    assert name.startswith(".out.img.")
    assert name.endswith(".part")


# -- at any moment --------------------------------------------------------------------------------


def assert_perfect_or_none(
    folder: Path, number: signal.Signals, exit_code: int, stderr: str
) -> None:
    """Check what a signal that came at any moment has left.

    Before the program can listen and after it has ended its work a signal just ends it.
    """
    if number == signal.SIGINT and exit_code == 1:
        assert "init_import_site" in stderr  # Python itself was interrupted while it started
        assert names_in(folder) == []
        return
    assert exit_code in (0, 128 + number, -number)
    if exit_code == 0:
        assert stderr == ""
    if exit_code == 128 + number:
        assert stderr == SIGNAL_MESSAGES[number]
    if exit_code in (0, 128 + number):
        assert names_in(folder) == (["out.img"] if exit_code == 0 else [])
    if (folder / "out.img").exists():
        assert has_expected_bytes(folder / "out.img", FULL_DISK)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", DEADLY)
def test_signal_after_start_leaves_perfect_file_or_none(
    full: Path, folder: Path, number: signal.Signals, seed: int
) -> None:
    delay = random.Random(f"{number} {seed}").uniform(0.02, 0.5)
    with running(full, folder / "out.img") as process:
        time.sleep(delay)
        process.send_signal(number)
        exit_code, stderr = wait_for_end(process)
    assert_perfect_or_none(folder, number, exit_code, stderr)


@pytest.mark.parametrize("number", DEADLY)
def test_signal_during_work_leaves_perfect_file_or_none(
    full: Path, folder: Path, number: signal.Signals
) -> None:
    chance = random.Random(f"{number}")
    interrupted = 0
    for delay in (0, *(chance.uniform(0, 0.2) for _ in range(4))):
        with running(full, folder / "out.img") as process:
            wait_until_begun(process, folder)
            time.sleep(delay)
            process.send_signal(number)
            exit_code, stderr = wait_for_end(process)
        assert_perfect_or_none(folder, number, exit_code, stderr)
        interrupted += exit_code != 0 and not (folder / "out.img").exists()
        for name in names_in(folder):
            (folder / name).unlink()
    assert interrupted, "no signal came in the middle of a conversion"


@pytest.mark.parametrize("moment", ["while it gets its name", "while a summary is made"])
def test_a_signal_after_the_work_is_too_late(
    tmp_path: Path, folder: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is complete and has its name, so this is a success."""
    owner, name = (SparseFileSink, "_sync_folder") if "name" in moment else (json, "dumps")
    real_step = getattr(owner, name)
    sent = 0

    def interrupt(*arguments: object, **options: object) -> object:
        nonlocal sent
        sent += 1
        os.kill(os.getpid(), signal.SIGTERM)
        return real_step(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupt)
    small_disk().write(tmp_path / "disk.vhdx")
    assert main(["--json", str(tmp_path / "disk.vhdx"), str(folder / "out.img")]) == 0
    assert sent == 1
    assert names_in(folder) == ["out.img"]
    assert has_expected_bytes(folder / "out.img", small_disk())


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_full_pipe_does_not_hold_up_a_signal(endless: Path, number: signal.Signals) -> None:
    with running(endless, "-", stdout=subprocess.PIPE) as process:
        wait_until_full(process)
        process.send_signal(number)
        assert wait_for_end(process) == (128 + number, SIGNAL_MESSAGES[number])


def test_inherited_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """By nohup, or by a shell for a program in the background."""
    spec = small_disk()
    spec.write(tmp_path / "disk.vhdx")
    with inherited(signal.SIG_IGN):
        process = start_program(tmp_path / "disk.vhdx", "-", stdout=subprocess.PIPE)
    with process:
        wait_until_full(process)
        for number in SIGNALS:
            process.send_signal(number)
        time.sleep(0.1)
        assert process.stdout
        data = process.stdout.read()
        assert wait_for_end(process) == (0, "")
    is_right = data == spec.expected_disk(0, spec.virtual_disk_size)
    assert is_right


def test_a_stopped_program_can_go_on(endless: Path, folder: Path) -> None:
    """SIGSTOP and SIGCONT, as by Ctrl-Z and fg, change nothing."""
    with running(endless, folder / "out.img") as process:
        wait_until_begun(process, folder)
        process.send_signal(signal.SIGSTOP)
        wait_until_stopped(process)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert wait_for_end(process)[0] == 143
    assert names_in(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_deferred_until_step_is_done(number: signal.Signals) -> None:
    ended = []

    def work() -> None:
        with catch_signals(), deferring():
            os.kill(os.getpid(), number)
            ended.append(number)

    with pytest.raises(Interrupted) as caught:
        work()
    assert ended == [number]
    assert caught.value.exit_code == 128 + number


def test_signal_stays_deferred_by_outer_deferral() -> None:
    with catch_signals():
        defer()
        with deferring():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            raise_if_interrupted()
