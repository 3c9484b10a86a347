"""The kernel itself refuses a call: strace lets it, at any call of the whole program."""

import errno
import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec
from tests.support.cli import MODULE, Outcome, run, run_program, small_disk
from tests.support.faults import NO_OUTPUT, NO_SPACE, OLD
from tests.support.files import has_expected_bytes, names_in, sha256_of
from tests.support.peers import needs_program, skip_unless_ci

ALL = bool(os.environ.get("VHDX2RAW_ALL_FAULTS"))
OPTIONS = ("--workers", "1", "--no-clone")

# What does the same has several names, not all of which every processor has.
READ, WRITE = "?preadv,?preadv2", "pwrite64"
SYNC, LENGTH, LINK = "fsync", "ftruncate", "?link,linkat"
RENAME, UNLINK, THREAD = "?rename,?renameat,renameat2", "?unlink,unlinkat", "clone,?clone3"
SOURCE_SYNC, OUTPUT_SYNC, FOLDER_SYNC = 1, 2, 3
"""What is synced, in this order."""


def some_of(*names: str) -> list[str]:
    """Give the first of some names, or all of them."""
    return list(names if ALL else names[:1])


@pytest.fixture(scope="module")
def strace() -> tuple[str, ...]:
    """Give the beginning of every command with strace."""
    needs_program("strace")
    probe = ["strace", "--seccomp-bpf", "-f", "-qq", "-o", os.devnull, "true"]
    tried = subprocess.run(probe, check=False, capture_output=True, text=True)
    if tried.returncode:
        skip_unless_ci(f"strace cannot be used here: {tried.stderr.strip()}")
    return ("strace", "--seccomp-bpf", "-f", "-qq")


class Place:
    """One disk, the folder of its output, and what strace saw of the last run."""

    def __init__(self, folder: Path, strace: tuple[str, ...]) -> None:
        self.source, self.outputs = folder / "disk.vhdx", folder / "outputs"
        self.target, self.log = self.outputs / "out.img", folder / "log"
        self.outputs.mkdir()
        self._strace = strace
        self.write(small_disk())

    def write(self, spec: ImageSpec) -> None:
        """Make the source anew."""
        spec.write(self.source)
        self._before = self._state()

    def _state(self) -> tuple[int, str]:
        return self.source.stat().st_mtime_ns, sha256_of(self.source)

    def convert(
        self, *words: str, trace: str, inject: str = "", on_source: bool = False
    ) -> Outcome:
        """Convert, while the calls of `trace` are watched and may fail as `inject` asks."""
        command = [*self._strace, "-o", str(self.log), "-e", f"trace={trace}"]
        command += ["-e", f"inject={trace}:{inject}"] if inject else []
        command += ["-P", str(self.source)] if on_source else []
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        outcome = run_program(
            *OPTIONS,
            *words,
            self.source,
            self.target,
            command=(*command, *MODULE),
            env=environment,
        )
        assert self._state() == self._before
        return outcome

    @property
    def seen(self) -> list[str]:
        """The calls that strace saw."""
        return self.log.read_text().splitlines()

    @property
    def injected(self) -> list[str]:
        """Those that failed because of it."""
        return [line for line in self.seen if line.endswith("(INJECTED)")]

    def assert_failed(self, outcome: Outcome, number: int, path: Path) -> None:
        """Check the exit code, the message, and that nothing is left."""
        is_output = path == self.target
        assert outcome.exit_code == (7 if is_output and number in NO_OUTPUT else 8)
        assert outcome.out == ""
        problem = os.strerror(number)
        if is_output and number in NO_OUTPUT + NO_SPACE:
            problem = f"cannot be written: {problem}"
        assert outcome.err_lines[0] == f"vhdx2raw: {path}: {problem}"
        assert all(line.startswith("vhdx2raw: hint: ") for line in outcome.err_lines[1:])
        assert names_in(self.outputs) == []

    def assert_perfect(self, outcome: Outcome) -> None:
        """Check that the output is right, as if nothing had happened."""
        assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
        assert names_in(self.outputs) == ["out.img"]
        assert has_expected_bytes(self.target, small_disk())


