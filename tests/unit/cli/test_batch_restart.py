"""A batch that is run again: what is done is left out, what is not sure is looked at."""

import errno
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.chains import small_disk
from tests.support.cli import Outcome, run
from tests.support.docs import prepare
from tests.support.files import has_expected_bytes, names_in
from tests.support.schemas import validator_of
from vhdx2raw.operations.batch import results as results_module
from vhdx2raw.output.sparse_file import SparseFileSink

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
RESULTS = ("--results", "done.jsonl")
AGAIN = (*RESULTS, "--skip-done")
SHA256 = ("--hash", "sha256")
LATER = 2_000_000_000


def disk_of(letter: str) -> ImageSpec:
    number = ord(letter)
    blocks = {0: Block(content={0: letter.encode()})}
    return small_disk(data_write_guid=UUID(int=number), blocks=blocks)


@pytest.fixture(autouse=True)
def disks(folder: Path) -> Path:
    """Write three disks: a.vhdx, b.vhdx, c.vhdx."""
    for letter in "abc":
        disk_of(letter).write(folder / f"{letter}.vhdx")
    return folder


def batch(capfd: Capture, *words: str, names: Sequence[str] = "abc") -> Outcome:
    files = [f"{name}.vhdx" for name in names]
    outcome = run(capfd, "batch", "--json", "--output-dir", "raw", *words, *files)
    for line in outcome.out.splitlines():
        validator_of("batch").validate(json.loads(line))
    return outcome


def statuses(outcome: Outcome) -> list[str]:
    return [json.loads(line)["status"] for line in outcome.out.splitlines()]


def results() -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path("done.jsonl").read_text("ascii").splitlines()]
    for line in lines:
        validator_of("batch-results").validate(line)
    return lines


# -- results ------------------------------------------------------------------------------------


def test_line_of_a_disk_that_was_converted(capfd: Capture) -> None:
    assert batch(capfd, *RESULTS, *SHA256, "--hash", "md5", names="a").exit_code == 0
    (line,) = results()
    assert 0 < line.pop("seconds") < 60
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line.pop("time"))
    assert len(line["digests"].pop("md5")) == 32
    assert line == {
        "status": "converted",
        "exit-code": 0,
        "reason": None,
        "message": None,
        "source": "a.vhdx",
        "data-write-guid": str(UUID(int=ord("a"))),
        "partition": None,
        "destination": "raw/a.img",
        "virtual-size": MIB,
        "stored-size": MIB,
        "written-size": 4096,
        "digests": {"sha256": disk_of("a").expected_sha256()},
        "log-state": "clean",
        "lost-size": 0,
        "lost-ranges": [],
        "version": metadata.version("vhdx2raw"),
        "host": platform.node(),
    }


def test_line_of_a_failure(disks: Path, capfd: Capture) -> None:
    os.truncate("b.vhdx", 4 * MIB + 100)
    (disks / "c.vhdx").write_bytes(b"no VHDX" * 1000)
    outcome = batch(capfd, *RESULTS, names="bc")
    assert outcome.exit_code == 5
    truncated, text = results()
    assert truncated["data-write-guid"] == str(UUID(int=ord("b")))
    assert text["data-write-guid"] is None
    for line, code, reason in (
        (truncated, 5, "truncated-image"),
        (text, 4, "unsupported-image"),
    ):
        assert (line["status"], line["exit-code"], line["reason"]) == ("failed", code, reason)
        assert f"vhdx2raw: {line['message']}" in outcome.err_lines
        assert (line["virtual-size"], line["digests"]) == (None, {})


def test_line_of_a_disk_that_was_salvaged(capfd: Capture) -> None:
    os.truncate("b.vhdx", 5 * MIB - 512)
    assert batch(capfd, *RESULTS, "--salvage", names="b").exit_code == 3
    (line,) = results()
    assert (line["status"], line["exit-code"]) == ("salvaged", 3)
    assert (line["lost-size"], line["lost-ranges"]) == (512, [{"start": MIB - 512, "length": 512}])


