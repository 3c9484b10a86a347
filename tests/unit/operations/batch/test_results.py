"""Results: lines that are added whole, by many programs, and read again after any crash."""

import errno
import json
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import pytest

from vhdx2raw.errors import NoSpaceError, OutputError
from vhdx2raw.operations.batch import results as results_module
from vhdx2raw.operations.batch.results import Results

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Give the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(destination: str, status: str = "converted", **facts: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"status": status, "destination": destination, **facts}


def lines_of(path: str = "r") -> list[object]:
    return [json.loads(line) for line in Path(path).read_text(encoding="ascii").splitlines()]


def test_lines_are_added_to_those_that_are_there() -> None:
    Results("r").add(done("a"))
    Results("r").add(done("b \udcff\n"))
    assert lines_of() == [done("a"), done("b \udcff\n")]


def test_last_line_about_an_image_counts() -> None:
    for facts in (done("a", n=1), done("a", n=2), done("a", "failed"), done("b", "failed")):
        Results("r").add(facts)
    Results("r").add(done("c", "salvaged"))
    Results("r").add(done("c", digests=["sha256"]))  # not ours
    results = Results("r")
    assert results.find_done("a") == done("a", n=2)
    assert results.find_done("./x/../a") == done("a", n=2)
    assert results.find_done("b") is None
    assert results.find_done("c") == done("c", "salvaged")


@pytest.mark.parametrize("rest", [b'{"status": "conv', b"{}", b"[1]", b"null", b"\xff\0"])
def test_line_that_was_cut_off_harms_no_other(rest: bytes) -> None:
    Results("r").add(done("a"))
    with Path("r").open("ab") as file:
        file.write(rest)
    Results("r").add(done("b"))
    results = Results("r")
    assert results.find_done("a") == done("a")
    assert results.find_done("b") == done("b")
    assert Path("r").read_bytes().splitlines()[1] == rest


def test_failed_write_leaves_nothing_of_a_line(monkeypatch: Patch) -> None:
    results = Results("r")
    results.add(done("a"))
    before = Path("r").read_bytes()

    def fail(descriptor: int, *_: object) -> None:
        os.write(descriptor, b'{"status"')
        raise NoSpaceError("cannot be written", path="r")

    monkeypatch.setattr(results_module, "write_fully", fail)
    with pytest.raises(NoSpaceError, match="r: cannot be written"):
        results.add(done("b"))
    assert Path("r").read_bytes() == before


def test_failed_sync_is_told(monkeypatch: Patch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("vhdx2raw.operations.batch.results.host.sync", fail)
    with pytest.raises(NoSpaceError, match="r: cannot be written: Disk quota exceeded"):
        Results("r").add(done("a"))


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("folder", "cannot be written: Is a directory"),
        ("fifo", "is no regular file"),
        ("no/r", "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_take_results_is_refused_before_any_work(
    folder: Path, kind: str, problem: str
) -> None:
    (folder / "folder").mkdir()
    os.mkfifo("fifo")
    with pytest.raises(OutputError, match=re.escape(f"{kind}: {problem}")):
        Results(kind).require_writable()


def test_looking_leaves_a_file_without_lines() -> None:
    Results("r").require_writable()
    assert Path("r").read_bytes() == b""


def add_many(name: str) -> None:
    for number in range(40):
        Results("r").add(done(f"{name}{number}", padding="x" * 9000))


@pytest.mark.slow
def test_many_programs_add_to_one_file() -> None:
    context = multiprocessing.get_context("spawn")
    programs = [context.Process(target=add_many, args=(name,)) for name in "ab"]
    for program in programs:
        program.start()
    for program in programs:
        program.join(60)
        assert program.exitcode == 0
    found = {line["destination"] for line in lines_of()}  # type: ignore[index]
    assert found == {f"{name}{number}" for name in "ab" for number in range(40)}
