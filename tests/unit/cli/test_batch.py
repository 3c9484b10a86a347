"""Many files in one run: what becomes of each, and of the whole when one fails or it is ended."""

import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.chains import RELATIVE, base_disk
from tests.support.cli import (
    MODULE,
    TIMEOUT,
    Outcome,
    drawn_lines,
    run,
    run_on_terminal,
    run_program,
    small_disk,
    stored_zeros,
)
from tests.support.files import has_expected_bytes, names_in
from tests.support.peers import needs_program
from tests.support.schemas import validator_of
from tests.support.signals import SIGNAL_MESSAGES, wait_for_end
from tests.support.signals import running as running_process
from vhdx2raw.cli import console, main
from vhdx2raw.cli.commands.batch import converter, running
from vhdx2raw.cli.commands.batch.converter import BatchConverter
from vhdx2raw.cli.commands.convert.outcome import Outcome as Conversion
from vhdx2raw.cli.console import print_error
from vhdx2raw.operations.batch.earlier import Earlier

pytestmark = pytest.mark.slow

VALIDATOR = validator_of("batch")
SIZE = small_disk().virtual_disk_size
GARBAGE = b"not a VHDX at all, but long enough to be looked at" * 100
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def other_disk() -> ImageSpec:
    return ImageSpec(4 * MIB, MIB, {2: Block(), 0: Block()})


