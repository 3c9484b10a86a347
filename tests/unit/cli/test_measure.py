"""`vhdx2raw measure`: its lines, its JSON, and many images."""

import json
import os
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.chains import base_disk
from tests.support.cli import run
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]
ONE = ImageSpec(3 * MIB, MIB, {1: Block()})
SIZES = {"required": 3 * MIB, "fully-allocated": 3 * MIB, "sparse": MIB}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current folder, with two sound disks and a broken one."""
    monkeypatch.chdir(tmp_path)
    ONE.write(tmp_path / "one.vhdx")
    base_disk().write(tmp_path / "base.vhdx")
    ONE.write(tmp_path / "cut.vhdx")
    os.truncate("cut.vhdx", (tmp_path / "cut.vhdx").stat().st_size - MIB)
    return tmp_path


def test_lines_are_those_of_qemu_img_and_one_more(capfd: Capture) -> None:
    outcome = run(capfd, "measure", "one.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "required size: 3145728 (3 MiB)",
        "fully allocated size: 3145728 (3 MiB)",
        "sparse size: 1048576 (1 MiB)",
    ]


def test_many_images_are_listed_and_summed(capfd: Capture) -> None:
    outcome = run(capfd, "measure", "one.vhdx", "base.vhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "one.vhdx: required 3 MiB, sparse 1 MiB",
        "base.vhdx: required 4 MiB, sparse 4 MiB",
        "required size: 7340032 (7 MiB)",
        "fully allocated size: 7340032 (7 MiB)",
        "sparse size: 5242880 (5 MiB)",
    ]


@pytest.mark.parametrize("option", [("--json",), ("--output", "json")])
def test_json_has_the_keys_of_qemu_img_for_any_number(
    capfd: Capture, option: tuple[str, ...]
) -> None:
    facts = json.loads(run(capfd, "measure", *option, "one.vhdx").out)
    assert facts == {**SIZES, "images": [{"filename": "one.vhdx", **SIZES}]}
    validator_of("measure").validate(facts)


def test_a_failure_ends_nothing_and_is_in_no_sum(capfd: Capture) -> None:
    outcome = run(capfd, "measure", "--json", "one.vhdx", "cut.vhdx", "gone.vhdx", "base.vhdx")
    facts = json.loads(outcome.out)
    validator_of("measure").validate(facts)
    assert outcome.exit_code == 5
    assert (facts["required"], facts["sparse"]) == (7 * MIB, 5 * MIB)
    assert [image.get("required") for image in facts["images"]] == [3 * MIB, None, None, 4 * MIB]
    reasons = [image["error"]["reason"] for image in facts["images"][1:3]]
    assert reasons == ["truncated-image", "host-failure"]
    told = [line.split(": ")[1] for line in outcome.err_lines]
    assert [name for name in told if name != "hint"] == ["cut.vhdx", "gone.vhdx"]


def test_the_failure_of_the_only_image_is_the_answer(capfd: Capture) -> None:
    outcome = run(capfd, "measure", "--json", "cut.vhdx")
    facts = json.loads(outcome.out)
    validator_of("error").validate(facts)
    assert (outcome.exit_code, facts["error"]["reason"]) == (5, "truncated-image")


def test_a_damaged_disk_can_be_measured(capfd: Capture) -> None:
    outcome = run(capfd, "measure", "--salvage", "cut.vhdx")
    assert outcome.exit_code == 3
    assert "lies beyond the end of the file" in outcome.err
    assert outcome.out.splitlines()[-1] == "sparse size: 0 (0 B)"


def test_a_child_is_measured_with_its_parents(folder: Path, capfd: Capture) -> None:
    child_of(base_disk(), "base.vhdx", virtual_disk_size=6 * MIB).write(folder / "child.avhdx")
    facts = json.loads(run(capfd, "measure", "--json", "child.avhdx").out)
    assert (facts["required"], facts["sparse"]) == (6 * MIB, 4 * MIB)


def test_an_orphan_is_not_measured(folder: Path, capfd: Capture) -> None:
    """What its parent has is needed as well."""
    child_of(base_disk(), "gone.vhdx").write(folder / "child.avhdx")
    assert run(capfd, "measure", "child.avhdx").exit_code == 6


def test_of_a_folder_the_newest_images_count(folder: Path, capfd: Capture) -> None:
    """Parents are told by their GUID, wherever they are."""
    (folder / "vm/checkpoints").mkdir(parents=True)
    base_disk().write(folder / "vm/old name.vhdx")
    tip = child_of(base_disk(), "base.vhdx", virtual_disk_size=6 * MIB)
    tip.write(folder / "vm/checkpoints/tip.avhdx")
    ONE.write(folder / "vm/one.vhdx")
    outcome = run(capfd, "measure", "vm")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[:3] == [
        "vm/one.vhdx: required 3 MiB, sparse 1 MiB",
        "vm/checkpoints/tip.avhdx: required 6 MiB, sparse 4 MiB",
        "required size: 9437184 (9 MiB)",
    ]


def test_what_fails_in_a_folder_is_named(folder: Path, capfd: Capture) -> None:
    (folder / "vm").mkdir()
    (folder / "vm/zip.vhdx").write_bytes(b"PK" * 100)
    child_of(base_disk(), "gone.vhdx").write(folder / "vm/orphan.avhdx")
    outcome = run(capfd, "measure", "--json", "vm")
    facts = json.loads(outcome.out)
    validator_of("measure").validate(facts)
    reasons = {image["filename"]: image["error"]["reason"] for image in facts["images"]}
    assert reasons == {
        "vm/zip.vhdx": "unsupported-image",
        "vm/orphan.avhdx": "parent-not-found",
    }
    assert (outcome.exit_code, facts["required"]) == (4, 0)
    assert run(capfd, "measure", "--salvage", "vm/orphan.avhdx", "one.vhdx").exit_code == 3


def test_an_empty_folder_needs_nothing(folder: Path, capfd: Capture) -> None:
    (folder / "vm").mkdir()
    facts = json.loads(run(capfd, "measure", "--json", "vm").out)
    validator_of("measure").validate(facts)
    assert facts == {"required": 0, "fully-allocated": 0, "sparse": 0, "images": []}


def test_no_parent_fits_a_folder(folder: Path, capfd: Capture) -> None:
    (folder / "vm").mkdir()
    outcome = run(capfd, "measure", "--parent", "base.vhdx", "vm")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert "--parent fits one file; for a folder use --parent-dir" in outcome.err
