"""`examples/dask_batch.py` on a cluster of processes, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import vhdx2raw
from tests.support.builder import GIB
from tests.support.cli import run_program, stored_zeros
from tests.support.files import data_of
from tests.support.fleet import EXPORTS, NEWEST, RAW, assert_all_are_right, write_exports
from tests.support.paths import ROOT
from tests.support.peers import needs_module

SCRIPT = ROOT / "examples" / "dask_batch.py"
TIMEOUT = 120
CONTENT = b"slow"
SLOW = stored_zeros(GIB, CONTENT)
"""It takes long enough to be killed meanwhile."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with exports."""
    needs_module("distributed")
    write_exports(tmp_path)
    return tmp_path


def write_list(folder: Path) -> list[dict[str, Any]]:
    """Make the list of what is to be done with the exports."""
    plan = run_program("batch", "--plan", "-q", EXPORTS, "--output-dir", RAW, cwd=folder)
    assert (plan.exit_code, plan.err) == (0, "")
    (folder / "disks.jsonl").write_text(plan.out)
    return [json.loads(line) for line in plan.out.splitlines()]


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the script; whatever happens, it is ended with all of its workers."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "disks.jsonl"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=TIMEOUT)


def results_of(process: subprocess.Popen[str], exit_code: int = 0) -> dict[str, dict[str, Any]]:
    """Wait for the end, and give what is said of each destination."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == exit_code, err
    lines = [json.loads(line) for line in out.splitlines()]
    return {line["destination"]: line for line in lines}


def kill_worker_with(part: Path) -> None:
    """Kill the process that has a file open, as a machine without memory would."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == part:
                os.kill(int(link.parts[2]), signal.SIGKILL)
                return
    pytest.fail(f"nobody has {part.name} open")


def wait_for_part(folder: Path) -> Path:
    """Wait until the image of the slow disk is in the making."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        for part in (folder / RAW).glob(".slow*.part"):
            return part
        time.sleep(0.01)
    pytest.fail("the slow disk was never begun")


def test_all_disks_are_converted_though_a_worker_is_killed(folder: Path) -> None:
    SLOW.write(folder / EXPORTS / "slow.vhdx")
    assert len(write_list(folder)) == 1 + len(NEWEST)
    with started(folder) as process:
        part = wait_for_part(folder)
        kill_worker_with(part)
        results = results_of(process)
    assert sorted(results) == sorted(f"{RAW}/{name}.img" for name in ("slow", *NEWEST))
    assert [line["error"] for line in results.values()] == [None] * len(results)
    part.unlink()  # all that a killed worker leaves
    slow = folder / RAW / "slow.img"
    assert slow.stat().st_size == SLOW.virtual_disk_size
    assert [(start, data.rstrip(b"\0")) for start, data in data_of(slow)] == [(0, CONTENT)]
    slow.unlink()
    assert_all_are_right(folder)


def test_what_is_there_is_compared_and_what_fails_is_told(folder: Path) -> None:
    for line in write_list(folder):
        (folder / line["destination"]).parent.mkdir(parents=True, exist_ok=True)
        vhdx2raw.convert(folder / line["source"], folder / line["destination"])
    before = (folder / RAW / "mail.img").stat().st_mtime_ns
    with (folder / RAW / "web server.img").open("r+b") as file:
        file.write(b"not this disk")
    (folder / RAW / "o'brien.img").unlink()
    os.truncate(folder / EXPORTS / "o'brien.vhdx", 3 << 20)
    with started(folder) as process:
        results = results_of(process, exit_code=1)
    errors = {name: line["error"] for name, line in results.items() if line["error"]}
    assert sorted(errors) == [f"{RAW}/o'brien.img", f"{RAW}/web server.img"]
    assert errors[f"{RAW}/o'brien.img"].startswith("TruncatedImageError: exports/o'brien.vhdx: ")
    assert "exists already" in errors[f"{RAW}/web server.img"]
    assert (folder / RAW / "mail.img").stat().st_mtime_ns == before


def test_a_list_with_options_is_not_for_it(folder: Path) -> None:
    first, *_ = write_list(folder)
    (folder / "disks.jsonl").write_text(json.dumps(first | {"options": {"sparse-size": 0}}))
    done = subprocess.run(
        [sys.executable, SCRIPT, "disks.jsonl"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "disks.jsonl: has options, which only `vhdx2raw batch` knows\n"
    assert not (folder / RAW).exists()