@pytest.fixture
def place(tmp_path: Path, strace: tuple[str, ...]) -> Place:
    """Give a disk to convert under strace."""
    return Place(tmp_path, strace)


# -- reading -------------------------------------------------------------------------------------

Refusal = tuple[str, str, int]
"""A call, the name of its errno, and which of its calls it is."""
TABLE_READS, BLOCKS = 17, 24
"""Reads of the thread that opens and closes the disk, and of the one that copies it."""
READS = [("EIO", 5), ("ESTALE", 7), ("EIO", 20)]
READ_ERRNOS = ("EIO", "ESTALE", "ENOMEM")
if ALL:
    READS = [(name, count) for name in READ_ERRNOS for count in range(1, BLOCKS + 1)]


@pytest.mark.parametrize(("name", "count"), READS)
def test_refused_read_fails_clearly(place: Place, name: str, count: int) -> None:
    if count > TABLE_READS:
        place.write(ImageSpec(BLOCKS * MIB, MIB, {index: Block() for index in range(BLOCKS)}))
    outcome = place.convert(trace=READ, inject=f"error={name}:when={count}", on_source=True)
    [line] = place.injected
    is_of_first_thread = line.split()[0] == place.seen[0].split()[0]
    assert is_of_first_thread == (count <= TABLE_READS)
    place.assert_failed(outcome, getattr(errno, name), place.source)


@pytest.mark.parametrize("name", some_of("EMFILE", "EACCES", "EIO"))
def test_refused_open_of_source_fails_clearly(place: Place, name: str) -> None:
    outcome = place.convert(trace="openat", inject=f"error={name}:when=1", on_source=True)
    assert len(place.injected) == 1
    place.assert_failed(outcome, getattr(errno, name), place.source)


# -- writing -------------------------------------------------------------------------------------

WRITES: list[Refusal] = [
    *((WRITE, "ENOSPC", 1), (WRITE, "EIO", 2), (SYNC, "EIO", OUTPUT_SYNC), (LENGTH, "EFBIG", 1)),
]
WRITE_ERRNOS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "ENOMEM", "ESTALE", "EFBIG")
if ALL:
    WRITES = [(WRITE, name, count) for name in WRITE_ERRNOS for count in (1, 2)]
    WRITES += [(SYNC, name, OUTPUT_SYNC) for name in WRITE_ERRNOS]
    WRITES += [(LENGTH, name, 1) for name in WRITE_ERRNOS]


@pytest.mark.parametrize(("call", "name", "count"), WRITES)
def test_refused_write_fails_clearly(place: Place, call: str, name: str, count: int) -> None:
    outcome = place.convert(trace=call, inject=f"error={name}:when={count}")
    assert len(place.injected) == 1
    place.assert_failed(outcome, getattr(errno, name), place.target)


def number_of(place: Place, call: str) -> int:
    """Find which call of its name opens or closes the temporary file, in a run without faults."""
    place.assert_perfect(place.convert(trace="openat,close"))
    place.target.unlink()
    lines = [line.split(maxsplit=1) for line in place.seen]
    [opening] = [index for index, (_, text) in enumerate(lines) if ".part" in text]
    process, text = lines[opening]
    end = opening
    if call == "close":
        closing = f"close({text.split()[-1]})"
        while not lines[end][1].startswith(closing):
            end += 1
    return sum(by == process and text.startswith(f"{call}(") for by, text in lines[: end + 1])


OPENINGS = some_of("EROFS", "ENOSPC", "EACCES", "EMFILE", "ENFILE", "ENOMEM", "EIO", "EDQUOT")
CLOSINGS = some_of("EIO", "EDQUOT", "ENOSPC", "EINTR")


@pytest.mark.parametrize(
    ("call", "name"),
    [("openat", name) for name in OPENINGS] + [("close", name) for name in CLOSINGS],
)
def test_refused_temporary_file_fails_clearly(place: Place, call: str, name: str) -> None:
    count = number_of(place, call)
    outcome = place.convert(trace=call, inject=f"error={name}:when={count}")
    [line] = place.injected
    assert call == "close" or ".part" in line
    place.assert_failed(outcome, getattr(errno, name), place.target)


