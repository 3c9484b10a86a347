"""The commands of docs/batch.md do what the text beside them says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import SCRIPT, TIMEOUT
from tests.support.files import has_expected_bytes, names_in
from tests.support.paths import ROOT
from tests.support.peers import needs_program, skip_unless_ci
from tests.support.schemas import validator_of

TEXT = (ROOT / "docs/batch.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ONE_RUN, PLANNED, SHARD, LIST, XARGS, PARALLEL, AGAIN, MACHINES, CARRIED = RECIPES
PROGRAM = Path(SCRIPT[0])
NAMES = ["a", "b with space", "c'quote"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with exports, in folders of their own; only this machine takes part."""
    for name in NAMES:
        path = tmp_path / "exports" / f"of {name}" / f"{name}.vhdx"
        path.parent.mkdir(parents=True)
        disk_of(name).write(path)
    (tmp_path / "machines.txt").write_text(":\n")
    return tmp_path


def disk_of(name: str) -> ImageSpec:
    """Describe a disk that begins with its name."""
    return ImageSpec(2 * MIB, MIB, {1: Block(content={0: name.encode()})})


def do(folder: Path, recipe: str, *needed: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe as it stands, with this program on the path; skip it if a tool is missing."""
    for tool in needed:
        needs_program(tool)
    if not PROGRAM.exists():
        skip_unless_ci("vhdx2raw is not installed beside this Python")
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", recipe],
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder), "PARALLEL_HOME": str(folder)},
        timeout=TIMEOUT,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def assert_all_are_there(folder: Path) -> None:
    assert names_in(folder / "raw") == sorted(f"{name}.img" for name in NAMES)
    for name in NAMES:
        assert has_expected_bytes(folder / "raw" / f"{name}.img", disk_of(name))


def make_list(folder: Path) -> None:
    """Make the list, in which no two names collide."""
    done = do(folder, LIST)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len((folder / "disks.txt").read_text().splitlines()) == len(NAMES)


def test_one_run_converts_all_files_of_a_folder(folder: Path) -> None:
    for path in (folder / "exports").glob("*/*.vhdx"):
        path.rename(folder / "exports" / path.name)
    for _ in range(2):
        done = do(folder, ONE_RUN)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert_all_are_there(folder)
    assert len((folder / "done.jsonl").read_text().splitlines()) == len(NAMES)


@pytest.mark.parametrize("parts", [1, 4])
def test_plan_is_converted_as_a_whole_or_in_parts(folder: Path, parts: int) -> None:
    plan, whole = PLANNED.splitlines()
    assert do(folder, plan).returncode == 0
    for index in range(parts):
        recipe = SHARD.replace("0/4", f"{index}/4") if parts > 1 else whole
        done = do(folder, recipe)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in NAMES:
        assert has_expected_bytes(folder / f"raw/of {name}/{name}.img", disk_of(name))


@pytest.mark.parametrize("name", ["a.vhdx", "A.vhdx"])
def test_the_list_shows_names_that_collide(folder: Path, name: str) -> None:
    shutil.copy(folder / "exports/of a/a.vhdx", folder / "exports" / name)
    done = do(folder, LIST)
    assert done.stdout.lower() == "a\n"


@pytest.mark.parametrize("recipe", ["xargs", "parallel", "machines"])
def test_list_is_converted_despite_a_failure(folder: Path, recipe: str) -> None:
    command = {"xargs": XARGS, "parallel": PARALLEL, "machines": MACHINES}[recipe]
    tool = "xargs" if recipe == "xargs" else "parallel"
    make_list(folder)
    broken = folder / "exports" / f"of {NAMES[1]}" / f"{NAMES[1]}.vhdx"
    os.truncate(broken, broken.stat().st_size - 1)
    done = do(folder, command, tool)
    assert done.returncode == (123 if recipe == "xargs" else 1)
    assert "1 failed" in done.stderr
    assert names_in(folder / "raw") == ["a.img", "c'quote.img"]
    if recipe != "xargs":
        lines = [json.loads(x) for x in (folder / "results.jsonl").read_text().splitlines()]
        for line in lines:
            validator_of("batch").validate(line)
        statuses = sorted(line["status"] for line in lines)
        assert statuses == ["converted", "converted", "failed"]
        rows = [row.split("\t") for row in (folder / "jobs.log").read_text().splitlines()]
        column = rows[0].index("Exitval")
        assert sorted(row[column] for row in rows[1:]) == ["0", "0", "5"]
    before = (folder / "raw/a.img").stat()
    disk_of(NAMES[1]).write(broken)
    done = do(folder, command, tool)
    assert done.returncode == 0
    assert (folder / "raw/a.img").stat() == before
    assert_all_are_there(folder)


def test_files_can_be_carried(folder: Path) -> None:
    """To this machine, that is: nothing has to be carried, and nothing is removed."""
    make_list(folder)
    done = do(folder, CARRIED, "parallel")
    assert done.returncode == 0
    assert_all_are_there(folder)
    assert (folder / "exports/of a/a.vhdx").exists()


def test_jobs_worth_another_try_are_listed(folder: Path) -> None:
    header = ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal"]
    jobs = [(0, "good"), (5, "corrupt"), (7, "exists"), (8, "full"), (9, "in use"), (143, "ended")]
    rows = [
        [*header, "Command"],
        *(["1", ":", "0", "1", "0", "0", str(code), "0", name] for code, name in jobs),
    ]
    (folder / "jobs.log").write_text("".join("\t".join(row) + "\n" for row in rows))
    done = do(folder, AGAIN, "awk")
    assert (done.stdout.splitlines(), done.stderr) == (["full", "in use", "ended"], "")


def test_every_recipe_is_run_here() -> None:
    assert len(RECIPES) == 9
    assert all("vhdx2raw" in recipe for recipe in RECIPES if recipe not in (LIST, AGAIN))
