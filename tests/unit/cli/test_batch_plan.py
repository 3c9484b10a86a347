"""What a batch takes of files, folders and lists, before it does anything."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.chains import small_disk
from tests.support.cli import Outcome, run
from tests.support.files import has_expected_bytes, names_in, write_files
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
GARBAGE = b"not a VHDX at all, but long enough to be looked at" * 100
OUT = ("--output-dir", "raw")


def root(number: int) -> ImageSpec:
    return small_disk(data_write_guid=UUID(int=number))


def child(parent: ImageSpec, number: int, name: str) -> ImageSpec:
    blocks = {0: Block(content={0: b"%d" % number})}
    return child_of(parent, f".\\{name}", data_write_guid=UUID(int=number), blocks=blocks)


BASE = root(1)
FIRST = child(BASE, 2, "base.vhdx")
SECOND = child(FIRST, 3, "first.avhdx")
TREE: dict[str, ImageSpec | bytes] = {
    "in/base.vhdx": BASE,
    "in/first.avhdx": FIRST,
    "in/second.avhdx": SECOND,
    "in/deep/er/other.vhdx": root(9),
    "in/deep/orphan.avhdx": child(root(70), 71, "gone.vhdx"),
    "in/text.vhdx": GARBAGE,
    "in/notes.txt": b"notes",
}
TIPS = {
    "in/deep/er/other.vhdx": "raw/deep/er/other.img",
    "in/second.avhdx": "raw/second.img",
}
LEFT_OUT = [
    "vhdx2raw: in/base.vhdx: parent of in/first.avhdx",
    "vhdx2raw: in/first.avhdx: parent of in/second.avhdx",
]


@pytest.fixture
def tree(folder: Path) -> Path:
    """Write the files of `TREE`."""
    write_files(folder, TREE)
    return folder


def planned(outcome: Outcome) -> dict[str, str]:
    """Give what becomes of each source of a printed plan."""
    tasks = [json.loads(line) for line in outcome.out.splitlines()]
    for task in tasks:
        validator_of("batch-list").validate(task)
    return {task["source"]: task["destination"] for task in tasks}


def converted(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in (folder / "raw").rglob("*") if p.is_file())


# -- folders ------------------------------------------------------------------------------------


def test_newest_states_of_a_folder_are_converted(tree: Path, capfd: Capture) -> None:
    outcome = run(capfd, "batch", "in", *OUT)
    assert outcome.exit_code == 4
    assert converted(tree) == sorted(TIPS.values())
    assert has_expected_bytes(tree / "raw/second.img", SECOND)
    assert outcome.err_lines[:2] == LEFT_OUT
    assert outcome.err_lines[-1] == "vhdx2raw: 2 converted, 2 failed"
    assert "vhdx2raw: in/deep/orphan.avhdx: orphan: its parent is not here: expected" in outcome.err
    assert "vhdx2raw: in/text.vhdx: broken: file: is something else, not a VHDX" in outcome.err
    assert names_in(tree / "raw/deep") == ["er"]


def test_plan_prints_what_would_be_done_and_does_nothing(tree: Path, capfd: Capture) -> None:
    before = names_in(tree)
    outcome = run(capfd, "batch", "--plan", "in", *OUT)
    assert planned(outcome) == TIPS
    assert outcome.exit_code == 4
    assert outcome.err_lines[:2] == LEFT_OUT
    assert ["orphan" in outcome.err, "broken" in outcome.err] == [True, True]
    assert names_in(tree) == before
    (second,) = (line for line in outcome.out.splitlines() if "second" in line)
    sizes = sum((tree / name).stat().st_size for name in list(TREE)[:3])
    assert json.loads(second) == {
        "source": "in/second.avhdx",
        "destination": "raw/second.img",
        "parents": ["in/first.avhdx", "in/base.vhdx"],
        "file-size": sizes,
        "virtual-size": MIB,
    }


def test_list_of_a_plan_is_converted(tree: Path, capfd: Capture) -> None:
    """From another place than the locators know: the parents are in the list."""
    (tree / "list").write_text(run(capfd, "batch", "--plan", "in", *OUT).out, encoding="ascii")
    (tree / "elsewhere").mkdir()
    shutil.move("in/first.avhdx", "elsewhere/first.avhdx")
    text = (tree / "list").read_text(encoding="ascii").replace("in/first", "elsewhere/first")
    (tree / "list").write_text(text, encoding="ascii")
    outcome = run(capfd, "batch", "--from-list", "list")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert converted(tree) == sorted(TIPS.values())
    assert has_expected_bytes(tree / "raw/second.img", SECOND)


def test_all_states_are_converted_if_asked(tree: Path, capfd: Capture) -> None:
    """Without warnings that there are newer ones, since these are converted as well."""
    (tree / "in/text.vhdx").unlink()
    (tree / "in/deep/orphan.avhdx").unlink()
    outcome = run(capfd, "batch", "--all", "in", *OUT)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert converted(tree) == ["raw/base.img", *sorted([*TIPS.values(), "raw/first.img"])]
    assert has_expected_bytes(tree / "raw/base.img", BASE)


def test_quiet_names_only_failures(tree: Path, capfd: Capture) -> None:
    assert not {*run(capfd, "batch", "-q", "in", *OUT).err_lines} & {*LEFT_OUT}


def test_files_and_folders_together(tree: Path, capfd: Capture) -> None:
    """A file that is also found in a folder is one disk; its folder does not count."""
    expected = {"in/deep/er/other.vhdx": "raw/other.img", "in/second.avhdx": "raw/second.img"}
    words = ["in/deep/er", "in/deep/er/other.vhdx", "in/second.avhdx"]
    assert planned(run(capfd, "batch", "--plan", *words, *OUT)) == expected
    assert planned(run(capfd, "batch", "--plan", "in", "in/deep", *OUT)) == TIPS


def test_parents_are_found_by_version_in_another_folder(folder: Path, capfd: Capture) -> None:
    """Which opening the child alone would not do."""
    write_files(folder, {"a/renamed.vhdx": BASE, "b/first.avhdx": FIRST})
    assert run(capfd, "batch", "b", *OUT).exit_code == 6
    assert run(capfd, "batch", "a", "b", *OUT).exit_code == 0
    assert has_expected_bytes(folder / "raw/first.img", FIRST)


def test_salvage_takes_orphans_too(tree: Path, capfd: Capture) -> None:
    outcome = run(capfd, "batch", "--salvage", "in/deep", *OUT)
    assert outcome.exit_code == 3
    assert converted(tree) == ["raw/er/other.img", "raw/orphan.img"]


def test_empty_folder_is_worth_a_word(folder: Path, capfd: Capture) -> None:
    (folder / "in").mkdir()
    outcome = run(capfd, "batch", "in", *OUT)
    assert outcome.exit_code == 0
    assert outcome.err == "vhdx2raw: in: warning: there is no VHDX file in this folder\n"


def test_folder_that_cannot_be_listed_is_a_failure(
    tree: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    real_scandir = os.scandir

    def scandir(path: str) -> Any:  # noqa: ANN401 - that of os
        if path == "in/deep":
            raise PermissionError(13, "Permission denied", path)
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    outcome = run(capfd, "batch", "--json", "in", *OUT)
    assert "vhdx2raw: in/deep: Permission denied" in outcome.err_lines
    (line,) = (json.loads(line) for line in outcome.out.splitlines() if "in/deep" in line)
    assert (line["status"], line["exit-code"]) == ("failed", 8)
    assert converted(tree) == ["raw/second.img"]


def test_output_dir_is_made_as_a_whole(folder: Path, capfd: Capture) -> None:
    root(1).write(folder / "a.vhdx")
    assert run(capfd, "batch", "a.vhdx", "--output-dir", "x/y/z").exit_code == 0
    assert names_in(folder / "x/y/z") == ["a.img"]


# -- conflicts ----------------------------------------------------------------------------------


def test_all_conflicts_are_listed_before_any_work(tree: Path, capfd: Capture) -> None:
    write_files(
        tree,
        {
            "more/second.vhdx": root(20),
            "more/er/OTHER.vhdx": root(21),
            "more/third.vhdx": root(22),
            "in/er/other.vhdx": root(23),
            "raw/third.img": b"",
        },
    )
    (tree / "raw/third.img").unlink()
    (tree / "raw/third.img").hardlink_to(tree / "in/base.vhdx")
    before, twice = names_in(tree), "would be made of"
    for words in ([], ["--plan"], ["--force"]):
        outcome = run(capfd, "batch", *words, "in", "more", *OUT)
        assert (outcome.exit_code, outcome.out) == (7, "")
        assert [line for line in outcome.err_lines if "hint" not in line] == [
            f"vhdx2raw: raw/second.img: {twice} in/second.avhdx and of more/second.vhdx",
            f"vhdx2raw: raw/er/OTHER.img: {twice} in/er/other.vhdx and of more/er/OTHER.vhdx",
            "vhdx2raw: raw/third.img: is the input itself",
        ]
    assert names_in(tree) == before
    assert names_in(tree / "raw") == ["third.img"]


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ("in/base.vhdx", "is the input itself"),
        ("in/text.vhdx", "is the input itself"),
        ("raw/./second.img", "is the name of a raw image"),
    ],
)
def test_results_go_over_nothing_else(
    tree: Path, capfd: Capture, results: str, problem: str
) -> None:
    before = (tree / "in/base.vhdx").read_bytes()
    outcome = run(capfd, "batch", "in", *OUT, "--results", results)
    assert outcome.exit_code == 7
    assert f"vhdx2raw: {results}: {problem}" in outcome.err_lines
    assert "raw" not in names_in(tree)
    assert (tree / "in/base.vhdx").read_bytes() == before


# -- lists --------------------------------------------------------------------------------------


def test_plain_list_is_like_the_command_line(tree: Path, capfd: Capture) -> None:
    (tree / "list").write_text("in/base.vhdx\nin/first.avhdx\n\nin/deep/er\n", encoding="ascii")
    outcome = run(capfd, "batch", "--from-list", "list", *OUT)
    assert outcome.exit_code == 0
    assert outcome.err_lines == LEFT_OUT[:1]
    assert converted(tree) == ["raw/first.img", "raw/other.img"]


def test_each_disk_may_have_its_own_options(tree: Path, capfd: Capture) -> None:
    lines = [
        {"source": "in/base.vhdx", "destination": "x/y/1.img", "options": {"state": "1.state"}},
        {"source": "in/base.vhdx", "destination": "2.img", "options": {"sparse-size": 0}},
        {"source": "in/base.vhdx", "options": {"max-virtual-disk-size": 512}},
    ]
    (tree / "list").write_text("\n".join(map(json.dumps, lines)), encoding="ascii")
    outcome = run(capfd, "batch", "--from-list", "list", *OUT)
    assert outcome.exit_code == 4
    assert "is larger than is allowed here" in outcome.err
    assert has_expected_bytes(tree / "x/y/1.img", BASE)
    assert (tree / "1.state").is_file()
    assert (tree / "2.img").stat().st_blocks * 512 >= MIB
    assert names_in(tree / "raw") == []


def test_list_entry_is_tried_though_its_parent_was_not_found(tree: Path, capfd: Capture) -> None:
    line = {"source": "in/deep/orphan.avhdx", "options": {"salvage": True}}
    (tree / "list").write_text(json.dumps(line), encoding="ascii")
    assert run(capfd, "batch", "--from-list", "list", *OUT).exit_code == 3
    assert names_in(tree / "raw") == ["orphan.img"]


USAGE = [
    (["--from-list", "-", *OUT], "--from-list needs the name of a file; standard input is never"),
    (["--results", "-", "in", *OUT], "--results needs the name of a file"),
    (["--from-list", "list", "in", *OUT], "give either SRC or --from-list"),
    (["--from-list", "plain"], "Missing option '--output-dir'"),
    (["--from-list", "wrong", *OUT], "wrong: line 1: has the unknown option 'forse'"),
    (["--from-list", "odd", *OUT], "odd: a: --resume would forget what --salvage has lost"),
    (["--from-list", "bad", *OUT], "bad: a: sparse_size 5 is neither 0 nor a power of two"),
    (["in"], "Missing option '--output-dir'"),
    (["--shard", "1", "in", *OUT], "'1' is not a part such as 0/4"),
    (["--shard", "0/0", "in", *OUT], "'0/0' is not a part such as 0/4"),
    (["--shard", "-1/4", "in", *OUT], "'-1/4' is not a part such as 0/4"),
    (["--shard", "4/4", "in", *OUT], "--shard 4/4: the parts are 0/4 to 3/4; see --shard-from"),
    (["--shard", "0/4", "--shard-from", "1", "in", *OUT], "the parts are 1/4 to 4/4"),
    (["--shard-from", "1", "in", *OUT], "--shard-from says what --shard counts from; give both"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "problem"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_wrong_usage_does_nothing(
    tree: Path, capfd: Capture, words: list[str], problem: str
) -> None:
    files = {
        "plain": "in",
        "list": "in",
        "wrong": '{"source": "a", "options": {"forse": true}}',
        "odd": '{"source": "a", "options": {"salvage": true, "resume": true}}',
        "bad": '{"source": "a", "options": {"sparse-size": 5}}',
    }
    for name, text in files.items():
        (tree / name).write_text(text, encoding="ascii")
    before = names_in(tree)
    outcome = run(capfd, "batch", *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert problem in " ".join(outcome.err.split())
    assert names_in(tree) == before


def test_list_that_cannot_be_read(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "batch", "--from-list", "gone", *OUT)
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == "vhdx2raw: gone: No such file or directory"
    assert names_in(folder) == []


# -- parts --------------------------------------------------------------------------------------

SLURM = "SLURM_ARRAY_TASK_"


@pytest.fixture
def six(folder: Path, monkeypatch: Patch) -> Path:
    """Write six disks, outside of any Slurm job."""
    for name in ("ID", "MIN", "MAX", "COUNT"):
        monkeypatch.delenv(f"{SLURM}{name}", raising=False)
    for number in range(6):
        root(number).write(folder / f"{number}.vhdx")
    return folder


def part_of(capfd: Capture, *words: str) -> list[str]:
    outcome = run(capfd, "batch", "--plan", ".", *OUT, *words)
    assert outcome.exit_code == 0, outcome.err
    return [*planned(outcome)]


@pytest.mark.slow
@pytest.mark.usefixtures("six")
def test_parts_make_up_the_whole(capfd: Capture) -> None:
    whole = part_of(capfd)
    parts = [part_of(capfd, "--shard", f"{index}/4") for index in range(4)]
    assert sorted(source for part in parts for source in part) == whole
    assert sorted(map(len, parts)) == [1, 1, 2, 2]
    assert [part_of(capfd, "--shard", f"{n}/4", "--shard-from", "1") for n in range(1, 5)] == parts


@pytest.mark.slow
@pytest.mark.usefixtures("six")
@pytest.mark.parametrize("first", [0, 1])
def test_array_of_slurm_counts_from_its_first_task(
    capfd: Capture, monkeypatch: Patch, first: int
) -> None:
    expected = [part_of(capfd, "--shard", f"{index}/4") for index in range(4)]
    for name, value in {"MIN": first, "MAX": first + 3, "COUNT": 4}.items():
        monkeypatch.setenv(f"{SLURM}{name}", str(value))
    for index in range(4):
        monkeypatch.setenv(f"{SLURM}ID", str(first + index))
        assert part_of(capfd, "--shard", f"{first + index}/4") == expected[index]


@pytest.mark.usefixtures("six")
def test_array_of_slurm_with_gaps_needs_a_word(capfd: Capture, monkeypatch: Patch) -> None:
    """Two tasks of an array are submitted again: what the first run counted from is not known."""
    expected = part_of(capfd, "--shard", "1/4")
    for name, value in {"ID": 2, "MIN": 2, "MAX": 4, "COUNT": 2}.items():
        monkeypatch.setenv(f"{SLURM}{name}", str(value))
    outcome = run(capfd, "batch", "--plan", ".", *OUT, "--shard", "2/4")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err_lines[0] == (
        "vhdx2raw: the array of this Slurm job is neither 0-3 nor 1-4:"
        " say with --shard-from what 2 counts from"
    )
    assert part_of(capfd, "--shard", "2/4", "--shard-from", "1") == expected


# -- space --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "warns"), [(MIB - 1, True), (MIB, False)])
def test_too_little_space_is_said_before_any_work(
    folder: Path, capfd: Capture, monkeypatch: Patch, free: int, *, warns: bool
) -> None:
    """What is stored counts, and not more than the disk has."""
    ImageSpec(MIB, MIB, {0: Block()}).write(folder / "a.vhdx")
    monkeypatch.setattr(
        "vhdx2raw.operations.batch.space.shutil.disk_usage", lambda _: SimpleNamespace(free=free)
    )
    warning = (
        "vhdx2raw: .: warning: there may be too little space: 1 MiB are stored in the sources,"
        " 1024 KiB are free\n"
    )
    outcome = run(capfd, "batch", "a.vhdx", *OUT)
    assert (outcome.exit_code, outcome.err) == (0, warning if warns else "")
    assert run(capfd, "batch", "--skip-done", "a.vhdx", *OUT).err == ""
    assert run(capfd, "batch", "-q", "--force", "a.vhdx", *OUT).err == ""