# -- the name ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some_of("EPERM", "EIO", "ENOSPC"))
def test_without_a_link_the_file_is_renamed(place: Place, name: str) -> None:
    outcome = place.convert(trace=LINK, inject=f"error={name}:when=1")
    assert len(place.injected) == 1
    place.assert_perfect(outcome)


@pytest.mark.parametrize("name", some_of("ENOSPC", "EIO", "EROFS"))
def test_refused_final_name_fails_clearly(place: Place, name: str) -> None:
    outcome = place.convert(trace=f"{LINK},{RENAME}", inject=f"error={name}")
    assert len(place.injected) == 2
    place.assert_failed(outcome, getattr(errno, name), place.target)


def test_refused_replacement_keeps_old_file(place: Place) -> None:
    place.target.write_bytes(OLD)
    outcome = place.convert("--force", trace=RENAME, inject="error=EIO")
    assert len(place.injected) == 1
    assert outcome.exit_code == 8
    assert outcome.err == f"vhdx2raw: {place.target}: Input/output error\n"
    assert names_in(place.outputs) == ["out.img"]
    assert place.target.read_bytes() == OLD


def test_refused_removal_of_temporary_is_harmless(place: Place) -> None:
    outcome = place.convert(trace=UNLINK, inject="error=EIO")
    assert place.injected
    assert outcome.exit_code in (0, 8)
    assert len(outcome.err_lines) <= 1
    [leftover, name] = names_in(place.outputs)
    assert re.fullmatch(r"\.out\.img\.[0-9a-f]+\.part", leftover)
    assert name == "out.img"
    assert has_expected_bytes(place.target, small_disk())


@pytest.mark.parametrize("count", [SOURCE_SYNC, FOLDER_SYNC], ids=["source", "folder"])
def test_refused_sync_of_others_does_not_matter(place: Place, count: int) -> None:
    outcome = place.convert(trace=SYNC, inject=f"error=EIO:when={count}")
    assert len(place.injected) == 1
    place.assert_perfect(outcome)


# -- what is tried again -------------------------------------------------------------------------


@pytest.mark.parametrize("call", some_of(WRITE, READ, SYNC, LENGTH))
def test_an_interrupted_call_is_repeated(place: Place, call: str) -> None:
    count = OUTPUT_SYNC if call == SYNC else 1
    outcome = place.convert(trace=call, inject=f"error=EINTR:when={count}", on_source=call == READ)
    assert place.injected
    place.assert_perfect(outcome)


def test_refused_threads_leave_nothing(place: Place) -> None:
    outcome = place.convert(trace=THREAD, inject="error=EAGAIN")
    assert place.injected
    assert outcome.exit_code in (8, 70)
    assert "Traceback" not in outcome.err
    assert names_in(place.outputs) == []


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["EINTR", *some_of("EIO", "EPIPE", "ENOSPC")])
def test_refused_write_to_stream_fails_clearly(
    place: Place, strace: tuple[str, ...], name: str
) -> None:
    inject = ("-e", "trace=write", "-e", f"inject=write:error={name}:when=2")
    command = (*strace, "-o", str(place.log), *inject, *MODULE)
    with place.target.open("wb") as stream:
        outcome = run_program(place.source, "-", command=command, stdout=stream)
    assert len(place.injected) == 1
    if name == "EINTR":
        place.assert_perfect(outcome)
        return
    assert outcome.exit_code == (7 if name == "EPIPE" else 8)
    assert os.strerror(getattr(errno, name)) in outcome.err_lines[0]
    assert outcome.err.startswith("vhdx2raw: standard output: ")


# -- limits of the process -----------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 1], ids=["source", "output"])
def test_too_many_open_files_fail_clearly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: int
) -> None:
    """The limit of `ulimit -n` is met when the source is opened, or when the output is made."""
    source, target = tmp_path / "disk.vhdx", tmp_path / "out.img"
    small_disk().write(source)
    assert run(capfd, source, "null:").exit_code == 0  # everything is imported
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, hard))
    try:
        outcome = run(capfd, source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    refused = target if more else source
    assert (outcome.exit_code, outcome.out) == (8, "")
    assert outcome.err == f"vhdx2raw: {refused}: Too many open files\n"
    assert names_in(tmp_path) == ["disk.vhdx"]