def test_results_that_cannot_be_kept_are_a_failure(capfd: Capture, monkeypatch: Patch) -> None:
    """The image is complete; nothing else is begun, if it is space that lacks."""

    def fail(_descriptor: int, _offset: int, data: memoryview, _name: str) -> None:
        if data:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results_module, "write_fully", fail)
    outcome = batch(capfd, *RESULTS)
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == (
        "vhdx2raw: done.jsonl: cannot be written: No space left on device;"
        " the raw image in raw/a.img is complete"
    )
    assert outcome.err_lines[-2:] == [
        "vhdx2raw: stopped: the file system is full",
        "vhdx2raw: 1 converted, 2 left",
    ]
    assert names_in(Path("raw")) == ["a.img"]


# -- what is done -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [AGAIN, ("--skip-done",)], ids=" ".join)
def test_what_is_done_is_left_out(disks: Path, capfd: Capture, words: tuple[str, ...]) -> None:
    assert statuses(batch(capfd, *words, names="ab")) == ["converted", "converted"]
    before = {name: (disks / "raw" / name).stat() for name in ("a.img", "b.img")}
    outcome = batch(capfd, "-v", *words)
    assert statuses(outcome) == ["skipped", "skipped", "converted"]
    assert outcome.err_lines[-1] == "vhdx2raw: 1 converted, 2 skipped"
    assert {name: (disks / "raw" / name).stat() for name in before} == before
    if words == AGAIN:
        assert [line["source"] for line in results()] == ["a.vhdx", "b.vhdx", "c.vhdx"]


def test_digests_survive_a_restart(capfd: Capture) -> None:
    words = ("--output-dir", "raw", *AGAIN, *SHA256)
    run(capfd, "batch", *words, "a.vhdx")
    expected = [f"{disk_of(x).expected_sha256()}  raw/{x}.img" for x in "ab"]
    assert run(capfd, "batch", *words, "a.vhdx", "b.vhdx").out.splitlines() == expected
    assert run(capfd, "batch", *words, "a.vhdx", "b.vhdx").out.splitlines() == expected
    lines = [
        json.loads(line) for line in batch(capfd, *AGAIN, *SHA256, names="ab").out.splitlines()
    ]
    assert [line["hash"]["digest"] for line in lines] == [
        disk_of(name).expected_sha256() for name in "ab"
    ]


@pytest.mark.parametrize("how", [[], ["--no-sync"]], ids=str)
def test_image_without_a_line_is_compared_and_recorded(
    disks: Path, capfd: Capture, monkeypatch: Patch, how: list[str]
) -> None:
    """As after a SIGKILL between the image and its line."""
    batch(capfd, *how, names="a")
    before = (disks / "raw/a.img").stat().st_ctime_ns
    monkeypatch.setattr(SparseFileSink, "__init__", lambda *_: pytest.fail("written to"))
    assert statuses(batch(capfd, *AGAIN, *SHA256, names="a")) == ["converted"]
    (line,) = results()
    assert (line["written-size"], line["stored-size"]) == (0, MIB)
    assert line["digests"] == {"sha256": disk_of("a").expected_sha256()}
    assert (disks / "raw/a.img").stat().st_ctime_ns == before


def test_digest_that_was_not_asked_for_before_is_taken(capfd: Capture) -> None:
    batch(capfd, *AGAIN, names="a")
    assert statuses(batch(capfd, *AGAIN, *SHA256, names="a")) == ["converted"]
    assert statuses(batch(capfd, *AGAIN, *SHA256, names="a")) == ["skipped"]
    assert statuses(batch(capfd, "--skip-done", *SHA256, names="a")) == ["converted"]


