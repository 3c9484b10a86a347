"""A raw image that is complete, of which something cannot be told: the message says both."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import Outcome, run, run_program, small_disk
from tests.support.files import has_expected_bytes, names_in
from vhdx2raw import host
from vhdx2raw.cli import files
from vhdx2raw.cli.commands.convert import outcome as outcome_module
from vhdx2raw.cli.exit_codes import HOST_FAILURE, SALVAGED
from vhdx2raw.cli.results import telling
from vhdx2raw.errors import OutputError, UntoldResultError
from vhdx2raw.output import open_file
from vhdx2raw.output.base import output_error

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
CUT = ImageSpec(4 * MIB, MIB, {0: Block(), 3: Block()})
LOST = "cut.vhdx: salvaged; lost 512 KiB (524288 bytes; ranges: 1), which are zeros in out.img"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with a sound disk and one whose last half MiB is missing."""
    monkeypatch.chdir(tmp_path)
    small_disk().write(tmp_path / "disk.vhdx")
    CUT.write(tmp_path / "cut.vhdx")
    os.truncate(tmp_path / "cut.vhdx", (tmp_path / "cut.vhdx").stat().st_size - MIB // 2)
    return tmp_path


# -- standard output ------------------------------------------------------------------------------


def to_full_device(*words: str) -> Outcome:
    with Path("/dev/full").open("wb") as full:
        return run_program(*words, stdout=full)


def to_nothing(*words: str) -> Outcome:
    return run_program(*words, command=("sh", "-c", 'exec "$0" -m vhdx2raw "$@" >&-', *PYTHON))


def to_reader_that_has_ended(*words: str) -> Outcome:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run_program(*words, stdout=writer)
    finally:
        os.close(writer)


PYTHON = (sys.executable,)
STREAMS: dict[str, tuple[Callable[..., Outcome], str]] = {
    "full": (to_full_device, "standard output: cannot be written: No space left on device"),
    "closed": (to_nothing, "standard output: is closed"),
    "no reader": (to_reader_that_has_ended, "standard output: cannot be written: Broken pipe"),
}
RESULTS: dict[str, Sequence[str]] = {
    "digest": ("--hash", "sha256"),
    "JSON": ("--json",),
    "both": ("--json", "--hash", "md5"),
}


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_result_that_cannot_be_told_does_not_hide_that_the_image_is_complete(
    folder: Path, stream: str, result: str
) -> None:
    start, problem = STREAMS[stream]
    outcome = start(*RESULTS[result], "disk.vhdx", "out.img")
    assert outcome.exit_code == HOST_FAILURE
    expected = f"vhdx2raw: {problem}; the raw image in out.img is complete"
    assert outcome.err_lines[0] == expected
    assert has_expected_bytes(folder / "out.img", small_disk())
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx", "out.img"]


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_batch_that_cannot_tell_of_one_file_converts_the_others(
    folder: Path, stream: str, result: str, jobs: str
) -> None:
    start, _ = STREAMS[stream]
    words = ["--salvage", "--output-dir", "raw", "--jobs", jobs, "disk.vhdx", "cut.vhdx"]
    outcome = start("batch", *RESULTS[result], *words)
    assert outcome.exit_code == HOST_FAILURE
    assert "is complete" in outcome.err
    assert "fault of the program" not in outcome.err
    assert has_expected_bytes(folder / "raw/disk.img", small_disk())
    assert names_in(folder / "raw") == ["cut.img", "disk.img"]


def test_without_an_image_nothing_is_said_of_one(folder: Path) -> None:
    outcome = to_reader_that_has_ended("--json", "disk.vhdx", "null:")
    assert outcome.exit_code == 7
    assert "complete" not in outcome.err


# -- the map file ---------------------------------------------------------------------------------

FAILURES = {
    errno.ENOSPC: "map: cannot be written: No space left on device",
    errno.EDQUOT: "map: cannot be written: Disk quota exceeded",
    errno.EIO: "map: Input/output error",
}


@pytest.mark.parametrize("destination", ["out.img", "null:"])
@pytest.mark.parametrize("call", ["write_fully", "sync", "replace"])
@pytest.mark.parametrize("number", FAILURES)
def test_a_map_file_that_cannot_be_written_leaves_the_losses_told(
    folder: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    number: int,
    call: str,
    destination: str,
) -> None:
    real = files.write_file

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def fail_fully(_descriptor: int, _offset: int, _data: memoryview, name: str) -> None:
        raise output_error(OSError(number, os.strerror(number)), name)

    def write_file(*arguments: object, **options: object) -> None:
        with monkeypatch.context() as patch:
            if call == "write_fully":
                patch.setattr(open_file, call, fail_fully)
            elif call == "sync":
                patch.setattr(host, call, fail)
            else:
                patch.setattr(Path, call, fail)
            real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(outcome_module, "write_file", write_file)
    words = ["--salvage", "--force", "--mapfile", "map", "cut.vhdx"]
    outcome = run(capfd, *words, destination)
    told = [line for line in outcome.err_lines if "salvaged; lost" in line]
    if destination == "null:":
        assert outcome.exit_code in (7, HOST_FAILURE)
        assert "complete" not in outcome.err
        return
    assert outcome.exit_code == HOST_FAILURE
    assert told == [f"vhdx2raw: {LOST}"]
    assert outcome.err_lines[-2:] == [
        f"vhdx2raw: {FAILURES[number]}; the raw image in out.img is complete",
        "vhdx2raw: hint: to list what is lost, convert to null: with another --mapfile",
    ]
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx", "out.img"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_between_the_image_and_its_map_file_is_too_late(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, moment: str, number: int
) -> None:
    real = files.write_file

    def write_file(*arguments: object, **options: object) -> None:
        if moment == "before":
            os.kill(os.getpid(), number)
        real(*arguments, **options)  # type: ignore[arg-type]
        if moment == "after":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(outcome_module, "write_file", write_file)
    outcome = run(capfd, "--salvage", "--mapfile", "map", "cut.vhdx", "out.img")
    assert outcome.exit_code == SALVAGED
    assert outcome.err_lines[-1] == f"vhdx2raw: {LOST}"
    assert names_in(folder) == ["cut.vhdx", "disk.vhdx", "map", "out.img"]
    assert (folder / "map").read_text().splitlines()[-1] == "0x0000380000  0x0000080000  -"


def test_a_failure_to_tell_keeps_the_advice_of_its_cause() -> None:
    with (
        pytest.raises(UntoldResultError) as caught,
        telling("out.img"),
    ):
        raise OutputError("is full", path="x", remedy="make room")
    assert str(caught.value) == "x: is full; the raw image in out.img is complete"
    assert caught.value.remedy == "make room"
