"""The host fails at any call of `apply` and of an update; the same command then ends right.

Every call that the package makes is spoiled in its turn, as in test_faults.py.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB
from tests.support.checkpoints import BASE, CHILD
from tests.support.cli import Outcome, run
from tests.support.faults import Fault, Host, errnos_of, fails, leave_out_syncs
from tests.support.files import names_in
from vhdx2raw import convert
from vhdx2raw.operations.state import default_state_path

ALL = bool(os.environ.get("VHDX2RAW_ALL_FAULTS"))
COMMANDS = {
    "apply": ["apply", "--verify", "child.avhdx", "disk.img"],
    "update": ["--update", "child.avhdx", "disk.img"],
}
NEEDED = {
    *("pwrite output", "fsync output", "ftruncate output", "pwrite temporary", "fsync temporary"),
    *("replace temporary", "open output", "preadv source", "open temporary"),
}
"""What each command calls at least; so it can be spoiled."""
Capture = pytest.CaptureFixture[str]


class Stage:
    """A checkpoint, its base and the image of the base, on which commands are run."""

    def __init__(self, words: list[str], capfd: Capture) -> None:
        self.words = words
        self._capfd = capfd
        BASE.write("base.vhdx")
        CHILD.write("child.avhdx")
        self._expected = CHILD.expected_disk(0, 4 * MIB)

    def play(self, *faults: Fault) -> tuple[Outcome, Host]:
        """Run the command on a fresh image of the base."""
        state = default_state_path("disk.img")
        for path in ("disk.img", state):  # to replace a file takes a file system longer
            Path(path).unlink(missing_ok=True)
        convert("base.vhdx", "disk.img", sync=False, state=state)
        host = Host(faults)
        with host.installed():
            outcome = run(self._capfd, *self.words)
        return outcome, host

    def assert_right(self) -> None:
        is_right = Path("disk.img").read_bytes() == self._expected
        assert is_right

    def assert_ends_right(self) -> None:
        """Run the same command again without a fault."""
        outcome = run(self._capfd, *self.words)
        assert (outcome.exit_code, outcome.err) == (0, "")
        self.assert_right()
        names = ["base.vhdx", "child.avhdx", "disk.img", "disk.img.state.json"]
        assert [name for name in names_in(Path()) if ".part" not in name] == names


def numbered(calls: list[str]) -> Iterator[tuple[str, int]]:
    """Give each kind of call, with the numbers of those to spoil: a few of many, or all."""
    for call, count in Counter(calls).items():
        most = 4 if call.startswith(("pread", "lseek")) else 8
        step = 1 if ALL else max(1, count // most)
        for number in range(1, count + 1, step):
            yield call, number


@pytest.mark.parametrize("name", COMMANDS)
def test_any_failing_call_is_made_good_by_the_same_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    leave_out_syncs(monkeypatch)
    stage = Stage(
        [*COMMANDS[name], "--workers", "1"] if name == "update" else COMMANDS[name], capfd
    )
    outcome, host = stage.play()
    assert outcome.exit_code == 0
    assert set(host.calls) >= NEEDED
    failed = 0
    for call, number in numbered(host.calls):
        for errno in errnos_of(call)[: None if ALL else 1]:
            outcome, spoiled = stage.play(Fault(call, number, fails(errno)))
            where = f"{call}, number {number}, errno {errno}: {outcome.err}"
            if not spoiled.injected:  # threads make the number of some calls differ
                continue
            assert outcome.exit_code in (0, 4, 6, 7, 8), where
            assert "Traceback" not in outcome.err, where
            if outcome.exit_code == 0:
                stage.assert_right()
            else:
                failed += 1
                assert outcome.err.startswith("vhdx2raw: "), where
            stage.assert_ends_right()
    assert failed > len(NEEDED)
