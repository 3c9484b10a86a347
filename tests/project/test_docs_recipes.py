"""The commands of docs/batch.md do what the text beside them says."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.docs import run_recipe
from tests.support.files import has_expected_bytes, names_in
from tests.support.paths import ROOT

TEXT = (ROOT / "docs/batch.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ONE_RUN, PLANNED, SHARD, LIST, XARGS = RECIPES
NAMES = ["a", "b with space", "c'quote"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with exports, in folders of their own."""
    for name in NAMES:
        path = tmp_path / "exports" / f"of {name}" / f"{name}.vhdx"
        path.parent.mkdir(parents=True)
        disk_of(name).write(path)
    return tmp_path


def disk_of(name: str) -> ImageSpec:
    """Describe a disk that begins with its name."""
    return ImageSpec(2 * MIB, MIB, {1: Block(content={0: name.encode()})})


def assert_all_are_there(folder: Path) -> None:
    assert names_in(folder / "raw") == sorted(f"{name}.img" for name in NAMES)
    for name in NAMES:
        assert has_expected_bytes(folder / "raw" / f"{name}.img", disk_of(name))


def make_list(folder: Path) -> None:
    """Make the list, in which no two names collide."""
    done = run_recipe(folder, LIST)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len((folder / "disks.txt").read_text().splitlines()) == len(NAMES)


def test_one_run_converts_all_files_of_a_folder(folder: Path) -> None:
    for path in (folder / "exports").glob("*/*.vhdx"):
        path.rename(folder / "exports" / path.name)
    for _ in range(2):
        done = run_recipe(folder, ONE_RUN)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert_all_are_there(folder)
    assert len((folder / "done.jsonl").read_text().splitlines()) == len(NAMES)


@pytest.mark.parametrize("parts", [1, 4])
def test_plan_is_converted_as_a_whole_or_in_parts(folder: Path, parts: int) -> None:
    plan, whole = PLANNED.splitlines()
    assert run_recipe(folder, plan).returncode == 0
    for index in range(parts):
        recipe = SHARD.replace("0/4", f"{index}/4") if parts > 1 else whole
        done = run_recipe(folder, recipe)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in NAMES:
        assert has_expected_bytes(folder / f"raw/of {name}/{name}.img", disk_of(name))


@pytest.mark.parametrize("name", ["a.vhdx", "A.vhdx"])
def test_the_list_shows_names_that_collide(folder: Path, name: str) -> None:
    shutil.copy(folder / "exports/of a/a.vhdx", folder / "exports" / name)
    done = run_recipe(folder, LIST)
    assert done.stdout.lower() == "a\n"


def test_list_is_converted_despite_a_failure(folder: Path) -> None:
    make_list(folder)
    broken = folder / "exports" / f"of {NAMES[1]}" / f"{NAMES[1]}.vhdx"
    os.truncate(broken, broken.stat().st_size - 1)
    done = run_recipe(folder, XARGS, "xargs")
    assert done.returncode == 123
    assert "1 failed" in done.stderr
    assert names_in(folder / "raw") == ["a.img", "c'quote.img"]
    before = (folder / "raw/a.img").stat()
    disk_of(NAMES[1]).write(broken)
    done = run_recipe(folder, XARGS, "xargs")
    assert done.returncode == 0
    assert (folder / "raw/a.img").stat() == before
    assert_all_are_there(folder)


def test_every_recipe_is_run_here() -> None:
    assert len(RECIPES) == 5
    assert all("vhdx2raw" in recipe for recipe in RECIPES if recipe != LIST)
