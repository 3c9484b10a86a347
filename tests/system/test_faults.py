"""The host fails at any call: the bytes are right, or the failure is clear and nothing is left.

Faults are put into this process here, at every call that the package makes; the kernel itself
fails in test_faults_kernel.py and test_faults_devices.py.
"""

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB
from tests.support.cli import Outcome, run_program
from tests.support.faults import (
    NO_OUTPUT,
    OLD,
    OUTPUTS,
    SCENES,
    Fault,
    Stage,
    comes_after,
    errnos_of,
    fails,
    fails_afterwards,
    is_short,
    leave_out_syncs,
)
from tests.support.files import names_in
from vhdx2raw.cli.record import program

ALL = bool(os.environ.get("VHDX2RAW_ALL_FAULTS"))
"""Whether every errno is tried at every call, and every call in every way."""

Capture = pytest.CaptureFixture[str]

PATHS = {
    "plain": {
        *("open source", "fstat source", "lseek source", "preadv source", "fsync source"),
        *("find_hole source", "scandir folder"),
        *("lstat output", "stat output", "open temporary", "ftruncate temporary"),
        *("ioctl temporary", "pwrite temporary", "fsync temporary", "close temporary"),
        *("link temporary", "unlink temporary"),
        *("open folder", "fsync folder", "close folder", "close source"),
    },
    "replacing": {"lstat output", "replace temporary", "fsync temporary", "stat output"},
    "everything": {"pwrite temporary", "link temporary"},
    "chain": {"preadv source", "preadv parent", "iterdir folder", "stat parent"},
    "no hard links": {"link temporary", "rename temporary"},
    "stream": {"open source", "fstat stdout", "write stdout", "preadv source"},
}
"""What each scene calls at least; so it can be spoiled."""

HARMLESS = {
    *("close source", "close parent", "ioctl temporary", "link temporary"),
    *("open folder", "fsync folder", "close folder", "unlink temporary"),
    *("open other", "close other"),  # once more, to write past the page cache
    *("fsync source", "fsync parent"),  # so that a later write to it is noticed
    *("find_hole source", "find_hole parent"),
    *("posix_fadvise source", "posix_fadvise parent"),  # to read ahead
    "scandir folder",  # only to warn of checkpoints
}
"""Nothing is lost if these fail: there is another way, or the work is done."""
HIDDEN = {"lstat", "readlink", "stat"}
"""Python hides failures of these; then the bytes are right, or a later call fails."""


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> str:
    """Give the name of a scene, one after the other."""
    return str(request.param)


