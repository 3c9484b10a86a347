"""The scripts of docs/schedulers.md do what the text beside them says, with GNU parallel."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.docs import run_recipe
from tests.support.fleet import EXPORTS, NEWEST, RAW, assert_all_are_right, write_exports
from tests.support.paths import ROOT
from tests.support.peers import needs_program
from tests.support.schemas import validator_of

TEXT = (ROOT / "docs/schedulers.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PLAN, ASK, ONE_MACHINE, MACHINES, CARRIED, AGAIN = RECIPES
CORRUPT = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with exports and the list of them; only this machine takes part."""
    write_exports(tmp_path)
    (tmp_path / "machines.txt").write_text(":\n")
    assert run_recipe(tmp_path, PLAN).returncode == 0
    assert len((tmp_path / "disks.jsonl").read_text().splitlines()) == len(NEWEST)
    return tmp_path


def exit_values(folder: Path) -> list[int]:
    """Give what the log of parallel says of each job."""
    header, *rows = [row.split("\t") for row in (folder / "jobs.log").read_text().splitlines()]
    return [int(row[header.index("Exitval")]) for row in rows]


def test_parts_are_all_of_the_list_and_go_on_after_a_failure(folder: Path) -> None:
    broken = folder / EXPORTS / "mail.vhdx"
    whole = broken.read_bytes()
    os.truncate(broken, 3 << 20)
    done = run_recipe(folder, ONE_MACHINE, "parallel")
    assert done.returncode == 1
    assert sorted(exit_values(folder)) == [0] * 7 + [CORRUPT]
    assert_all_are_right(folder, but=("mail",))
    before = (folder / RAW / "vm/child.img").stat()
    broken.write_bytes(whole)
    done = run_recipe(folder, ONE_MACHINE, "parallel")
    assert done.returncode == 0, done.stderr
    assert_all_are_right(folder)
    assert (folder / RAW / "vm/child.img").stat().st_mtime_ns == before.st_mtime_ns
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        validator_of("batch-results").validate(line)
    statuses = sorted(line["status"] for line in lines)
    assert statuses == ["converted"] * len(NEWEST) + ["failed"]


def test_machines_share_the_list(folder: Path) -> None:
    done = run_recipe(folder, MACHINES, "parallel")
    assert done.returncode == 0, done.stderr
    assert exit_values(folder) == [0] * 8
    assert_all_are_right(folder)


def test_files_can_be_carried(folder: Path) -> None:
    """To this machine, that is: nothing has to be carried, and nothing is removed."""
    for tool in ("jq", "parallel"):
        needs_program(tool)
    done = run_recipe(folder, CARRIED)
    assert done.returncode == 0, done.stderr
    assert_all_are_right(folder, but=("vm/child",))
    assert (folder / EXPORTS / "mail.vhdx").exists()


def test_space_can_be_asked_for(folder: Path) -> None:
    done = run_recipe(folder, ASK)
    assert done.returncode == 0, done.stderr
    assert f"{EXPORTS}: {len(NEWEST) + 1} images, {len(NEWEST)} tips" in done.stdout
    size = sum(spec.virtual_disk_size for spec in NEWEST.values())
    assert f"required size: {size} " in done.stdout


def test_disks_worth_another_try_are_listed(folder: Path) -> None:
    """By the last that is known of each."""
    tries = [("good", 0), ("full", 8), ("corrupt", 5), ("later good", 9), ("in use", 9)]
    tries += [("ended", 143), ("later good", 0), ("full", 8)]
    lines = [
        {"source": name, "destination": f"{name}.img", "exit-code": code} for name, code in tries
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_recipe(folder, AGAIN, "jq")
    assert (done.stdout.splitlines(), done.stderr) == (["ended", "full", "in use"], "")


def test_every_recipe_is_run_here() -> None:
    assert len(RECIPES) == 6