def test_partition_of_each_disk(disks: Path, capfd: Capture) -> None:
    prepare(disks, "server.vhdx")
    words = (*AGAIN, "--partition", "2")
    assert statuses(batch(capfd, *words, names=["server"])) == ["converted"]
    assert statuses(batch(capfd, *words, names=["server"])) == ["skipped"]
    (line,) = results()
    assert (line["partition"], line["virtual-size"]) == (
        2,
        (disks / "raw/server.img").stat().st_size,
    )
    Path("done.jsonl").unlink()
    assert statuses(batch(capfd, *words, names=["server"])) == ["converted"]
    assert [line["written-size"] for line in results()] == [0]
    outcome = batch(capfd, *AGAIN, "--partition", "1", names=["server"])
    assert "done.jsonl has it as partition 2 of version" in outcome.err_lines[0]
    assert "has 16777216 bytes, and the disk" in batch(capfd, *AGAIN, names=["server"]).err


# -- what is not done ---------------------------------------------------------------------------


def put_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"precious")


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_link(path: Path) -> None:
    path.rename("elsewhere.img")
    path.symlink_to("../elsewhere.img")


def put_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def touch_source(_: Path) -> None:
    os.utime("a.vhdx", (LATER, LATER))


def change_source(path: Path) -> None:
    disk_of("z").write("a.vhdx")
    os.utime(path, (LATER, LATER))


def change_bytes(path: Path) -> None:
    path.write_bytes(bytes(MIB))
    Path("done.jsonl").unlink()


