"""The command line: what it takes, and that it does what is asked for."""

import gc
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import MODULE, SCRIPT, progress_lines, run, run_program, small_disk
from tests.support.files import has_expected_bytes, names_in, sha256_of
from vhdx2raw.cli.console import print_message
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.output.sparse_file import SparseFileSink

SIZE = small_disk().virtual_disk_size
Capture = pytest.CaptureFixture[str]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("disk")]


# -- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["convert"]], ids=["default", "by name"])
def test_conversion_is_silent(folder: Path, capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(folder / "out.img", small_disk())
    assert names_in(folder) == ["disk.vhdx", "out.img"]


@pytest.mark.parametrize("words", [["./convert"], ["convert", "convert"], ["--", "./convert"]])
def test_file_named_like_a_command_is_converted(
    folder: Path, capfd: Capture, words: list[str]
) -> None:
    (folder / "disk.vhdx").rename("convert")
    assert run(capfd, *words, "out.img").exit_code == 0
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_name_that_begins_with_a_dash_is_converted(folder: Path, capfd: Capture) -> None:
    (folder / "disk.vhdx").rename("--force")
    assert run(capfd, "convert", "--", "--force", "out.img").exit_code == 0
    assert has_expected_bytes(folder / "out.img", small_disk())


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_installed_program_converts(folder: Path, command: tuple[str, ...]) -> None:
    outcome = run_program("disk.vhdx", "out.img", command=command)
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(folder / "out.img", small_disk())


@pytest.mark.parametrize("words", [["--help"], ["convert", "--help"]], ids=["program", "convert"])
def test_help_shows_examples(capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.startswith("Usage: vhdx2raw")
    examples = outcome.out.partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 4
    assert all(line.startswith("  ") and "vhdx2raw " in line for line in examples if line)
    assert any(line.split()[:3] == ["vhdx2raw", "disk.vhdx", "disk.img"] for line in examples)


def test_help_names_every_option(capfd: Capture) -> None:
    words = run(capfd, "convert", "--help").out.replace(",", " ").split()
    expected = {"--force", "-S", "--sparse-size", "--progress", "-p", "-q", "--quiet", "-v"}
    assert expected | {"--verbose", "--json", "--help"} <= set(words)


@pytest.mark.parametrize("words", [[], ["convert"]], ids=["program", "convert"])
def test_no_arguments_print_help_as_wrong_usage(capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: vhdx2raw")
    assert "Examples:" in outcome.err


def test_the_version_is_that_of_the_package(capfd: Capture) -> None:
    outcome = run(capfd, "--version")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out == f"vhdx2raw {version('vhdx2raw')}\n"


# -- options ------------------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_by_force(folder: Path, capfd: Capture) -> None:
    target = folder / "out.img"
    target.write_bytes(b"precious")
    assert run(capfd, "disk.vhdx", "out.img").exit_code == 7
    assert target.read_bytes() == b"precious"
    outcome = run(capfd, "--force", "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(target, small_disk())
    assert names_in(folder) == ["disk.vhdx", "out.img"]


def test_the_output_is_sparse(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "--no-clone", "disk.vhdx", "out.img").exit_code == 0
    # One full block, and two pieces of 4 KiB in another; the file system may add a little.
    assert MIB <= (folder / "out.img").stat().st_blocks * 512 <= MIB + 64 * 1024


@pytest.mark.parametrize(
    "words", [["--workers", "1"], ["--workers", "7"], ["--no-clone"], ["--no-sync"]], ids=" ".join
)
def test_options_do_not_change_the_bytes(folder: Path, capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, *words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(folder / "out.img", small_disk())


SPARSE_SIZES = [
    ("4k", 4096),
    ("4K", 4096),
    ("512", 512),
    ("64K", 65536),
    ("1M", MIB),
    ("1024k", MIB),
]


@pytest.mark.parametrize("option", ["-S", "--sparse-size"])
@pytest.mark.parametrize(("words", "size"), [*SPARSE_SIZES, ("0", 0)])
def test_sparse_size_is_honoured(
    folder: Path, capfd: Capture, option: str, words: str, size: int
) -> None:
    outcome = run(capfd, "--json", "--no-clone", option, words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(folder / "out.img", small_disk())
    # The block that holds 8 KiB of data from 4096 on is written in as many granules as that takes.
    in_first_block = max(8192, size) if size else SIZE - MIB
    assert json.loads(outcome.out)["written-size"] == MIB + in_first_block


def test_sparse_size_zero_allocates_everything(folder: Path, capfd: Capture) -> None:
    assert run(capfd, "-S", "0", "disk.vhdx", "out.img").exit_code == 0
    assert (folder / "out.img").stat().st_blocks * 512 >= SIZE


BAD_SPARSE_SIZES = [
    "3k",
    "100",
    "256",
    "2M",
    "-4k",
    "4kk",
    "4x",
    "abc",
    "",
    "1.5M",
    "k",
    "٤k",
    "1E",
]


@pytest.mark.parametrize("words", BAD_SPARSE_SIZES)
def test_a_bad_sparse_size_is_wrong_usage(folder: Path, capfd: Capture, words: str) -> None:
    outcome = run(capfd, "-S", words, "disk.vhdx", "out.img")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert "'-S' / '--sparse-size'" in outcome.err_lines[0]
    assert names_in(folder) == ["disk.vhdx"]


USAGE = [
    (["disk.vhdx"], "give SRC and DST; many disks are converted by: vhdx2raw batch SRC..."),
    (["disk.vhdx", "out.img", "third"], "give SRC and DST; many disks are converted by"),
    (["--bogus", "disk.vhdx", "out.img"], "--bogus"),
    (["--progress", "fast", "disk.vhdx", "out.img"], "--progress"),
    (["--workers", "0", "disk.vhdx", "out.img"], "--workers"),
    (["--no-replay", "--ignore-log", "disk.vhdx", "out.img"], "contradict each other"),
    (["-", "out.img"], "standard input"),
    (["--json", "disk.vhdx", "-"], "standard output cannot take both"),
    (["--hash", "crc32", "disk.vhdx", "out.img"], "'crc32' is none of"),
    (["--verify", "disk.vhdx", "-"], "--verify needs a DST that can be read back"),
    (["--verify", "disk.vhdx", "null:"], "--verify needs a DST that can be read back"),
    (["--mapfile", "m", "disk.vhdx", "out.img"], "--mapfile lists what --salvage has lost"),
    (
        ["--salvage", "--mapfile", "-", "disk.vhdx", "out.img"],
        "--mapfile needs the name of a file",
    ),
    (
        ["--salvage", "--mapfile", "./out.img", "disk.vhdx", "out.img"],
        "--mapfile and DST are the same file",
    ),
    (["--max-virtual-size", "big", "disk.vhdx", "out.img"], "'big' is not a size"),
    (
        ["--jobs", "2", "disk.vhdx", "out.img"],
        "--jobs is no option of convert, which makes one image;",
    ),
    (
        ["-j", "2", "disk.vhdx", "out.img"],
        "for many disks use: vhdx2raw batch SRC... --output-dir DIR",
    ),
    (["--output-dir", "raw", "disk.vhdx"], "vhdx2raw batch SRC... --output-dir DIR"),
    (["--skip-existing", "disk.vhdx", "out.img"], "--output-dir DIR --skip-done"),
    (["disk.vhdx", "other.vhdx", "out.img"], "give SRC and DST; many disks are converted by"),
]


@pytest.mark.parametrize(("words", "problem"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_wrong_usage_does_nothing(
    folder: Path, capfd: Capture, words: list[str], problem: str
) -> None:
    outcome = run(capfd, *words)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err_lines[1:] == ["vhdx2raw: hint: see vhdx2raw convert --help"]
    # Usage is wrapped to the width of the terminal.
    assert problem in " ".join(outcome.err.split())
    assert names_in(folder) == ["disk.vhdx"]


# -- standard output, and no output -------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-S", "0"], ["-S", "1M"]], ids=" ".join)
def test_dash_writes_the_disk_to_stdout(folder: Path, words: list[str]) -> None:
    with (folder / "out.img").open("wb") as stream:
        outcome = run_program(*words, "disk.vhdx", "-", stdout=stream)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(folder / "out.img", small_disk())


def test_dash_writes_to_a_pipe(folder: Path) -> None:
    with subprocess.Popen([*MODULE, "disk.vhdx", "-"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        data = process.stdout.read()
    assert process.returncode == 0
    is_right = data == small_disk().expected_disk(0, SIZE)
    assert is_right


def test_standard_output_is_never_the_input(folder: Path) -> None:
    before = sha256_of(folder / "disk.vhdx")
    with (folder / "disk.vhdx").open("r+b") as stream:
        outcome = run_program("disk.vhdx", "-", stdout=stream)
    assert outcome.exit_code == 7
    assert outcome.err_lines[0] == "vhdx2raw: standard output: is the input itself"
    assert sha256_of(folder / "disk.vhdx") == before


def test_the_null_output_is_no_file(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "--json", "disk.vhdx", "null:")
    assert (outcome.exit_code, outcome.err) == (0, "")
    summary = json.loads(outcome.out)
    assert summary["written-size"] == MIB + 8192
    assert "actual-size" not in summary
    assert names_in(folder) == ["disk.vhdx"]


# -- the source ---------------------------------------------------------------------------------

OPEN_FLAGS = """
import json, sys
opened = []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("disk.vhdx"):
        opened.append(arguments[2])
sys.addaudithook(hook)
from vhdx2raw.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, opened]))
"""


@pytest.mark.parametrize("words", [["out.img"], ["-S", "0", "out.img"], ["null:"]], ids=" ".join)
def test_the_source_is_never_opened_for_writing(folder: Path, words: list[str]) -> None:
    before = (sha256_of(folder / "disk.vhdx"), (folder / "disk.vhdx").stat().st_mtime_ns)
    outcome = run_program(
        "disk.vhdx", *words[-1:], *words[:-1], command=(sys.executable, "-c", OPEN_FLAGS)
    )
    code, flags = json.loads(outcome.out)
    assert code == 0
    assert flags
    assert all(flag & os.O_ACCMODE == os.O_RDONLY for flag in flags)
    assert not any(flag & (os.O_CREAT | os.O_TRUNC | os.O_APPEND) for flag in flags)
    assert (sha256_of(folder / "disk.vhdx"), (folder / "disk.vhdx").stat().st_mtime_ns) == before


# -- progress as lines of JSON ------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-S", "0"], ["-q"], ["--json"]], ids=" ".join)
def test_json_progress_ends_with_everything_moved(
    folder: Path, capfd: Capture, words: list[str]
) -> None:
    outcome = run(capfd, "--progress", "json", *words, "disk.vhdx", "out.img")
    assert outcome.exit_code == 0
    lines = progress_lines(outcome.err)
    total = SIZE if "-S" in words else 3 * MIB
    assert lines[-1] == (total, total)
    assert lines == sorted(set(lines))


def test_json_progress_of_an_empty_disk_is_one_line(folder: Path, capfd: Capture) -> None:
    ImageSpec(4 * MIB, MIB).write("empty.vhdx")
    outcome = run(capfd, "--progress", "json", "empty.vhdx", "out.img")
    assert outcome.exit_code == 0
    assert progress_lines(outcome.err) == [(0, 0)]


def test_json_progress_comes_about_twice_a_second(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = SparseFileSink.write

    def slow_write(sink: SparseFileSink, virtual_offset: int, data: memoryview) -> None:
        time.sleep(0.2)
        real_write(sink, virtual_offset, data)

    monkeypatch.setattr(SparseFileSink, "write", slow_write)
    ImageSpec(16 * MIB, MIB, {index: Block() for index in range(16)}).write("full.vhdx")
    started = time.monotonic()
    outcome = run(capfd, "--progress", "json", "full.vhdx", "out.img")
    seconds = time.monotonic() - started
    lines = progress_lines(outcome.err)
    assert seconds >= 0.8  # 16 pieces, no more than four threads
    assert 2 <= len(lines) <= 2 * seconds + 2
    assert lines[-1] == (16 * MIB, 16 * MIB)


def test_messages_never_begin_in_the_line_of_the_bar(capfd: Capture) -> None:
    with show_progress(ProgressMode.ALWAYS) as show:
        show(1, 3)
        capfd.readouterr()
        print_message("these words")
        assert capfd.readouterr().err.endswith("\rthese words\n")
    print_message("and these")
    assert capfd.readouterr().err.endswith("\nand these\n")


def test_garbage_is_collected_while_a_command_runs(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the loading of modules goes without."""
    seen = []
    monkeypatch.setattr("vhdx2raw.cli.commands.hash.run", lambda _: seen.append(gc.isenabled()))
    assert run(capfd, "hash", "disk.vhdx").exit_code == 0
    run(capfd, "--version")
    assert (seen, gc.isenabled()) == ([True], True)
