"""An image is brought up to date in place: right bytes, and only what differs is written."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given

from tests.support.builder import KIB, MIB, Block, ImageSpec, same_bytes_guid
from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains
from vhdx2raw import ConversionResult, OutputError, convert
from vhdx2raw.operations.state import default_state_path, read_state
from vhdx2raw.output.in_place import InPlaceSink

OLD = ImageSpec(
    4 * MIB,
    MIB,
    {0: Block(), 1: Block(content=b"old"), 2: Block()},
    data_write_guid=same_bytes_guid(1),
)
NEW = ImageSpec(
    4 * MIB,
    MIB,
    {0: Block(), 1: Block(content={0: b"old" * 1365 + b"n", 64 * KIB: b"new"}), 3: Block()},
    data_write_guid=same_bytes_guid(2),
)


class Place:
    """An old disk as an image, and the new disk."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new, self.image = folder / "old.vhdx", folder / "new.vhdx", folder / "x.img"
        self.state = Path(default_state_path(self.image))
        OLD.write(self.old)
        NEW.write(self.new)
        convert(self.old, self.image, state=self.state)

    def update(self, **options: Any) -> ConversionResult:  # noqa: ANN401
        return convert(self.new, self.image, update=True, **options)

    def assert_is_new(self) -> None:
        is_right = self.image.read_bytes() == NEW.expected_disk(0, NEW.virtual_disk_size)
        assert is_right


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"verify": True}, {"hash_algorithm": "sha256"}, {"sparse_size": 0}],
    ids=str,
)
def test_image_becomes_the_new_disk(place: Place, options: dict[str, Any]) -> None:
    place.update(**options)
    place.assert_is_new()
    assert read_state(str(place.state)).holds.data_write_guid == str(NEW.data_write_guid)


def test_only_what_differs_is_written(place: Place) -> None:
    differing = sum(
        OLD.expected_disk(start, 4 * KIB) != NEW.expected_disk(start, 4 * KIB)
        for start in range(0, 4 * MIB, 4 * KIB)
    )
    assert place.update().written_bytes == differing * 4 * KIB
    assert place.update().written_bytes == 0


def test_image_without_state_takes_force(place: Place) -> None:
    place.state.unlink()
    before = place.image.read_bytes()
    with pytest.raises(OutputError, match="has no state file, so what it holds is unknown"):
        place.update()
    assert place.image.read_bytes() == before
    place.update(force=True)
    place.assert_is_new()
    assert not place.state.exists()


def test_forced_update_can_begin_a_state(place: Place) -> None:
    place.state.unlink()
    place.update(force=True, state=place.state)
    assert read_state(str(place.state)).holds.data_write_guid == str(NEW.data_write_guid)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "force"), [(3 * MIB, True), (0, True)])
def test_shorter_image_becomes_longer(place: Place, size: int, *, force: bool) -> None:
    os.truncate(place.image, size)
    with pytest.raises(OutputError, match=rf"has {size} bytes, and not 4194304"):
        place.update()
    place.update(force=force)
    place.assert_is_new()


def test_longer_image_is_refused(place: Place) -> None:
    os.truncate(place.image, 5 * MIB)
    with pytest.raises(OutputError, match="is longer than the disk"):
        place.update(force=True)


def test_image_that_is_missing_is_refused(place: Place) -> None:
    place.image.unlink()
    with pytest.raises(OutputError, match="does not exist"):
        place.update(force=True)


def test_changed_image_takes_force(place: Place) -> None:
    with place.image.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(OutputError, match="was changed after"):
        place.update()
    place.update(force=True)
    place.assert_is_new()


def test_image_with_an_apply_under_way_is_refused(place: Place) -> None:
    facts = json.loads(place.state.read_text())
    place.state.write_text(json.dumps(facts | {"applying": facts["holds"], "work": "apply"}))
    with pytest.raises(OutputError, match=r"is being brought from .*old.vhdx .* to .*old.vhdx"):
        place.update(force=True)


def test_interrupted_update_says_so_and_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(InPlaceSink, "flush", _fail)
        with pytest.raises(OSError, match="flush") as caught:
            place.update()
    assert "is a mixture of two disks" in caught.value.__notes__[0]
    state = read_state(str(place.state))
    assert state.applying is not None
    assert (state.applying.filename, state.work) == (str(place.new), "update")
    with pytest.raises(OutputError, match="is being brought"):
        convert(place.old, place.image, update=True)
    place.update()
    place.assert_is_new()


def _fail(_sink: object) -> None:
    raise OSError(5, "flush")


@pytest.mark.parametrize("option", ["allow_changed", "target_is_zero"])
def test_options_that_contradict_an_update(place: Place, option: str) -> None:
    with pytest.raises(ValueError, match="update"):
        place.update(**{option: True})


@pytest.mark.slow
@cases(30)
@given(before=chains(), after=chains())
def test_any_image_becomes_any_disk(before: RandomChain, after: RandomChain) -> None:
    with TemporaryDirectory() as name:
        folders = [Path(name, "before"), Path(name, "after")]
        for folder, chain in zip(folders, (before, after), strict=True):
            folder.mkdir()
            for spec, file in zip(chain.specs, chain.files, strict=True):
                file.write(folder / f"{spec.tag}.vhdx")
        tops = [
            folder / f"{chain.specs[0].tag}.vhdx"
            for folder, chain in zip(folders, (before, after), strict=True)
        ]
        image, spec = Path(name, "disk.img"), after.specs[0]
        convert(tops[0], image)
        if image.stat().st_size > spec.virtual_disk_size:
            os.truncate(image, spec.virtual_disk_size)
        convert(tops[1], image, update=True, force=True)
        is_right = image.read_bytes() == spec.expected_disk(0, spec.virtual_disk_size)
        assert is_right