@pytest.fixture
def stage(
    scene: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Give the stage of a scene, whose sources must be as they were in the end."""
    leave_out_syncs(monkeypatch)
    program()  # what it is called is looked up once in a process, in folders of Python's own
    stage = Stage(SCENES[scene], tmp_path, capfd)
    yield stage
    stage.assert_sources_untouched()


def numbered(calls: list[str]) -> Iterator[tuple[str, int]]:
    """Give each call its number among those that are alike, from 1 on."""
    counts: Counter[str] = Counter()
    for what in calls:
        counts[what] += 1
        yield what, counts[what]


def recorded(stage: Stage) -> list[tuple[str, int]]:
    """Find every call of a run in which nothing goes wrong, with its number."""
    host, outcome = stage.play()
    stage.assert_clean(outcome)
    assert outcome.exit_code == 0
    return list(numbered(host.calls))


def numbers_for(what: str, count: int) -> list[int]:
    """Choose errnos for a call: a few for the first of its kind, another one for each later."""
    numbers = errnos_of(what)
    if ALL:
        return numbers
    return numbers[:3] if count == 1 else [numbers[count % len(numbers)]]


def ends_of(calls: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Choose the first, second and last call of each kind."""
    last = dict(calls)
    return calls if ALL else [(what, count) for what, count in calls if count in (1, 2, last[what])]


def codes_for(what: str, number: int) -> set[int]:
    """Give the exit codes that a failed call may end with."""
    call, target = what.split()
    if what in HARMLESS or (what, number) == ("write stdout", errno.EAGAIN):  # which is waited for
        return {0}
    if call in HIDDEN:
        return {0, 6, 7, 8}
    if target == "source":
        return {8}
    if target == "parent" or call in ("iterdir", "listdir"):
        return {6, 8}  # as a parent that is not where it should be, or later, while it is copied
    return {7} if number in NO_OUTPUT else {8}


def assert_reported(outcome: Outcome, stage: Stage, what: str, number: int) -> None:
    """Check that a failure is reported with its reason and the file."""
    assert outcome.exit_code in codes_for(what, number)
    if outcome.exit_code and what.split(maxsplit=1)[0] not in HIDDEN:
        assert os.strerror(number) in outcome.err_lines[0]
    if outcome.exit_code:
        names = [str(path) for path in (*stage.sources, stage.target)] + ["standard output"]
        assert any(name in outcome.err_lines[0] for name in names)


# -- a call that fails once ----------------------------------------------------------------------


def test_every_kind_of_call_is_seen(stage: Stage, scene: str) -> None:
    """Without this, a fault that is never injected would pass for one that is borne."""
    calls = {what for what, _ in recorded(stage)}
    assert calls >= PATHS[scene]


def test_every_call_fails_clearly_or_does_not_matter(stage: Stage, scene: str) -> None:
    tried = 0
    for what, count in recorded(stage):
        if what.endswith("source") and scene not in ("plain", "chain") and not ALL:
            continue  # reading goes the same way in all scenes
        for number in numbers_for(what, count):
            host, outcome = stage.play(Fault(what, count, fails(number)))
            note = f"{what} number {count} fails with {errno.errorcode[number]}: {outcome}"
            try:
                assert host.injected >= 1
                stage.assert_clean(outcome)
                assert_reported(outcome, stage, what, number)
                if what == "unlink temporary":
                    # The output has its name already; the other one is left to the user.
                    assert stage.is_perfect
                    assert len(stage.leftovers) == 1
                elif outcome.exit_code and what != "stat output":
                    stage.assert_kept_nothing(outcome)
                else:
                    assert stage.is_perfect or stage.is_as_before
                    assert stage.leftovers == []
            except AssertionError as error:
                raise AssertionError(note) from error
            tried += 1
    assert tried >= 10


@pytest.mark.parametrize("scene", ["plain", "chain", "stream"])
def test_failure_on_open_file_names_the_file(stage: Stage) -> None:
    injected = 0
    for what, count in recorded(stage):
        if what.split()[0] in ("fstat", "lseek"):
            host, outcome = stage.play(Fault(what, count, fails(errno.ESTALE)))
            assert host.injected == 1
            names = [str(path) for path in stage.sources] + ["standard output"]
            assert any(f"{name}: " in outcome.err for name in names), f"{what} {count}: {outcome}"
            injected += 1
    assert injected


@pytest.mark.parametrize("scene", ["plain", "chain"])
def test_unreadable_source_is_not_called_changed(stage: Stage) -> None:
    injected = 0
    for what, count in recorded(stage):
        if what.startswith("pread"):
            host, outcome = stage.play(Fault(what, count, fails(errno.EIO)))
            assert host.injected == 1
            assert "was changed" not in outcome.err, f"{what} {count}: {outcome}"
            injected += 1
    assert injected


def test_false_failure_leaves_nothing_half_done(
    stage: Stage,
) -> None:
    """As at a file server whose reply got lost."""
    injected = 0
    for what, count in ends_of(recorded(stage)):
        if what.startswith(("open", "fstat", "lseek", "pread")) or what.endswith("stdout"):
            continue  # these have no effect on a file
        host, outcome = stage.play(Fault(what, count, fails_afterwards(errno.EIO)))
        note = f"{what} number {count}: {outcome}"
        assert host.injected >= 1, note
        stage.assert_clean(outcome)
        assert outcome.exit_code in (0, 6, 7, 8), note
        assert stage.is_perfect or stage.is_as_before, note
        assert stage.leftovers == [], note
        injected += 1
    assert injected


# -- a host that stays broken --------------------------------------------------------------------


@pytest.mark.parametrize("disk", ["output", "source"])
def test_dead_disk_fails_clearly_from_any_call_on(stage: Stage, disk: str) -> None:
    """Pulled out, or its server is gone: then nothing can be cleaned up, either."""
    host, _ = stage.play()
    count = sum((what.split()[1] in OUTPUTS) == (disk == "output") for what in host.calls)
    assert count > 3
    for number in range(1, count + 1, 1 if ALL else 3):
        death = Fault(f"* {disk}", number, fails(errno.EIO), stays=True)
        host, outcome = stage.play(death)
        note = f"from call {number} on: {outcome}"
        assert host.injected >= 1, note
        stage.assert_clean(outcome)
        assert outcome.exit_code in (0, 6, 8), note
        assert stage.is_perfect or stage.is_as_before or stage.target.name == ".stdout", note
        assert all(name.endswith(".part") for name in stage.leftovers), note


STUCK = Fault("unlink temporary", 1, fails(errno.EIO), stays=True)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("scene", ["plain", "replacing"])
def test_unremovable_temporary_is_all_that_is_left(stage: Stage, number: int) -> None:
    """Nor does it hide the failure because of which it is removed."""
    host, outcome = stage.play(STUCK, Fault("pwrite temporary", 1, fails(number)))
    assert host.injected >= 2
    stage.assert_clean(outcome)
    assert outcome.exit_code == 8
    assert os.strerror(number) in outcome.err_lines[0]
    assert stage.is_as_before
    [leftover] = stage.leftovers
    assert leftover.startswith(".out.img.")
    assert leftover.endswith(".part")


# -- reads and writes that do less than they were asked to ---------------------------------------


@pytest.mark.parametrize("limit", [1, 513] if ALL else [513])
def test_one_short_read_or_write_does_not_matter(stage: Stage, limit: int) -> None:
    tried = 0
    for what, count in ends_of(recorded(stage)):
        if what.split()[0] in ("pread", "preadv", "pwrite", "write"):
            host, outcome = stage.play(Fault(what, count, is_short(limit)))
            assert (outcome.exit_code, host.injected) == (0, 1), f"{what} {count}: {outcome}"
            stage.assert_clean(outcome)
            tried += 1
    assert tried >= 3


@pytest.mark.parametrize("what", ["source", "output", "both"] if ALL else ["both"])
def test_only_short_reads_and_writes_do_not_matter(stage: Stage, what: str) -> None:
    slow = [
        Fault(f"{call} {target}", 1, is_short(10007), stays=True)
        for call, target in (
            *(("preadv", "source"), ("preadv", "parent")),
            *(("pwrite", "temporary"), ("write", "stdout")),
        )
        if what == "both" or (what == "source") == (target in ("source", "parent"))
    ]
    host, outcome = stage.play(*slow)
    assert host.injected > 50
    stage.assert_clean(outcome)
    assert outcome.exit_code == 0


def test_a_write_that_takes_nothing_is_repeated(stage: Stage, scene: str) -> None:
    call = "write stdout" if scene == "stream" else "pwrite temporary"
    host, outcome = stage.play(Fault(call, 2, is_short(0)))
    assert (outcome.exit_code, host.injected >= 1) == (0, True)
    stage.assert_clean(outcome)


# -- what other programs do meanwhile ------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES if ALL else ["plain", "chain", "stream"])
@pytest.mark.parametrize("size", [0, MIB, -1], ids=["to nothing", "to 1 MiB", "by a byte"])
def test_source_that_shrinks_is_truncated(stage: Stage, size: int) -> None:
    """It is never taken for zeros; what was read before may be all that is needed."""
    reads = [
        (what, count)
        for what, count in ends_of(recorded(stage))
        if what.startswith("pread") and what.endswith("source")
    ]
    whole = stage.sources[0].stat().st_size
    codes = set()
    for what, count in reads:

        def shrink() -> None:
            os.truncate(stage.sources[0], size if size >= 0 else whole + size)

        host, outcome = stage.play(Fault(what, count, comes_after(shrink)))
        note = f"before {what} number {count}: {outcome}"
        assert host.injected == 1, note
        codes.add(outcome.exit_code)
        if outcome.exit_code == 0:
            assert size, note
            assert stage.is_perfect, note
        else:
            # A read behind the new end is one of a file that was cut off; the last look at the
            # headers, when all was read, is there to find changes.
            is_last_look = "was changed while it was read" in outcome.err
            assert outcome.exit_code == (9 if is_last_look else 5), note
            assert len(outcome.err_lines) <= 2, note
            assert str(stage.sources[0]) in outcome.err, note
            stage.assert_kept_nothing(outcome)
        stage.write_sources_anew()
    assert 5 in codes


@pytest.mark.parametrize("scene", ["plain", "replacing", "no hard links"])
@pytest.mark.parametrize("moment", ["pwrite temporary", "fsync temporary", "close temporary"])
def test_removed_output_folder_fails_clearly(stage: Stage, moment: str) -> None:
    def remove() -> None:
        for path in stage.outputs.iterdir():
            path.unlink()
        stage.outputs.rmdir()

    host, outcome = stage.play(Fault(moment, 1, comes_after(remove)))
    assert host.injected >= 1
    stage.assert_clean(outcome)
    assert outcome.exit_code == 7
    assert outcome.err_lines == [
        f"vhdx2raw: {stage.target}: cannot be written: No such file or directory",
        "vhdx2raw: hint: the folder does not exist; make it first",
    ]
    assert not stage.outputs.exists()


@pytest.mark.parametrize("scene", ["plain", "replacing", "no hard links"])
def test_removed_temporary_fails_clearly(stage: Stage) -> None:
    def remove() -> None:
        for path in stage.outputs.glob(".*.part"):
            path.unlink()

    host, outcome = stage.play(Fault("close temporary", 1, comes_after(remove)))
    assert host.injected >= 1
    stage.assert_clean(outcome)
    assert outcome.exit_code == 7
    stage.assert_kept_nothing(outcome)


@pytest.mark.parametrize("scene", ["plain", "no hard links"])
def test_output_made_meanwhile_is_kept(stage: Stage) -> None:
    host, outcome = stage.play(
        Fault("close temporary", 1, comes_after(lambda: stage.target.write_bytes(OLD)))
    )
    assert host.injected >= 1
    stage.assert_clean(outcome)
    assert outcome.exit_code == 7
    assert "exists already" in outcome.err_lines[0]
    assert stage.target.read_bytes() == OLD
    assert stage.leftovers == []


# -- memory --------------------------------------------------------------------------------------

OUT_OF_MEMORY = """\
import sys
from importlib import import_module
from vhdx2raw.cli import main

def page_aligned(_size):
    print("out of memory")
    raise MemoryError

import_module("vhdx2raw.cli.commands.convert.command")
import_module("vhdx2raw.host").page_aligned = page_aligned
sys.exit(main(sys.argv[1:]))
"""
"""The buffers of the threads cannot be had."""


@pytest.mark.parametrize("scene", ["plain"])
def test_a_lack_of_memory_ends_the_run(stage: Stage) -> None:
    stage.play()
    stage.target.unlink()
    command = (sys.executable, "-c", OUT_OF_MEMORY)
    outcome = run_program("--workers", "2", stage.sources[0], stage.target, command=command)
    assert "out of memory" in outcome.out
    assert outcome.exit_code in (8, 70)
    assert "Traceback" not in outcome.err
    assert names_in(stage.outputs) == []


# -- several threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("scene", ["plain", "everything", "chain"])
@pytest.mark.parametrize("what", ["preadv source", "pwrite temporary"])
def test_failure_in_one_thread_ends_all(stage: Stage, what: str) -> None:
    for count in (1, 2):
        host, outcome = stage.play(Fault(what, count, fails(errno.EIO)), workers=4)
        assert host.injected == 1
        stage.assert_clean(outcome)
        assert_reported(outcome, stage, what, errno.EIO)
        stage.assert_kept_nothing(outcome)
