"""What `apply` does to an image, and what it refuses without having written anything."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import (
    MIB,
    Block,
    BlockState,
    ImageSpec,
    make_dirty,
    same_bytes_guid,
)
from tests.support.checkpoints import checkpoint
from tests.support.cli import run
from vhdx2raw import (
    LogPolicy,
    OutputError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    Vhdx2rawError,
    convert,
)
from vhdx2raw.operations.apply import ApplyOptions, ApplyResult, apply_checkpoint
from vhdx2raw.operations.state import default_state_path, read_state
from vhdx2raw.output.in_place import InPlaceSink
from vhdx2raw.source.base import Identity

PARTIAL = BlockState.PARTIALLY_PRESENT


BASE = ImageSpec(
    4 * MIB,
    MIB,
    {0: Block(), 1: Block(), 2: Block()},
    tag="base",
    data_write_guid=same_bytes_guid(1),
)
SNAP1 = checkpoint(BASE, 1, {0: Block(PARTIAL, sector_bits={8, 9}), 1: Block(BlockState.ZERO)})
SNAP2 = checkpoint(SNAP1, 2, {3: Block(BlockState.FULLY_PRESENT)})
SMALL = checkpoint(BASE, 3, {}, virtual_disk_size=3 * MIB)
LARGE = checkpoint(BASE, 4, {4: Block(BlockState.FULLY_PRESENT)}, virtual_disk_size=6 * MIB)
STRANGER = ImageSpec(4 * MIB, MIB, {}, tag="stranger", data_write_guid=same_bytes_guid(9))


class Place:
    """A folder with a chain and the raw image of its base."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for spec in (BASE, SNAP1, SNAP2, SMALL, LARGE, STRANGER):
            spec.write(folder / f"{spec.tag}.vhdx")
        self.image = folder / "disk.img"
        self.state = Path(default_state_path(self.image))
        convert(self.path("base"), self.image, state=self.state)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.vhdx"

    def apply(self, name: str, **options: Any) -> ApplyResult:  # noqa: ANN401
        return apply_checkpoint(self.path(name), self.image, ApplyOptions(**options))

    def assert_holds(self, spec: ImageSpec) -> None:
        is_right = self.image.read_bytes() == spec.expected_disk(0, spec.virtual_disk_size)
        assert is_right
        assert read_state(str(self.state)).holds.data_write_guid == str(spec.data_write_guid)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_checkpoints_one_by_one(place: Place) -> None:
    assert place.apply("snap1").changed_ranges == 2
    place.assert_holds(SNAP1)
    place.path("base").unlink()
    place.apply("snap2")
    place.assert_holds(SNAP2)


def test_several_checkpoints_in_one_pass(place: Place) -> None:
    result = place.apply("snap2", verify=True)
    place.assert_holds(SNAP2)
    assert [Path(name).stem for name in result.files] == ["snap2", "snap1"]


def test_larger_checkpoint_makes_the_image_longer(place: Place) -> None:
    place.apply("snap4")
    place.assert_holds(LARGE)


def test_applied_checkpoint_once_more_changes_nothing(place: Place) -> None:
    place.apply("snap1")
    before = place.image.stat().st_mtime_ns
    assert place.apply("snap1").files == ()
    assert place.image.stat().st_mtime_ns == before


def test_dry_run_writes_nothing_and_counts_the_same(place: Place) -> None:
    before = place.image.read_bytes(), place.state.read_bytes()
    planned = place.apply("snap1", dry_run=True)
    assert (place.image.read_bytes(), place.state.read_bytes()) == before
    done = place.apply("snap1")
    assert (planned.changed_bytes, planned.changed_ranges) == (
        done.changed_bytes,
        done.changed_ranges,
    )
    assert done.changed_bytes == MIB + 2 * 512


def test_forced_apply_to_a_changed_image(place: Place) -> None:
    place.image.touch()
    place.apply("snap1", force=True)
    place.assert_holds(SNAP1)


def _edit_state(place: Place, **facts: object) -> None:
    place.state.write_text(json.dumps(json.loads(place.state.read_text()) | facts))


def _make_longer(place: Place) -> None:
    with place.image.open("ab") as file:
        file.write(b"more")


