"""What the command line makes of each failure: one line, one exit code, nothing left behind."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builder import MIB, HeaderSpec, ImageSpec
from tests.support.cli import Outcome, run, run_program, small_disk
from tests.support.files import has_expected_bytes, names_in, sha256_of
from vhdx2raw.output.sparse_file import SparseFileSink

UNPRIVILEGED = 65534
Capture = pytest.CaptureFixture[str]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be another user for a while, if this is the superuser, for whom no permission counts."""
    if os.geteuid():
        yield
        return
    os.setegid(UNPRIVILEGED)
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def assert_prints(outcome: Outcome, exit_code: int, line: str, *, hint: str | None = None) -> None:
    """Check for one line that matches as a whole, and a hint that does, if one is asked for."""
    assert (outcome.exit_code, outcome.out) == (exit_code, "")
    first, *others = outcome.err_lines
    assert re.fullmatch(f"vhdx2raw: {line}", first), first
    assert "Traceback" not in outcome.err
    if hint is None:
        assert others == []
    else:
        [second] = others
        assert re.fullmatch(f"vhdx2raw: hint: {hint}", second), second


# -- 4: not a VHDX, or not for us ---------------------------------------------------------------


def write_future_version(path: Path) -> None:
    spec = small_disk()
    spec.headers = [HeaderSpec(sequence_number=number, version=2) for number in (1, 2)]
    spec.write(path)


def write_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


NOT_A_VHDX = [
    ("empty", write_bytes(b""), r"file: is empty, not a VHDX \(MS-VHDX 2\.2\.1\)", r".+"),
    ("text", write_bytes(b"hello\n"), r"file: is .+, not a VHDX \(MS-VHDX 2\.2\.1\)", r".+"),
    ("qcow2", write_bytes(b"QFI\xfb" + bytes(600)), r"file: is .*qcow2.*, not a VHDX .+", r".+"),
    ("VHD", write_bytes(bytes(1024) + b"conectix".ljust(512, b"\0")), r"file: is .*VHD.*", r".+"),
    ("folder", Path.mkdir, r"file: is a directory, not a VHDX file", r"name the VHDX file in it"),
    ("FIFO", os.mkfifo, r"file: is a FIFO, not a VHDX file", r".+ write it to a file first"),
    (
        "version 2",
        write_future_version,
        r"header 2 at file offset 0x20000: unknown version .+: found 2, expected 1 \(MS-VHDX .+\)",
        None,
    ),
]


@pytest.mark.parametrize(
    ("make", "line", "hint"), [row[1:] for row in NOT_A_VHDX], ids=[row[0] for row in NOT_A_VHDX]
)
def test_foreign_format_is_named(
    folder: Path, capfd: Capture, make: Callable[[Path], object], line: str, hint: str | None
) -> None:
    make(folder / "disk.vhdx")
    outcome = run(capfd, "disk.vhdx", "out.img")
    assert_prints(outcome, 4, rf"disk\.vhdx: {line}", hint=hint)
    assert names_in(folder) == ["disk.vhdx"]


# -- 5: corrupt or truncated --------------------------------------------------------------------


def write_without_headers(path: Path) -> None:
    spec = small_disk()
    spec.headers = [HeaderSpec(sequence_number=number, checksum=0) for number in (1, 2)]
    spec.write(path)


def write_reserved_state(path: Path) -> None:
    spec = small_disk()
    spec.bat_overrides[3] = 4
    spec.write(path)


def write_truncated(path: Path) -> None:
    spec = small_disk()
    spec.write(path)
    os.truncate(path, path.stat().st_size - 1)


CORRUPT = [
    ("headers", write_without_headers, r"headers: none is valid; .+ \(MS-VHDX 2\.2\.2\)", None),
    (
        "BAT",
        write_reserved_state,
        r"BAT entry of payload block 3 at file offset 0x300018: .+: found 0x0{15}4 \(MS-VHDX .+\)",
        None,
    ),
    (
        "truncated",
        write_truncated,
        r"BAT entry of payload block 2 at file offset 0x300010: the block lies beyond the end of.+",
        r"the file was cut off.+",
    ),
]


@pytest.mark.parametrize(
    ("make", "line", "hint"), [row[1:] for row in CORRUPT], ids=[row[0] for row in CORRUPT]
)
def test_corruption_is_reported_with_place_and_values(
    folder: Path, capfd: Capture, make: Callable[[Path], object], line: str, hint: str | None
) -> None:
    make(folder / "disk.vhdx")
    before = sha256_of(folder / "disk.vhdx")
    outcome = run(capfd, "disk.vhdx", "out.img")
    assert_prints(outcome, 5, rf"disk\.vhdx: {line}", hint=hint)
    assert names_in(folder) == ["disk.vhdx"]
    assert sha256_of(folder / "disk.vhdx") == before


