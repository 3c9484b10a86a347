"""`vhdx2raw apply`: what it prints, its exit codes, and the way from one checkpoint to the next."""

import json
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, same_bytes_guid
from tests.support.checkpoints import checkpoint
from tests.support.cli import run
from tests.support.files import names_in
from tests.support.schemas import validator_of
from vhdx2raw.output.resumable_file import ResumableFileSink

pytestmark = pytest.mark.slow

VALIDATOR = validator_of("apply")
BASE = ImageSpec(
    4 * MIB, MIB, {0: Block(), 1: Block()}, tag="base", data_write_guid=same_bytes_guid(1)
)
SNAP = checkpoint(
    BASE, 1, {1: Block(BlockState.ZERO), 2: Block(BlockState.FULLY_PRESENT)}, tag="snap"
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(folder: Path, capfd: Capture) -> Path:
    """Give the current folder, with a chain and the image of its base."""
    BASE.write("base.vhdx")
    SNAP.write("snap.avhdx")
    assert run(capfd, "--save-state", "base.vhdx", "disk.img").exit_code == 0
    return folder


def test_checkpoint_is_applied_silently(place: Path, capfd: Capture) -> None:
    done = run(capfd, "apply", "snap.avhdx", "disk.img")
    assert (done.exit_code, done.out, done.err) == (0, "", "")
    is_right = Path("disk.img").read_bytes() == SNAP.expected_disk(0, 4 * MIB)
    assert is_right
    assert sorted(names_in(place)) == [
        "base.vhdx",
        "disk.img",
        "disk.img.state.json",
        "snap.avhdx",
    ]


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--verify"]], ids=str)
def test_json_fits_the_schema(place: Path, capfd: Capture, options: list[str]) -> None:
    done = run(capfd, "apply", "--json", *options, "snap.avhdx", "disk.img")
    facts = json.loads(done.out)
    VALIDATOR.validate(facts)
    assert facts["changed-size"] == 2 * MIB
    assert facts["changed-ranges"] == 1
    holds = BASE if options == ["--dry-run"] else SNAP
    assert facts["holds"]["data-write-guid"] == str(holds.data_write_guid)


def test_verbose_prints_what_was_changed(place: Path, capfd: Capture) -> None:
    planned = run(capfd, "apply", "-v", "--dry-run", "snap.avhdx", "disk.img").err
    assert "snap.avhdx: would change 2 MiB of disk.img in 1 range " in planned
    assert "changed 2 MiB" in run(capfd, "apply", "-v", "snap.avhdx", "disk.img").err
    assert "holds it already" in run(capfd, "apply", "-v", "snap.avhdx", "disk.img").err


def test_state_in_another_place(place: Path, capfd: Capture) -> None:
    Path("disk.img.state.json").rename("elsewhere.json")
    assert run(capfd, "apply", "snap.avhdx", "disk.img").exit_code == 7
    assert run(capfd, "apply", "--state", "elsewhere.json", "snap.avhdx", "disk.img").exit_code == 0


def test_state_of_conversion_in_a_named_file(place: Path, capfd: Capture) -> None:
    run(capfd, "--state", "state.json", "base.vhdx", "other.img")
    assert json.loads(Path("state.json").read_text())["virtual-disk-size"] == 4 * MIB
    assert not Path("other.img.state.json").exists()


@pytest.mark.parametrize("target", ["-", "null:"])
def test_no_state_of_what_does_not_stay(place: Path, capfd: Capture, target: str) -> None:
    done = run(capfd, "--save-state", "base.vhdx", target)
    assert done.exit_code == 2
    assert "need a DST that stays" in done.err


def test_refusals_by_exit_code(place: Path, capfd: Capture) -> None:
    other = run(capfd, "apply", "snap.avhdx", "other.img")
    assert other.exit_code == 7
    assert "other.img.state.json: there is no state file" in other.err
    assert "--save-state" in other.err
    run(capfd, "apply", "snap.avhdx", "disk.img")
    back = run(capfd, "apply", "base.vhdx", "disk.img")
    assert back.exit_code == 6
    assert "base.vhdx: does not descend from what disk.img holds" in back.err
    Path("disk.img").touch()
    changed = run(capfd, "apply", "snap.avhdx", "disk.img")
    assert changed.exit_code == 7
    assert "disk.img: was changed after disk.img.state.json was written" in changed.err
    assert "--force" in changed.err


def test_ignored_log_is_no_version(place: Path, capfd: Capture) -> None:
    done = run(capfd, "apply", "--ignore-log", "snap.avhdx", "disk.img")
    assert done.exit_code == 2
    assert "is no version of a disk" in done.err


# -- what convert takes ---------------------------------------------------------------------------


def test_each_output_of_a_batch_has_its_state(place: Path, capfd: Capture) -> None:
    done = run(
        capfd, "batch", "--all", "--save-state", "--output-dir", "raw", "base.vhdx", "snap.avhdx"
    )
    assert done.exit_code == 0
    names = ["base.img", "base.img.state.json", "snap.img", "snap.img.state.json"]
    assert sorted(names_in(place / "raw")) == names


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--save-state", "--salvage"], "need one version of a disk"),
        (["--update", "--ignore-log"], "need one version of a disk"),
        (["--state", "s.json", "--allow-changed"], "need one version of a disk"),
        (["--update", "--target-is-zero"], "contradict each other"),
        (["--update", "--resume"], "--resume fits neither"),
        (["--resume", "--salvage"], "--resume would forget"),
    ],
    ids=str,
)
def test_contradictions(place: Path, capfd: Capture, words: list[str], problem: str) -> None:
    done = run(capfd, *words, "base.vhdx", "other.img")
    assert done.exit_code == 2
    assert problem in " ".join(done.err.split())
    assert "other.img" not in names_in(place)


@pytest.mark.parametrize("target", ["-", "null:"])
@pytest.mark.parametrize("option", ["--update", "--resume"])
def test_what_does_not_stay(place: Path, capfd: Capture, option: str, target: str) -> None:
    done = run(capfd, option, "base.vhdx", target)
    assert done.exit_code == 2
    assert "need" in done.err


def test_update_says_how_much_was_written(place: Path, capfd: Capture) -> None:
    done = run(capfd, "--update", "-v", "snap.avhdx", "disk.img")
    assert (done.exit_code, done.out) == (0, "")
    assert "2 MiB written to disk.img" in done.err


def test_update_without_state_takes_force(place: Path, capfd: Capture) -> None:
    Path("disk.img.state.json").unlink()
    done = run(capfd, "--update", "snap.avhdx", "disk.img")
    assert done.exit_code == 7
    assert "disk.img: has no state file, so what it holds is unknown" in done.err
    assert "--force" in done.err


def test_resumed_conversion_fits_the_schema(
    place: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_sink: object, _offset: int, _data: memoryview) -> None:
        raise OSError(5, "the share is lost")

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFileSink, "write", fail)
        assert run(capfd, "--resume", "base.vhdx", "new.img").exit_code == 8
    Path("base.vhdx").touch()
    done = run(capfd, "--resume", "--json", "-v", "base.vhdx", "new.img")
    validator_of("convert").validate(json.loads(done.out))
    assert json.loads(done.out)["resumed-size"] == 0
    assert "new.img: begun anew: the source, or a parent of it, is not as it was" in done.err