WRONG = {
    put_file: "has 8 bytes, and the disk 1048576",
    put_folder: "is no regular file",
    put_link: "is no regular file",
    put_dangling_link: "is no regular file",
    touch_source: "is older than a.vhdx",
    change_source: f"done.jsonl has it as version {UUID(int=ord('a'))},"
    f" not as version {UUID(int=ord('z'))}",
    change_bytes: "differs from offset 0 on",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_anything_else_is_named_and_is_a_failure(
    disks: Path,
    capfd: Capture,
    change: Any,  # noqa: ANN401
) -> None:
    batch(capfd, *AGAIN, names="ab")
    change(disks / "raw/a.img")
    before = names_in(disks / "raw")
    outcome = batch(capfd, *AGAIN)
    assert statuses(outcome)[::2] == ["failed", "converted"]
    assert outcome.exit_code == 7
    assert outcome.err_lines[:2] == [
        f"vhdx2raw: raw/a.img: exists already, and is not this disk: {WRONG[change]}",
        "vhdx2raw: hint: remove it, or use --force to replace it",
    ]
    assert names_in(disks / "raw") == sorted([*before, "c.img"])


@pytest.mark.parametrize("change", [put_file, put_link, touch_source, change_source])
def test_force_replaces_only_what_is_not_done(
    disks: Path,
    capfd: Capture,
    change: Any,  # noqa: ANN401
) -> None:
    batch(capfd, *AGAIN, names="ab")
    change(disks / "raw/a.img")
    before = (disks / "raw/b.img").stat()
    assert statuses(batch(capfd, *AGAIN, "--force")) == ["converted", "skipped", "converted"]
    new = disk_of("z" if change is change_source else "a")
    assert has_expected_bytes(disks / "raw/a.img", new)
    assert (disks / "raw/b.img").stat() == before
    assert results()[-2]["data-write-guid"] == str(new.data_write_guid)


def test_newer_parent_is_noticed(disks: Path, capfd: Capture) -> None:
    child_of(disk_of("a"), "a.vhdx", data_write_guid=UUID(int=1)).write(disks / "s.vhdx")
    assert batch(capfd, *AGAIN, names="s").exit_code == 0
    touch_source(disks)
    outcome = batch(capfd, *AGAIN, names="s")
    assert outcome.err_lines[0].endswith("is not this disk: is older than a.vhdx")


def test_image_of_a_damaged_disk_needs_a_line(capfd: Capture) -> None:
    os.truncate("b.vhdx", 5 * MIB - 512)
    words = (*AGAIN, "--salvage")
    assert statuses(batch(capfd, *words, names="b")) == ["salvaged"]
    assert statuses(batch(capfd, *words, names="b")) == ["skipped"]
    Path("done.jsonl").unlink()
    outcome = batch(capfd, *words, names="b")
    assert outcome.err_lines[0].endswith("is not this disk: no results are known of it")


def test_plan_leaves_out_what_is_done(capfd: Capture) -> None:
    batch(capfd, *AGAIN, names="b")
    words = ("batch", "--plan", "--output-dir", "raw", "a.vhdx", "b.vhdx", "c.vhdx")
    lines = run(capfd, *words, *AGAIN).out.splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["a.vhdx", "c.vhdx"]
    assert len(run(capfd, *words).out.splitlines()) == 3


def test_plan_lists_what_cannot_be_told(disks: Path, capfd: Capture) -> None:
    (disks / "list").write_text('{"source": "gone.vhdx", "destination": "raw/a.img"}', "ascii")
    batch(capfd, names="a")
    outcome = run(capfd, "batch", "--plan", "--skip-done", "--from-list", "list")
    assert (outcome.exit_code, len(outcome.out.splitlines())) == (0, 1)


# -- the end of a batch -------------------------------------------------------------------------


def test_fail_fast_begins_nothing_else(disks: Path, capfd: Capture) -> None:
    (disks / "b.vhdx").write_bytes(b"no VHDX" * 1000)
    outcome = batch(capfd, "--fail-fast")
    assert outcome.exit_code == 4
    assert outcome.err_lines[-1] == "vhdx2raw: 1 converted, 1 failed, 1 left"
    assert names_in(disks / "raw") == ["a.img"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_file_system_ends_a_batch(capfd: Capture, monkeypatch: Patch, number: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "it is full")

    monkeypatch.setattr("vhdx2raw.output.sparse_file.host.set_length", fail)
    outcome = batch(capfd)
    assert outcome.exit_code == 8
    assert outcome.err_lines == [
        "vhdx2raw: raw/a.img: cannot be written: it is full",
        "vhdx2raw: hint: make room, or write to another place",
        "vhdx2raw: stopped: the file system is full",
        "vhdx2raw: 1 failed, 2 left",
    ]


def test_file_that_is_too_long_ends_no_batch(capfd: Capture, monkeypatch: Patch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr("vhdx2raw.output.sparse_file.host.set_length", fail)
    assert batch(capfd).err_lines[-1] == "vhdx2raw: 3 failed"


# -- what a crash has left ----------------------------------------------------------------------


def test_abandoned_temporary_files_are_removed(disks: Path, capfd: Capture) -> None:
    (disks / "raw").mkdir()
    abandoned = f".a.img.{'0' * 16}.part"
    others = [f".x.img.{'0' * 16}.part", ".a.img.resume.part", f".a.img.{'0' * 15}.part", "b.part"]
    for name in (abandoned, *others):
        (disks / "raw" / name).write_bytes(b"x")
    (disks / "raw" / f".b.img.{'0' * 16}.part").symlink_to("b.part")
    others.append(f".b.img.{'0' * 16}.part")
    batch(capfd, names="a")
    assert abandoned in names_in(disks / "raw")
    batch(capfd, "--skip-done", names="ab")
    assert names_in(disks / "raw") == sorted([*others, "a.img", "b.img"])


def test_temporary_file_of_a_running_program_stays(disks: Path, capfd: Capture) -> None:
    (disks / "raw").mkdir()
    sink = SparseFileSink("raw/a.img", MIB)
    (temporary,) = names_in(disks / "raw")
    batch(capfd, "--skip-done", names="a")
    assert temporary in names_in(disks / "raw")
    sink.abort()
    assert names_in(disks / "raw") == ["a.img"]