@pytest.fixture(autouse=True)
def images(folder: Path) -> None:
    """Write four images: a and b are sound, cut is truncated, text is no VHDX."""
    small_disk().write(folder / "a.vhdx")
    other_disk().write(folder / "b.vhdx")
    other_disk().write(folder / "cut.vhdx")
    os.truncate("cut.vhdx", Path("cut.vhdx").stat().st_size - MIB // 2)
    (folder / "text.vhdx").write_bytes(GARBAGE)


def lines_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Read the lines of `--json`, by the file that they are about."""
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    for line in lines:
        VALIDATOR.validate(line)
    by_name = {line["filename"]: line for line in lines}
    assert len(by_name) == len(lines)
    return by_name


def statuses_of(outcome: Outcome) -> dict[str, tuple[str, int]]:
    """Give what became of each file."""
    return {n: (line["status"], line["exit-code"]) for n, line in lines_of(outcome).items()}


# -- what becomes of each file ------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2", "8"])
def test_every_file_becomes_an_image_in_the_folder(folder: Path, capfd: Capture, jobs: str) -> None:
    outcome = run(capfd, "batch", "--output-dir", "raw", "--jobs", jobs, "a.vhdx", "b.vhdx")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert names_in(folder / "raw") == ["a.img", "b.img"]
    assert has_expected_bytes(folder / "raw/a.img", small_disk())
    assert has_expected_bytes(folder / "raw/b.img", other_disk())


def test_one_file_is_a_batch_too(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "batch", "--output-dir", "raw", "a.vhdx").exit_code == 0
    assert names_in(folder / "raw") == ["a.img"]


def test_a_name_loses_only_its_last_ending(folder: Path, capfd: Capture) -> None:
    for name in ("vm.2026.vhdx", "no ending", "snap.avhdx"):
        (folder / name).hardlink_to(folder / "a.vhdx")
    words = ["vm.2026.vhdx", "no ending", "snap.avhdx"]
    assert run(capfd, "batch", "--output-dir", "raw", *words).exit_code == 0
    assert names_in(folder / "raw") == ["no ending.img", "snap.img", "vm.2026.img"]


def test_no_failure_ends_the_others(folder: Path, capfd: Capture) -> None:
    names = ["text.vhdx", "a.vhdx", "gone.vhdx", "cut.vhdx", "b.vhdx"]
    outcome = run(capfd, "batch", "--json", "--output-dir", "raw", *names)
    assert statuses_of(outcome) == {
        "text.vhdx": ("failed", 4),
        "a.vhdx": ("converted", 0),
        "gone.vhdx": ("failed", 8),
        "cut.vhdx": ("failed", 5),
        "b.vhdx": ("converted", 0),
    }
    assert outcome.err_lines[-1] == "vhdx2raw: 2 converted, 3 failed"
    assert names_in(folder / "raw") == ["a.img", "b.img"]
    assert has_expected_bytes(folder / "raw/b.img", other_disk())
    lines = lines_of(outcome)
    for name in ("text.vhdx", "gone.vhdx", "cut.vhdx"):
        assert f"vhdx2raw: {lines[name]['error']['message']}" in outcome.err_lines


@pytest.mark.parametrize("jobs", ["1", "4"])
@pytest.mark.parametrize(
    "case",
    [
        (["a.vhdx", "text.vhdx", "cut.vhdx"], [], 4),
        (["a.vhdx", "cut.vhdx", "text.vhdx"], [], 5),
        (["gone.vhdx", "a.vhdx", "cut.vhdx"], [], 8),
        (["cut.vhdx", "a.vhdx", "gone.vhdx"], [], 8),
        (["a.vhdx", "cut.vhdx", "b.vhdx"], ["--salvage"], 3),
        (["cut.vhdx", "text.vhdx"], ["--salvage"], 4),
        (["text.vhdx", "cut.vhdx"], ["--salvage"], 4),
        (["a.vhdx", "b.vhdx"], ["--salvage"], 0),
    ],
)
def test_exit_code_is_of_the_first_failure_that_may_pass_or_of_the_first(
    folder: Path, capfd: Capture, case: tuple[list[str], list[str], int], jobs: str
) -> None:
    names, words, exit_code = case
    arguments = ["--output-dir", "raw", "--jobs", jobs, *words, *names]
    assert run(capfd, "batch", *arguments).exit_code == exit_code


def test_what_is_salvaged_is_counted_by_itself(folder: Path, capfd: Capture) -> None:
    outcome = run(
        capfd, "batch", "-v", "--json", "--salvage", "--output-dir", "raw", "a.vhdx", "cut.vhdx"
    )
    assert statuses_of(outcome) == {"a.vhdx": ("converted", 0), "cut.vhdx": ("salvaged", 3)}
    assert lines_of(outcome)["cut.vhdx"]["lost-size"] == MIB // 2
    assert outcome.err_lines[-1] == "vhdx2raw: 1 converted, 1 salvaged"


def test_existing_output_fails_that_file_alone(folder: Path, capfd: Capture) -> None:
    (folder / "raw").mkdir()
    (folder / "raw/a.img").write_bytes(b"precious")
    outcome = run(capfd, "batch", "--output-dir", "raw", "a.vhdx", "b.vhdx")
    assert outcome.exit_code == 7
    assert outcome.err_lines[0] == "vhdx2raw: raw/a.img: exists already"
    assert (folder / "raw/a.img").read_bytes() == b"precious"
    assert has_expected_bytes(folder / "raw/b.img", other_disk())
    assert run(capfd, "batch", "--force", "--output-dir", "raw", "a.vhdx", "b.vhdx").exit_code == 0
    assert has_expected_bytes(folder / "raw/a.img", small_disk())


def test_options_apply_to_every_file(folder: Path, capfd: Capture) -> None:
    words = ["--json", "--verify", "--hash", "sha256", "--max-virtual-size", "4M", "--workers", "1"]
    lines = lines_of(run(capfd, "batch", *words, "--output-dir", "raw", "a.vhdx", "b.vhdx"))
    assert lines["a.vhdx"]["exit-code"] == 4
    assert lines["b.vhdx"]["verified"] is True
    assert lines["b.vhdx"]["hash"]["digest"] == other_disk().expected_sha256()


def test_digests_of_a_batch_pass_sha256sum(folder: Path, capfd: Capture) -> None:
    words = ["--hash", "sha256", "--jobs", "2", "--output-dir", "raw"]
    outcome = run(capfd, "batch", *words, "a.vhdx", "b.vhdx")
    assert outcome.exit_code == 0
    sha256sum = needs_program("sha256sum")
    check = [sha256sum, "--check", "--strict"]
    done = subprocess.run(check, input=outcome.out, text=True, check=True, capture_output=True)
    assert sorted(done.stdout.splitlines()) == ["raw/a.img: OK", "raw/b.img: OK"]


def test_parents_are_found_for_every_file(folder: Path, capfd: Capture) -> None:
    base = base_disk()
    (folder / "bases").mkdir()
    base.write(folder / "bases/base.vhdx")
    children = [child_of(base, RELATIVE, blocks={k: Block()}) for k in (0, 2)]
    for number, child in enumerate(children):
        child.write(folder / f"child{number}.avhdx")
    words = ["--output-dir", "raw", "child0.avhdx", "child1.avhdx"]
    assert run(capfd, "batch", *words).exit_code == 6
    assert run(capfd, "batch", "--parent-dir", "bases", *words).exit_code == 0
    for number, child in enumerate(children):
        assert has_expected_bytes(folder / f"raw/child{number}.img", child)


def test_the_schema_is_one_and_allows_nothing_else(folder: Path, capfd: Capture) -> None:
    words = ["--json", "--salvage", "--output-dir", "raw", "a.vhdx", "cut.vhdx", "text.vhdx"]
    lines = lines_of(run(capfd, "batch", *words))
    assert len(lines) == 3
    for line in lines.values():
        for wrong in (
            line | {"more": 1},
            line | {"status": "done"},
            line | {"exit-code": 1},
            {key: value for key, value in line.items() if key != "status"},
            {key: value for key, value in line.items() if key != "destination"},
        ):
            assert not VALIDATOR.is_valid(wrong)


# -- names, before any work ---------------------------------------------------------------------

COLLISIONS = [
    ["x/a.vhdx", "y/a.vhdx"],
    ["a.vhdx", "a.avhdx"],
    ["a.vhdx", "A.vhdx"],
    ["straße.vhdx", "STRASSE.vhdx"],
    ["a.vhdx", "a.vhdx"],
    ["a.vhdx", "./a.vhdx"],
    ["b.vhdx", "a.vhdx", "a"],
]


@pytest.mark.parametrize("force", [[], ["--force"], ["--skip-done"]], ids=" ".join)
@pytest.mark.parametrize("names", COLLISIONS, ids=" ".join)
def test_colliding_names_are_refused_before_any_work(
    folder: Path, capfd: Capture, names: list[str], force: list[str]
) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.hardlink_to(folder / "a.vhdx")
    before = names_in(folder)
    outcome = run(capfd, "batch", *force, "--output-dir", "raw", *names)
    assert (outcome.exit_code, outcome.out) == (7, "")
    line, hint = outcome.err_lines
    clashing = [name for name in names if name != "b.vhdx"]
    assert line.endswith(f": would be made of {' and of '.join(clashing)}")
    assert line.startswith("vhdx2raw: raw/")
    assert hint == "vhdx2raw: hint: convert them to different folders"
    assert names_in(folder) == before


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "another of them"])
def test_output_that_is_an_input_is_refused(folder: Path, capfd: Capture, way: str) -> None:
    """By force too, and before an earlier file of the batch is converted."""
    (folder / "raw").mkdir()
    names = ["b.vhdx", "raw/a.img"]
    if way == "symbolic link":
        (folder / "raw/a.img").symlink_to("../a.vhdx")
        names = ["b.vhdx", "a.vhdx"]
    elif way == "hard link":
        (folder / "raw/a.img").hardlink_to(folder / "a.vhdx")
        names = ["b.vhdx", "a.vhdx"]
    elif way == "another of them":
        shutil.copy("b.vhdx", "raw/a.img")
        (folder / "link.vhdx").symlink_to("raw/a.img")
        names = ["b.vhdx", "a.vhdx", "link.vhdx"]
    else:
        shutil.copy("a.vhdx", "raw/a.img")
    before = {path: path.read_bytes() for path in (folder / "a.vhdx", folder / "raw/a.img")}
    outcome = run(capfd, "batch", "--force", "--output-dir", "raw", *names)
    assert (outcome.exit_code, outcome.out) == (7, "")
    assert outcome.err_lines[0] == "vhdx2raw: raw/a.img: is the input itself"
    assert names_in(folder / "raw") == ["a.img"]
    is_same = all(path.read_bytes() == data for path, data in before.items())
    assert is_same


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.vhdx", "a.vhdx: exists and is not a folder"),
        ("a.vhdx/raw", "a.vhdx/raw: cannot be written: Not a directory"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused(
    folder: Path, capfd: Capture, name: str, words: str
) -> None:
    before = names_in(folder)
    outcome = run(capfd, "batch", "--output-dir", name, "b.vhdx")
    assert (outcome.exit_code, outcome.err_lines[0]) == (7, f"vhdx2raw: {words}")
    assert names_in(folder) == before


USAGE = [
    (["--mapfile", "map", "--salvage", "a.vhdx"], "No such option: --mapfile"),
    (
        ["--parent", "b.vhdx", "a.vhdx"],
        "--parent fits one SRC: here parents are told by their GUIDs",
    ),
    (["--state", "s.json", "a.vhdx"], "--state fits one SRC; in --from-list each disk can have"),
    (["--salvage", "--resume", "a.vhdx"], "--resume would forget what --salvage has lost"),
    (["a.vhdx", "-"], "cannot be read from standard input"),
    (["--jobs", "0", "a.vhdx"], "0 is not in the range"),
    (["--jobs", "65", "a.vhdx"], "65 is not in the range"),
    ([], "Missing argument"),
]


@pytest.mark.parametrize(("words", "problem"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_what_fits_no_batch_is_wrong_usage(
    folder: Path, capfd: Capture, words: list[str], problem: str
) -> None:
    outcome = run(capfd, "batch", "--output-dir", "raw", *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert problem in " ".join(outcome.err.split())
    assert "raw" not in names_in(folder)


# -- at the same time ---------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_jobs_is_the_number_of_files_at_a_time(folder: Path, monkeypatch: Patch, jobs: int) -> None:
    """Each file waits until the others have begun; there are never more of them."""
    real_convert = BatchConverter.convert
    together = threading.Barrier(jobs)
    running_now: list[str] = []
    most: list[int] = []

    def convert(converter: BatchConverter, source: str, *rest: Any) -> Conversion:  # noqa: ANN401
        running_now.append(source)
        most.append(len(running_now))
        try:
            together.wait(TIMEOUT)
            return real_convert(converter, source, *rest)
        finally:
            running_now.remove(source)

    monkeypatch.setattr(BatchConverter, "convert", convert)
    names = [f"{number}.vhdx" for number in range(6)]
    for name in names:
        (folder / name).hardlink_to(folder / "a.vhdx")
    assert main(["batch", "--output-dir", "raw", "--jobs", str(jobs), *names]) == 0
    assert max(most) == jobs
    assert len(names_in(folder / "raw")) == 6


def peak_of(*arguments: str) -> int:
    """Run the program on few file descriptors; give the most memory that it had, in bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    process = subprocess.Popen([*MODULE, "batch", *arguments], preexec_fn=limit)  # noqa: PLW1509
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_memory_does_not_grow_with_the_files(folder: Path) -> None:
    """Nor does the number of open files, of which only 40 are allowed."""
    stored_zeros(256 * MIB).write(folder / "zeros.vhdx")
    names = [f"{number}.vhdx" for number in range(64)]
    for name in names:
        (folder / name).hardlink_to(folder / "a.vhdx")
    (folder / "z.vhdx").hardlink_to(folder / "zeros.vhdx")
    words = ["--no-sync", "--no-clone", "--jobs", "2", "--output-dir"]
    few = peak_of(*words, "few", *names[:2])
    many = peak_of(*words, "many", *names, "zeros.vhdx", "z.vhdx")
    assert len(names_in(folder / "many")) == 66
    assert many < few + 16 * MIB


# -- progress -----------------------------------------------------------------------------------

PROGRESS = [
    ["a.vhdx", "b.vhdx"],
    ["text.vhdx", "a.vhdx", "gone.vhdx", "b.vhdx", "cut.vhdx"],
    ["a.vhdx"],
    ["text.vhdx"],
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("names", PROGRESS, ids=" ".join)
@pytest.mark.parametrize(
    "words", [[], ["--jobs", "3"], ["--skip-done"], ["--verify"]], ids=" ".join
)
def test_progress_counts_all_files_together(
    capfd: Capture, monkeypatch: Patch, names: list[str], words: list[str]
) -> None:
    monkeypatch.setattr("vhdx2raw.cli.progress.JSON_SECONDS", 0)
    if "--skip-done" in words:
        run(capfd, "batch", "--output-dir", "raw", "a.vhdx")
    arguments = ["--no-clone", "--progress", "json", "--output-dir", "raw"]
    outcome = run(capfd, "batch", *arguments, *words, *names)
    lines = [json.loads(line) for line in outcome.err_lines if line.startswith("{")]
    for line in lines:
        assert [*line] == [
            *("bytes-done", "bytes-total", "filename", "index", "count", "elapsed-seconds")
        ]
        assert line["filename"] == names[line["index"] - 1]
        assert line["count"] == len(names)
    for key in ("bytes-done", "bytes-total", "elapsed-seconds"):
        assert [line[key] for line in lines] == sorted(line[key] for line in lines)
    assert all(line["bytes-done"] <= line["bytes-total"] for line in lines)
    assert lines[-1]["bytes-done"] == lines[-1]["bytes-total"]
    named = {line["filename"] for line in lines}
    assert named >= {*names} - {"text.vhdx", "gone.vhdx"}  # in which nothing is to be done


def test_a_terminal_sees_one_bar(folder: Path) -> None:
    words = ["--no-clone", "--output-dir", "raw", "--jobs", "2", "a.vhdx", "b.vhdx"]
    outcome = run_on_terminal("batch", *words)
    assert (outcome.exit_code, outcome.out) == (0, "")
    lines = [line for line in outcome.err.split("\n") if line]
    assert lines.pop() == "vhdx2raw: 2 converted"
    bars = [line for line in drawn_lines(outcome.err) if "%|" in line]
    assert bars[-1].startswith("100%|")
    assert bars[-1].endswith(("2/2 b.vhdx", "1/2 a.vhdx"))
    assert sum("raw/a.img in " in line for line in lines) == 1
    assert sum("raw/b.img in " in line for line in lines) == 1


# -- signals ------------------------------------------------------------------------------------


def wait_for_parts(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Wait until so many outputs are being made, and a.img is complete."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        names = names_in(folder) if folder.exists() else []
        if "a.img" in names and sum(name.endswith(".part") for name in names) == count:
            return
        assert process.poll() is None, "ended before it began"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("jobs", "patience"), [(1, True), (2, True), (2, False)])
def test_a_signal_leaves_only_complete_outputs(
    folder: Path, endless: Path, number: signal.Signals, jobs: int, *, patience: bool
) -> None:
    names = [f"long{k}.vhdx" for k in range(3)]
    for name in names:
        (folder / name).symlink_to(endless)
    words = ["--no-sync", "--output-dir", "raw", "--jobs", str(jobs)]
    with running_process("batch", *words, "a.vhdx", *names, "b.vhdx") as process:
        wait_for_parts(process, folder / "raw", jobs)
        for _ in range(1 if patience else 3):
            process.send_signal(number)
        summary = "vhdx2raw: 1 converted, 4 left\n"
        assert wait_for_end(process) == (128 + number, summary + SIGNAL_MESSAGES[number])
    assert names_in(folder / "raw") == ["a.img"]
    assert has_expected_bytes(folder / "raw/a.img", small_disk())


@pytest.mark.parametrize("words", [[], ["--skip-done"]], ids=["failures", "nothing to do"])
def test_a_signal_ends_a_batch_that_writes_nothing(
    folder: Path, monkeypatch: Patch, words: list[str]
) -> None:
    """Usually a signal is noticed where progress is reported; here there is no progress."""
    names = [f"{number}.vhdx" for number in range(30)]
    (folder / "raw").mkdir()
    for name in names:
        (folder / name).hardlink_to(folder / "cut.vhdx")
    calls: list[object] = []

    def interrupt(*_: object) -> int:
        calls.append(None)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return 4

    if words:
        monkeypatch.setattr(converter, "find_earlier", lambda *_: interrupt() and Earlier())
    else:
        monkeypatch.setattr(running, "print_failure", interrupt)
    assert main(["batch", "--output-dir", "raw", *words, *names]) == 143
    assert len(calls) < 5


def test_a_reader_that_has_gone_away_keeps_no_file_from_being_converted(folder: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        outcome = run_program(
            "batch", "--json", "--output-dir", "raw", "a.vhdx", "b.vhdx", stdout=pipe
        )
    assert outcome.exit_code == 8
    problem = "vhdx2raw: standard output: cannot be written: Broken pipe"
    assert outcome.err_lines[0] == f"{problem}; the raw image in raw/a.img is complete"
    assert names_in(folder / "raw") == ["a.img", "b.img"]


def test_lines_about_one_file_are_not_mixed(
    folder: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    """A hint belongs to the line before it, whatever other threads print."""

    def slow_print(text: str, *, hint: str = "") -> None:
        print_error(text)
        time.sleep(0.02)
        print_error(f"hint: {hint}")

    monkeypatch.setattr(console, "print_error", slow_print)
    names = [f"{number}.vhdx" for number in range(4)]
    for name in names:
        (folder / name).hardlink_to(folder / "cut.vhdx")
    outcome = run(capfd, "batch", "--jobs", "4", "--output-dir", "raw", *names)
    assert outcome.exit_code == 5
    kinds = ["hint" if "hint: " in line else "error" for line in outcome.err_lines[:-1]]
    assert kinds == ["error", "hint"] * 4