def test_corrupt_image_keeps_the_old_output(folder: Path, capfd: Capture) -> None:
    write_truncated(folder / "disk.vhdx")
    (folder / "out.img").write_bytes(b"precious")
    assert run(capfd, "--force", "disk.vhdx", "out.img").exit_code == 5
    assert (folder / "out.img").read_bytes() == b"precious"


def test_source_that_shrinks_is_truncated(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_ftruncate = os.ftruncate

    def set_length_and_shrink(descriptor: int, length: int) -> None:
        real_ftruncate(descriptor, length)
        os.truncate("disk.vhdx", 6 * MIB)

    monkeypatch.setattr(os, "ftruncate", set_length_and_shrink)
    small_disk().write("disk.vhdx")
    outcome = run(capfd, "disk.vhdx", "out.img")
    assert_prints(
        outcome, 5, r"disk\.vhdx: file at file offset 0x6[0-9a-f]{5}: ends too early: .+", hint=".+"
    )
    assert names_in(folder) == ["disk.vhdx"]


# -- 7: no output -------------------------------------------------------------------------------


EXISTS_HINT = "choose another name, or use --force to replace it"
NO_OUTPUT = [
    ("old.img", "exists already", EXISTS_HINT),
    ("dangling", "exists already", EXISTS_HINT),
    ("disk.vhdx", "is the input itself", "choose another name for the output"),
    ("./folder/../disk.vhdx", "is the input itself", "choose another name for the output"),
    ("symbolic", "is the input itself", "choose another name for the output"),
    ("hard", "is the input itself", "choose another name for the output"),
    ("folder", "is a directory, not a file to write", "name a file in it"),
    ("folder/", "is a directory, not a file to write", "name a file in it"),
    ("new/", "is a directory, not a file to write", "name a file in it"),
    (".", "is a directory, not a file to write", "name a file in it"),
    ("fifo", "exists and is not a regular file", "name a new file, or write to standard output .+"),
    ("/dev/zero", "exists and is not a regular file", "name a new file, or .+"),
    ("missing/out.img", "cannot be written: No such file or directory", "the folder does not .+"),
    ("old.img/out.img", "cannot be written: Not a directory", "a part of the path is not .+"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "problem", "hint"), NO_OUTPUT, ids=[row[0] for row in NO_OUTPUT])
def test_an_output_that_cannot_be_made_is_refused(
    folder: Path, disk: str, capfd: Capture, *, name: str, problem: str, hint: str | None
) -> None:
    (folder / "old.img").write_bytes(b"precious")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "symbolic").symlink_to(disk)
    (folder / "hard").hardlink_to(disk)
    (folder / "folder").mkdir()
    os.mkfifo("fifo")
    names = names_in(folder)
    before = sha256_of(folder / disk)
    outcome = run(capfd, disk, name)
    assert_prints(outcome, 7, f"{re.escape(name)}: {problem}", hint=hint)
    assert names_in(folder) == names
    assert sha256_of(folder / disk) == before
    assert (folder / "old.img").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["disk.vhdx", "symbolic", "hard"])
def test_force_does_not_replace_the_input(
    folder: Path, disk: str, capfd: Capture, name: str
) -> None:
    (folder / "symbolic").symlink_to(disk)
    (folder / "hard").hardlink_to(disk)
    before = sha256_of(folder / disk)
    outcome = run(capfd, "--force", disk, name)
    assert_prints(outcome, 7, f"{name}: is the input itself", hint="choose another name .+")
    assert sha256_of(folder / disk) == before


# -- 8: the host --------------------------------------------------------------------------------


def test_a_missing_source_is_a_failure_of_the_host(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, "missing.vhdx", "out.img")
    assert_prints(outcome, 8, r"missing\.vhdx: No such file or directory")
    assert names_in(folder) == []


def test_source_without_permission_is_a_host_failure(
    folder: Path, disk: str, capfd: Capture
) -> None:
    folder.chmod(0o777)
    (folder / disk).chmod(0)
    with without_privileges():
        outcome = run(capfd, disk, "out.img")
    assert_prints(outcome, 8, r"disk\.vhdx: Permission denied")
    assert names_in(folder) == ["disk.vhdx"]


def test_folder_without_permission_is_a_host_failure(
    folder: Path, disk: str, capfd: Capture
) -> None:
    folder.chmod(0o555)
    with without_privileges():
        outcome = run(capfd, disk, "out.img")
    folder.chmod(0o755)
    assert_prints(outcome, 8, r"out\.img: Permission denied")
    assert names_in(folder) == ["disk.vhdx"]


