"""Lists of disks: what a line may be, what is refused, and what a plan prints comes back."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.operations.batch.tasks import Task, read_list
from vhdx2raw.operations.convert import ConvertOptions
from vhdx2raw.vhdx.log import LogPolicy


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes, folder: str | None = "raw") -> tuple[list[str], list[Task]]:
    Path("list").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_list("list", folder)


def test_plain_lines_are_paths() -> None:
    text = b"a.vhdx\r\n\n  b c.vhdx\n\xff.vhdx\n./{x.vhdx"
    paths = ["a.vhdx", "  b c.vhdx", os.fsdecode(b"\xff.vhdx"), "./{x.vhdx"]
    assert read(text) == (paths, [])


def test_what_a_plan_prints_comes_back() -> None:
    task = Task(
        "a \udcff.vhdx",
        "raw/a.img",
        ("b.vhdx", "c.vhdx"),
        {"log_policy": LogPolicy.IGNORE, "sparse_size": 0, "hash_algorithm": ["md5"]},
        5,
        6,
    )
    assert read(f"{task.to_json()}\n{task.to_json()}") == ([], [task, task])


def test_what_a_line_lacks_is_found_out(folder: Path) -> None:
    (folder / "a.vhdx").write_bytes(bytes(3))
    (folder / "p.vhdx").write_bytes(bytes(4))
    line = {"source": "a.vhdx", "parents": ["p.vhdx", "gone"]}
    assert read(json.dumps(line)).tasks == [  # type: ignore[attr-defined]
        Task("a.vhdx", "raw/a.img", ("p.vhdx", "gone"), {}, 7)
    ]


WRONG = [
    ("{", "is not JSON: Expecting property name"),
    ('{"source": 1}', "source is not a string"),
    ('{"source": "a", "file-size": true}', "file-size is not a number"),
    ('{"source": "a", "parents": "b"}', "parents is not a list"),
    ('{"source": "a", "parents": [1]}', "parents is not a list of strings"),
    ('{"source": "a", "options": []}', "options is not an object"),
    ('{"source": "a", "option": {}}', "has the unknown key 'option'"),
    ('{"destination": "a"}', "has no source that is a file"),
    ('{"source": "-", "destination": "a"}', "has no source that is a file"),
    ('{"source": "a", "destination": "-"}', "has no destination that is a file"),
    ('{"source": "a", "options": {"forced": true}}', "has the unknown option 'forced'"),
    ('{"source": "a", "options": {"parents": ["p"]}}', "has the unknown option 'parents'"),
    ('{"source": "a", "options": {"progress": null}}', "has the unknown option 'progress'"),
    ('{"source": "a", "options": {"sparse_size": 0}}', "has the unknown option 'sparse_size'"),
    ('{"source": "a", "options": {"force": 1}}', "the option force cannot be 1"),
    ('{"source": "a", "options": {"sparse-size": true}}', "the option sparse-size cannot be true"),
    ('{"source": "a", "options": {"sparse-size": null}}', "the option sparse-size cannot be null"),
    ('{"source": "a", "options": {"hash-algorithm": [1]}}', "hash-algorithm cannot be [1]"),
    ('{"source": "a", "options": {"parent-dirs": 5}}', "parent-dirs cannot be 5"),
    ('{"source": "a", "options": {"log-policy": "x"}}', 'log-policy cannot be "x"'),
    ('{"source": "a", "options": {"regions": {"bat": "x"}}}', "regions cannot be"),
    ('{"source": "a", "options": {"regions": [1]}}', "regions cannot be [1]"),
]


@pytest.mark.parametrize(("line", "problem"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_line_is_named(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"list: line 2: .*{re.escape(problem)}"):
        read(f"a.vhdx\n{line}\n")


def test_line_without_a_place_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="line 1: has no destination that is a file"):
        read('{"source": "a"}', None)


RIGHT = [
    ({"force": True}, {"force": True}),
    ({"workers": None}, {"workers": None}),
    ({"state": "s.json"}, {"state": "s.json"}),
    ({"hash-algorithm": "md5"}, {"hash_algorithm": "md5"}),
    ({"parent-dirs": ["p", "q"]}, {"parent_dirs": ["p", "q"]}),
    ({"log-policy": "ignore"}, {"log_policy": LogPolicy.IGNORE}),
    ({"regions": {"bat": 5}}, {"regions": {"bat": 5}}),
]


@pytest.mark.parametrize(("options", "expected"), RIGHT, ids=str)
def test_options_are_fields(options: dict[str, object], expected: dict[str, object]) -> None:
    (task,) = read(json.dumps({"source": "a", "options": options}))[1]
    assert task.options == expected


def test_own_options_win() -> None:
    own = {"salvage": True, "sparse_size": 0}
    task = Task("a", "b", ("p",), own)
    opening, converting = task.apply_options(
        OpenOptions(parent_dirs=["d"]), ConvertOptions(force=True, sparse_size=512)
    )
    right = OpenOptions(parents=("p",), parent_dirs=["d"], salvage=True)
    assert asdict(opening) == asdict(right)
    assert asdict(converting) == asdict(ConvertOptions(force=True, sparse_size=0))
    same = Task("a", "b").apply_options(opening, converting)
    assert [asdict(options) for options in same] == [asdict(opening), asdict(converting)]
