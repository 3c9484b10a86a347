"""No output of a batch goes over a file that another one of the batch needs as a parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, same_bytes_guid
from tests.support.cli import run
from tests.support.files import has_expected_bytes, names_in, write_files
from vhdx2raw.cli.exit_codes import OUTPUT

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
DEPTH = 4


def layers() -> list[ImageSpec]:
    """Describe a chain, child first, each file the parent of the one before it."""
    specs = [ImageSpec(4 * MIB, MIB, {0: Block(), 3: Block()}, tag="layer")]
    for number in range(1, DEPTH):
        specs.insert(
            0,
            child_of(
                specs[0],
                f".\\out\\layer{number - 1}.img",
                blocks={number - 1: Block()},
                data_write_guid=same_bytes_guid(number),
            ),
        )
    return specs


def write_chain(folder: Path) -> tuple[Path, list[Path]]:
    """Write the child beside a folder `out` that holds its parents under the names of images."""
    (folder / "out").mkdir()
    parents = [f"out/layer{number}.img" for number in reversed(range(DEPTH - 1))]
    names = ["child.vhdx", *parents]
    # The locators are relative to each file; parents lie beside each other.
    specs = layers()
    write_files(folder, dict(zip(names, specs, strict=True)))
    return folder / "child.vhdx", [folder / name for name in parents]


@pytest.mark.parametrize("jobs", ["1", "3"])
@pytest.mark.parametrize("comes_first", [True, False])
@pytest.mark.parametrize("name_of", ["itself", "hard link", "symbolic link"])
@pytest.mark.parametrize("depth", range(1, DEPTH))
def test_output_that_is_a_parent_is_refused(
    folder: Path,
    capfd: Capture,
    depth: int,
    *,
    name_of: str,
    jobs: str,
    comes_first: bool,
) -> None:
    child, parents = write_chain(folder)
    parent = parents[depth - 1]
    name = parent.stem
    if name_of != "itself":
        name = "other"
        link = folder / "out/other.img"
        if name_of == "hard link":
            link.hardlink_to(parent)
        else:
            link.symlink_to(parent.name)
    source = folder / f"{name}.vhdx"
    ImageSpec(2 * MIB, MIB, {1: Block(content=5)}).write(source)
    before = {path: path.read_bytes() for path in (child, *parents)}
    names = names_in(folder / "out")
    sources = [source.name, child.name] if comes_first else [child.name, source.name]
    options = ["--parent-dir", "out", "--jobs", jobs, "--output-dir", "out"]
    outcome = run(capfd, "batch", "--force", *options, *sources)
    assert outcome.exit_code == OUTPUT
    assert outcome.err_lines == [
        f"vhdx2raw: out/{name}.img: is a parent of child.vhdx, and would be replaced",
        "vhdx2raw: hint: choose another name for the output",
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert names_in(folder / "out") == names


@pytest.mark.parametrize("salvage", [True, False])
@pytest.mark.parametrize(
    "old", [b"", b"an old raw image", b"vhdxfile, but no VHDX"], ids=["empty", "raw", "lookalike"]
)
def test_output_that_is_no_parent_is_replaced(
    folder: Path, capfd: Capture, old: bytes, *, salvage: bool
) -> None:
    child, _ = write_chain(folder)
    other = ImageSpec(2 * MIB, MIB, {1: Block(content=5)})
    other.write(folder / "other.vhdx")
    (folder / "out/other.img").write_bytes(old)
    options = ["--force", *["--salvage"] * salvage, "--parent-dir", "out", "--output-dir", "out"]
    outcome = run(capfd, "batch", *options, "other.vhdx", child.name)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(folder / "out/other.img", other)
    assert has_expected_bytes(folder / "out/child.img", layers()[0])