def _begin(place: Place, spec: ImageSpec) -> None:
    """Leave the state as an apply does that was killed."""
    facts = json.loads(place.state.read_text())
    version = {"data-write-guid": str(spec.data_write_guid), "filename": f"{spec.tag}.vhdx"}
    _edit_state(place, applying=facts["holds"] | version, work="apply")


REFUSALS: dict[str, tuple[Callable[[Place], object], str, type[Vhdx2rawError], str]] = {
    "no state": (lambda place: place.state.unlink(), "snap1", OutputError, "no state file"),
    "cut off": (
        lambda place: place.state.write_text(place.state.read_text()[:50]),
        "snap1",
        OutputError,
        "no state file, or was cut off",
    ),
    "other format": (
        lambda place: _edit_state(place, format=2),
        "snap1",
        OutputError,
        "another version of this program",
    ),
    "no number": (
        lambda place: _edit_state(place, **{"modified-ns": "now"}),
        "snap1",
        OutputError,
        "no state file, or was cut off",
    ),
    "no samples": (
        lambda place: _edit_state(place, sample=[]),
        "snap1",
        OutputError,
        "no state file, or was cut off",
    ),
    "touched": (lambda place: place.image.touch(), "snap1", OutputError, "was changed after"),
    "longer": (_make_longer, "snap1", OutputError, "has 4194308 bytes, and not 4194304"),
    "another is under way": (
        lambda place: _begin(place, SNAP1),
        "snap2",
        OutputError,
        "is being brought from .*base.vhdx .* to snap1.vhdx",
    ),
    "smaller": (lambda place: None, "snap3", OutputError, "the checkpoint has 3145728"),
    "other sectors": (
        lambda place: _edit_state(place, **{"logical-sector-size": 4096}),
        "snap1",
        OutputError,
        "sectors of 4096 bytes",
    ),
    "another disk": (
        lambda place: None,
        "stranger",
        ParentMismatchError,
        f"does not descend from .*{BASE.data_write_guid}.*; it is .*{STRANGER.data_write_guid}",
    ),
    "missing between": (
        lambda place: place.path("snap1").unlink(),
        "snap2",
        ParentNotFoundError,
        f"does not exist; .*disk.img holds .*{BASE.data_write_guid}",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSALS)
def test_refusal_writes_nothing(place: Place, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    prepare, name, error, pattern = REFUSALS[what]
    prepare(place)
    before = place.image.read_bytes()
    with pytest.raises(error, match=pattern):
        place.apply(name)
    assert place.image.read_bytes() == before
    done = run(capfd, "apply", str(place.path(name)), str(place.image))
    assert done.exit_code == (6 if issubclass(error, ParentError) else 7)
    assert re.search(pattern, done.err_lines[0])
    assert place.image.read_bytes() == before


@pytest.mark.slow
def test_older_version_of_the_image_is_no_checkpoint_of_it(place: Place) -> None:
    place.apply("snap2")
    with pytest.raises(ParentMismatchError, match="does not descend"):
        place.apply("snap1")


def _write_on(place: Place, name: str, spec: ImageSpec) -> None:
    """Write to a file what a VM that ran on adds under the same GUIDs."""
    spec.write(place.path(name))


@pytest.mark.slow
def test_checkpoint_that_was_written_on_is_put_on_once_more(place: Place) -> None:
    place.apply("snap1")
    later = checkpoint(BASE, 1, {**SNAP1.blocks, 2: Block(BlockState.FULLY_PRESENT)})
    _write_on(place, "snap1", later)
    place.path("base").unlink()
    assert place.apply("snap1").changed_ranges == 2
    place.assert_holds(later)
    assert place.apply("snap1").files == ()


def test_converted_base_that_was_written_on_is_refused(place: Place) -> None:
    _write_on(place, "base", replace(BASE, blocks={**BASE.blocks, 3: Block()}))
    with pytest.raises(OutputError, match=r"base\.vhdx: was written to after .*disk\.img was made"):
        place.apply("base")


@pytest.mark.slow
def test_applied_checkpoint_without_its_base_changes_nothing(place: Place) -> None:
    place.apply("snap2")
    for name in ("base", "snap1"):
        place.path(name).unlink()
    assert place.apply("snap2").files == ()


def test_parent_that_is_not_needed_is_accepted(place: Place) -> None:
    place.apply("snap1", parents=[place.path("base")])
    place.assert_holds(SNAP1)


def test_whole_disk_is_verified_if_the_base_is_at_hand(place: Place) -> None:
    assert place.apply("snap1", verify=True).verified_bytes == 4 * MIB


def test_changes_are_verified_without_the_base(place: Place) -> None:
    place.path("base").unlink()
    result = place.apply("snap1", verify=True)
    assert result.verified_bytes == result.changed_bytes


def _forget(_sink: object, _offset: int, _data: memoryview) -> None:
    """Lose what is written, as failing storage does."""


@pytest.mark.slow
@pytest.mark.parametrize("has_base", [True, False])
def test_lost_write_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, has_base: bool
) -> None:
    if not has_base:
        place.path("base").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(InPlaceSink, "write", _forget)
        with pytest.raises(OutputError, match="is not what was written"):
            place.apply("snap2", verify=True)
    place.apply("snap2", verify=True)
    place.assert_holds(SNAP2)


def test_checkpoint_that_changes_meanwhile_leaves_applying(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(sink: InPlaceSink) -> None:
        flush(sink)
        with place.path("snap1").open("ab") as file:
            file.write(b"more")

    flush = InPlaceSink.flush
    with monkeypatch.context() as patch:
        patch.setattr(InPlaceSink, "flush", touch)
        with pytest.raises(Vhdx2rawError, match="was changed while it was read"):
            place.apply("snap1")
    state = read_state(str(place.state))
    assert state.applying is not None
    assert state.applying.data_write_guid == str(SNAP1.data_write_guid)
    place.apply("snap1")
    place.assert_holds(SNAP1)


def test_image_of_another_disk_is_noticed_also_after_an_interruption(place: Place) -> None:
    _begin(place, SNAP1)
    convert(place.path("stranger"), place.image, force=True)
    with pytest.raises(OutputError, match="was changed after"):
        place.apply("snap1")


def test_length_is_not_taken_on_trust(place: Place) -> None:
    with place.image.open("r+b") as file:
        file.truncate(3 * MIB)
    with pytest.raises(OutputError, match="has 3145728 bytes, and not 4194304"):
        place.apply("snap1", force=True)


def test_two_runs_at_once(place: Place) -> None:
    sink = InPlaceSink(place.image, 4 * MIB)
    with pytest.raises(OutputError, match="is being changed by another run of this program"):
        place.apply("snap1")
    sink.commit()
    place.apply("snap1")
    place.assert_holds(SNAP1)


def test_state_that_another_run_wrote_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.image.read_bytes()

    def claim(path: str, size: int, *, inputs: Collection[Identity] = ()) -> InPlaceSink:
        _edit_state(place, written="just now")
        return InPlaceSink(path, size, inputs=inputs)

    monkeypatch.setattr("vhdx2raw.operations.apply.open_in_place", claim)
    with pytest.raises(OutputError, match="was changed by another run of this program just now"):
        place.apply("snap1")
    assert place.image.read_bytes() == before


@pytest.mark.parametrize("options", [{"salvage": True}, {"log_policy": LogPolicy.IGNORE}], ids=str)
def test_what_is_no_version_cannot_be_applied(place: Place, options: dict[str, Any]) -> None:
    make_dirty(replace(SNAP1, blocks={}), SNAP1).write(place.path("snap1"))
    with pytest.raises(ValueError, match="is no version of a disk"):
        place.apply("snap1", **options)


def test_name_with_braces_is_no_argument(place: Place) -> None:
    _begin(place, SNAP1)
    facts = json.loads(place.state.read_text())
    _edit_state(place, applying=facts["applying"] | {"filename": "a{b}.vhdx"})
    with pytest.raises(OutputError) as caught:
        place.apply("snap2")
    assert caught.value.hint.startswith("apply a{b}.vhdx once more, to the end")


def test_image_that_is_missing(place: Place) -> None:
    place.image.unlink()
    with pytest.raises(FileNotFoundError, match="No such file"):
        place.apply("snap1")
    assert not place.image.exists()


def test_directory_instead_of_an_image(place: Place) -> None:
    with pytest.raises(Vhdx2rawError, match="directory"):
        apply_checkpoint(
            place.path("snap1"), place.folder, ApplyOptions(state=str(place.state), force=True)
        )
