"""What `apply` does to an image, and what it refuses without having written anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, same_bytes_guid
from vhdx2raw import OutputError, ParentMismatchError, ParentNotFoundError, Vhdx2rawError, convert
from vhdx2raw.operations.apply import ApplyOptions, ApplyResult, apply_checkpoint
from vhdx2raw.operations.state import default_state_path, read_state

PARTIAL = BlockState.PARTIALLY_PRESENT


def checkpoint(
    parent: ImageSpec,
    number: int,
    blocks: dict[int, Block],
    **fields: Any,  # noqa: ANN401 - those of ImageSpec
) -> ImageSpec:
    """Describe the checkpoint of a parent, in a file that is called after its number."""
    fields = {"virtual_disk_size": parent.virtual_disk_size, "block_size": MIB} | fields
    return child_of(
        parent,
        f".\\{parent.tag}.vhdx",
        blocks=blocks,
        tag=f"snap{number}",
        data_write_guid=same_bytes_guid(number + 1),
        **fields,
    )


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


def _begin_another(place: Place) -> None:
    facts = json.loads(place.state.read_text())
    version = {"data-write-guid": str(SNAP1.data_write_guid), "filename": "snap1.vhdx"}
    _edit_state(place, applying=facts["holds"] | version, work="apply")


REFUSALS = {
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
    "touched": (lambda place: place.image.touch(), "snap1", OutputError, "was changed after"),
    "longer": (_make_longer, "snap1", OutputError, "has 4194308 bytes, and not 4194304"),
    "another is under way": (
        _begin_another,
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


@pytest.mark.parametrize("what", REFUSALS)
def test_refusal_writes_nothing(place: Place, what: str) -> None:
    prepare, name, error, pattern = REFUSALS[what]
    prepare(place)
    before = place.image.read_bytes()
    with pytest.raises(error, match=pattern) as caught:
        place.apply(name)
    assert isinstance(caught.value, Vhdx2rawError)
    assert place.image.read_bytes() == before


def test_older_version_of_the_image_is_no_checkpoint_of_it(place: Place) -> None:
    place.apply("snap2")
    with pytest.raises(ParentMismatchError, match="does not descend"):
        place.apply("snap1")


def test_directory_instead_of_an_image(place: Place) -> None:
    with pytest.raises((OutputError, Vhdx2rawError), match="directory"):
        apply_checkpoint(
            place.path("snap1"), place.folder, ApplyOptions(state=str(place.state), force=True)
        )
