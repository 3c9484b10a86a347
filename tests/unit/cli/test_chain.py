"""Flattening a chain from the command line: options, messages, and what may be the output."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builder import (
    GOLDEN_RAW_SHA256,
    MIB,
    Block,
    ImageSpec,
    child_of,
    golden_g1,
    golden_g3,
    same_bytes_guid,
)
from tests.support.chains import OTHER_GUID, PARTIAL, RELATIVE, base_disk, child_with, small_disk
from tests.support.cli import run, run_program
from tests.support.files import has_expected_bytes, names_in, sha256_of, write_files

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
HINT = "vhdx2raw: hint: name the parent with --parent FILE, or its folder with --parent-dir DIR"


def family() -> dict[str, ImageSpec]:
    """Describe three layers, each of which looks for its parent in the folder `base`."""
    base = base_disk()
    middle = child_of(base, RELATIVE, tag="middle", blocks={1: Block()})
    top = child_of(middle, ".\\middle.vhdx", tag="top", data_write_guid=same_bytes_guid(9))
    top.blocks = {2: Block(PARTIAL, sector_bits={3, 4})}
    return {"vm/top.avhdx": top, "base/middle.vhdx": middle, "base/base.vhdx": base}


def test_golden_g3_is_converted(tmp_path: Path, capfd: Capture) -> None:
    source = write_files(tmp_path, {"g3.vhdx": golden_g3(), "g1.vhdx": golden_g1()})
    outcome = run(capfd, source, tmp_path / "g3.img")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert sha256_of(tmp_path / "g3.img") == GOLDEN_RAW_SHA256["g3"]


@pytest.mark.parametrize("way", ["parents", "folder", "parent and its folder"])
def test_chain_is_flattened_with_named_parents(way: str, tmp_path: Path, capfd: Capture) -> None:
    files = family()
    source = write_files(tmp_path, files)
    middle, base = tmp_path / "base/middle.vhdx", tmp_path / "base/base.vhdx"
    ways: dict[str, list[str | Path]] = {
        "parents": ["--parent", middle, "--parent", base],
        "folder": ["--parent-dir", middle.parent],
        "parent and its folder": ["--parent", middle],
    }
    target = tmp_path / "disk.img"
    outcome = run(capfd, "--json", *ways[way], source, target)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(target, files["vm/top.avhdx"])
    chain = json.loads(outcome.out)["chain"]
    assert [Path(image["filename"]) for image in chain] == [source, middle, base]


def test_missing_parent_lists_where_it_was_looked_for(tmp_path: Path, capfd: Capture) -> None:
    source = write_files(tmp_path, {"vm/top.avhdx": family()["vm/top.avhdx"]})
    (tmp_path / "base").mkdir()
    outcome = run(capfd, "--parent-dir", tmp_path / "base", source, tmp_path / "disk.img")
    assert outcome.exit_code == 6
    guid = same_bytes_guid(0x66)
    assert outcome.err == (
        f"vhdx2raw: {source}: its parent cannot be used: expected .\\middle.vhdx with the"
        f" DataWriteGuid {guid}; tried {tmp_path / 'vm/middle.vhdx'}: does not exist;"
        f" {tmp_path / 'base/middle.vhdx'}: does not exist\n{HINT}\n"
    )
    assert names_in(tmp_path) == ["base", "vm"]


def test_parent_mismatch_is_refused_unless_allowed(tmp_path: Path, capfd: Capture) -> None:
    parent = small_disk(data_write_guid=OTHER_GUID)
    child = child_with({"relative_path": RELATIVE})
    source = write_files(tmp_path, {"c.vhdx": child, "base.vhdx": parent})
    target = tmp_path / "disk.img"
    refused = run(capfd, source, target)
    assert refused.exit_code == 6
    assert refused.err_lines[0].startswith(
        f"vhdx2raw: {source}: its parent cannot be used: expected "
    )
    assert refused.err_lines[1].startswith("vhdx2raw: hint: the parent was changed after the child")
    assert not target.exists()
    allowed = run(capfd, "-v", "--allow-parent-mismatch", source, target)
    assert allowed.exit_code == 0
    assert "warning: parent: is not the version that the child was made from" in allowed.err
    assert has_expected_bytes(target, small_disk())


@pytest.mark.parametrize(
    ("names", "code", "text"),
    [
        (["c.vhdx"], 6, "c.vhdx: is a file of the chain already"),
        (["disk.vhd"], 6, "disk.vhd: file: is a legacy VHD image, not a VHDX"),
        (["gone.vhdx"], 6, "gone.vhdx: No such file or directory"),
        (["base.vhdx", "base.vhdx"], 6, "has no use for the parent"),
        (["broken.vhdx"], 5, "broken.vhdx: headers: none is valid"),
    ],
)
def test_parent_that_is_none_has_its_code(
    names: list[str], code: int, text: str, tmp_path: Path, capfd: Capture
) -> None:
    broken = small_disk()
    for header in broken.headers:
        header.checksum = 1
    child = child_with({})
    source = write_files(
        tmp_path, {"c.vhdx": child, "base.vhdx": small_disk(), "broken.vhdx": broken}
    )
    (tmp_path / "disk.vhd").write_bytes(b"conectix".ljust(4096, b"\0"))
    options = [word for name in names for word in ("--parent", str(tmp_path / name))]
    outcome = run(capfd, *options, source, tmp_path / "disk.img")
    assert outcome.exit_code == code
    assert text in outcome.err_lines[0]
    assert not (tmp_path / "disk.img").exists()


def test_path_in_a_locator_is_escaped(tmp_path: Path, capfd: Capture) -> None:
    """Escape codes, line ends and unpaired surrogates are shown as what they are."""
    child = child_with({"relative_path": ".\\\x1b[31mred\nvhdx2raw: done\ud800.vhdx"})
    source = write_files(tmp_path, {"c.vhdx": child})
    outcome = run(capfd, source, tmp_path / "disk.img")
    assert outcome.exit_code == 6
    assert len(outcome.err_lines) == 2
    assert "\x1b" not in outcome.err
    assert r"expected .\\x1b[31mred\nvhdx2raw: done\ud800.vhdx with" in outcome.err


# -- the output is no member of the chain -------------------------------------------------------


def as_it_is(target: Path, folder: Path) -> Path:
    return target


def with_detours(target: Path, folder: Path) -> Path:
    return target.parent / ".." / target.parent.name / "." / target.name


def hard_link(target: Path, folder: Path) -> Path:
    (folder / "hard").hardlink_to(target)
    return folder / "hard"


def symbolic_link(target: Path, folder: Path) -> Path:
    (folder / "soft").symlink_to(target)
    return folder / "soft"


def relative(target: Path, folder: Path) -> Path:
    return Path(os.path.relpath(target))


@pytest.mark.parametrize("member", ["vm/top.avhdx", "base/middle.vhdx", "base/base.vhdx"])
@pytest.mark.parametrize(
    "spell", [as_it_is, with_detours, hard_link, symbolic_link, relative], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["careful", "force"])
def test_output_that_is_a_file_of_the_chain_is_refused(
    member: str,
    spell: Callable[[Path, Path], Path],
    force: list[str],
    tmp_path: Path,
    capfd: Capture,
) -> None:
    source = write_files(tmp_path, family())
    before = {name: sha256_of(tmp_path / name) for name in family()}
    target = spell(tmp_path / member, tmp_path)
    outcome = run(capfd, *force, "--parent-dir", tmp_path / "base", source, target)
    assert outcome.exit_code == 7
    assert outcome.err_lines[0].startswith(f"vhdx2raw: {target}: ")
    assert "is" in outcome.err_lines[0]
    assert "input" in outcome.err_lines[0]
    assert {name: sha256_of(tmp_path / name) for name in family()} == before


def test_standard_output_that_is_a_parent_is_refused(tmp_path: Path) -> None:
    source = write_files(tmp_path, family())
    base = tmp_path / "base/base.vhdx"
    before = sha256_of(base)
    with base.open("r+b") as stream:
        outcome = run_program("--parent-dir", base.parent, source, "-", stdout=stream)
    assert outcome.exit_code == 7
    assert outcome.err.startswith("vhdx2raw: standard output: ")
    assert sha256_of(base) == before


# -- depth --------------------------------------------------------------------------------------


def test_deepest_chain_is_converted(tmp_path: Path, capfd: Capture) -> None:
    """R108: every sector of the root is seen through 255 sector bitmaps."""
    spec = small_disk()
    for number in range(256):
        spec.write(tmp_path / f"{number}.vhdx")
        spec = child_of(
            spec,
            f".\\{number}.vhdx",
            blocks={0: Block(PARTIAL, content=0, sector_bits={2000})},
            data_write_guid=same_bytes_guid(number % 200 + 1),
        )
    target = tmp_path / "disk.img"
    outcome = run(capfd, tmp_path / "255.vhdx", target)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert target.stat().st_size == MIB
    assert target.read_bytes()[:4] == b"root"
    assert run(capfd, "--force", tmp_path / "254.vhdx", target).exit_code == 0