def test_a_source_that_may_only_be_read_is_enough(folder: Path, disk: str, capfd: Capture) -> None:
    target = folder / "target"
    target.mkdir()
    target.chmod(0o777)
    (folder / disk).chmod(0o444)
    folder.chmod(0o555)
    with without_privileges():
        outcome = run(capfd, disk, "target/out.img")
    folder.chmod(0o755)
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert has_expected_bytes(target / "out.img", small_disk())


@pytest.mark.parametrize("call", ["preadv", "pread"])
def test_a_source_that_cannot_be_read_is_named(
    folder: Path, disk: str, capfd: Capture, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_disk(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        if call == "pread":  # which is used where the other one is missing
            broken.delattr(os, "preadv")
        broken.setattr(os, call, bad_disk)
        outcome = run(capfd, disk, "out.img")
    assert_prints(outcome, 8, r"disk\.vhdx: Input/output error")
    assert names_in(folder) == ["disk.vhdx"]


# -- 70: the program itself ---------------------------------------------------------------------


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a fault into the program."""

    def divide(_sink: SparseFileSink) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.delenv("VHDX2RAW_DEBUG", raising=False)
    monkeypatch.setattr(SparseFileSink, "flush", divide)


@pytest.mark.usefixtures("fault")
def test_internal_fault_has_no_traceback(folder: Path, disk: str, capfd: Capture) -> None:
    line = "fault of the program itself: ZeroDivisionError: division by zero"
    hint = "please report this, with what is printed when VHDX2RAW_DEBUG=1 is set"
    assert_prints(run(capfd, disk, "out.img"), 70, line, hint=hint)
    assert names_in(folder) == ["disk.vhdx"]


@pytest.mark.usefixtures("fault")
def test_debug_variable_prints_the_traceback(
    disk: str, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VHDX2RAW_DEBUG", "1")
    outcome = run(capfd, disk, "out.img")
    assert outcome.exit_code == 70
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err_lines[-1] == "ZeroDivisionError: division by zero"


# -- names --------------------------------------------------------------------------------------

EVIL_NAMES = [
    "a\x1b[31mred",
    "two\nlines",
    "tab\tand\rreturn",
    "bell\x07",
    "\x9b31m",
    "\u202eright",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVIL_NAMES, ids=ascii)
def test_file_name_is_escaped(folder: Path, disk: str, capfd: Capture, name: str) -> None:
    (folder / name).write_bytes(b"hello")
    escaped = ascii(name)[1:-1]
    for outcome, exit_code in ((run(capfd, name, "out"), 4), (run(capfd, disk, name), 7)):
        assert outcome.exit_code == exit_code
        assert outcome.err_lines[0].startswith(f"vhdx2raw: {escaped}: ")
        assert all(line.isprintable() for line in outcome.err.splitlines())
    (folder / name).unlink()
    outcome = run(capfd, "-v", disk, name)
    assert outcome.exit_code == 0
    assert f" written to {escaped} in " in outcome.err
    assert outcome.err.count("\n") == 1


EVIL_ARGUMENTS = [["-S", "\x1b[31m"], ["--progress", "\x1b[31m"], ["--\x1b[31m"], ["\x1b[31m"]]


@pytest.mark.parametrize("words", EVIL_ARGUMENTS, ids=ascii)
def test_argument_is_escaped(disk: str, capfd: Capture, words: list[str]) -> None:
    outcome = run(capfd, disk, "out.img", *words)
    assert outcome.exit_code == 2
    assert outcome.err.startswith("vhdx2raw: ")
    assert "\x1b" not in outcome.err


def test_a_name_that_is_no_text_is_shown_escaped(folder: Path, capfd: Capture) -> None:
    outcome = run(capfd, os.fsdecode(b"d\xffsk.vhdx"), "out.img")
    assert_prints(outcome, 8, r"d\\xffsk\.vhdx: No such file or directory")


@pytest.mark.slow
def test_name_outside_the_terminal_encoding_is_escaped(folder: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    outcome = run_program("dïsk.vhdx", "out.img", env=environment)
    assert_prints(outcome, 8, r"d.+sk\.vhdx: No such file or directory")
    assert outcome.err.isascii()


def test_a_large_sector_size_is_no_failure(folder: Path, capfd: Capture) -> None:
    spec = ImageSpec(8 * MIB, MIB, logical_sector_size=4096)
    spec.write("disk.vhdx")
    assert run(capfd, "disk.vhdx", "out.img").exit_code == 0
    assert has_expected_bytes(folder / "out.img", spec)
