"""`examples/slurm/convert.sbatch` on a cluster of one node."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import SCRIPT
from tests.support.fleet import EXPORTS, NEWEST, RAW, assert_all_are_right, write_exports
from tests.support.paths import ROOT
from tests.support.peers import skip_unless_ci
from tests.support.schemas import validator_of
from tests.support.slurm import run_job, slurm_cluster

JOB = ROOT / "examples" / "slurm" / "convert.sbatch"
PROGRAM = Path(SCRIPT[0])
CORRUPT = 5
"""The exit code of a damaged disk."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    if not PROGRAM.exists():
        skip_unless_ci("vhdx2raw is not installed beside this Python")
    with slurm_cluster() as environment:
        path = f"{PROGRAM.parent}{os.pathsep}{environment['PATH']}"
        yield environment | {"PATH": path}


@pytest.fixture
def folder(tmp_path: Path, cluster: dict[str, str]) -> Path:
    """Give a folder with exports, and the list of what is to be done with them."""
    write_exports(tmp_path)
    words = ["vhdx2raw", "batch", "--plan", EXPORTS, "--output-dir", RAW, "-q"]
    plan = subprocess.run(
        words, cwd=tmp_path, env=cluster, capture_output=True, text=True, check=True
    )
    assert len(plan.stdout.splitlines()) == len(NEWEST)
    (tmp_path / "disks.jsonl").write_text(plan.stdout)
    return tmp_path


def submit(folder: Path, cluster: dict[str, str], array: str) -> dict[int, int]:
    """Run the job to its end; give the exit code of each task."""
    return run_job(cluster, folder, f"--array={array}", JOB, "disks.jsonl", "results.jsonl")


def results_of(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    results = sorted(lines, key=lambda line: line["destination"])
    for line in results:
        validator_of("batch-results").validate(line)
    return results


def logs_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("vhdx2raw-*.log"))


def test_array_converts_every_disk_once(folder: Path, cluster: dict[str, str]) -> None:
    codes = submit(folder, cluster, "0-3")
    assert codes == dict.fromkeys(range(4), 0), read_logs(folder)
    assert_all_are_right(folder)
    results = results_of(folder)
    assert [line["status"] for line in results] == ["converted"] * len(NEWEST)
    assert len({line["destination"] for line in results}) == len(NEWEST)
    assert len(logs_of(folder)) == 4


def test_failure_is_told_and_the_same_command_goes_on(
    folder: Path, cluster: dict[str, str]
) -> None:
    """An array from 1 on does as well as one from 0 on."""
    broken = folder / EXPORTS / "mail.vhdx"
    whole = broken.read_bytes()
    os.truncate(broken, 3 << 20)
    codes = submit(folder, cluster, "1-4")
    assert sorted(codes.values()) == [0, 0, 0, CORRUPT]
    assert min(codes) == 1
    assert_all_are_right(folder, but=("mail",))
    assert "mail.vhdx: " in read_logs(folder)
    broken.write_bytes(whole)
    assert not any(submit(folder, cluster, "1-4").values()), read_logs(folder)
    assert_all_are_right(folder)
    statuses = [line["status"] for line in results_of(folder)]
    assert sorted(statuses) == sorted(["converted"] * len(NEWEST) + ["failed"])


def test_what_may_succeed_at_another_time_is_tried_again(
    folder: Path, cluster: dict[str, str]
) -> None:
    """Here a program that fails once as for lack of space takes the place of ours."""
    programs = folder / "programs"
    programs.mkdir()
    stub = programs / "vhdx2raw"
    stub.write_text(f'#!/bin/sh\n[ -e failed ] || {{ touch failed; exit 8; }}\n{PROGRAM} "$@"\n')
    stub.chmod(0o755)
    environment = cluster | {"PATH": f"{programs}{os.pathsep}{cluster['PATH']}"}
    assert submit(folder, environment, "0-0") == {0: 0}, read_logs(folder)
    assert (folder / "failed").exists()
    assert_all_are_right(folder)


def read_logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in logs_of(folder))
