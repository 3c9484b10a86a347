"""A folder of disks to be converted by many workers, and whether all of them were."""

from pathlib import Path

from tests.support.builder import MIB, Block, ImageSpec, child_of, same_bytes_guid
from tests.support.files import has_expected_bytes

EXPORTS, RAW = "exports", "raw"
BASE = ImageSpec(4 * MIB, MIB, {0: Block(), 2: Block()}, data_write_guid=same_bytes_guid(0x21))
CHILD = child_of(BASE, "base.vhdx", blocks={1: Block()}, data_write_guid=same_bytes_guid(0x22))
SINGLE = ("mail", "web server", "files/home", "files/archive/2019", "o'brien")
NEWEST = {
    "vm/child": CHILD,
    **{
        name: ImageSpec(2 * MIB, MIB, {1: Block(content={0: name.encode()})}, data_write_guid=guid)
        for name, guid in zip(SINGLE, map(same_bytes_guid, range(0x31, 0x40)), strict=False)
    },
}
"""What has to become a raw image, by its path without the ending."""


def write_exports(folder: Path) -> None:
    """Write the disks, one of them as a checkpoint and its parent."""
    for name, spec in {"vm/base": BASE, **NEWEST}.items():
        suffix = ".avhdx" if name == "vm/child" else ".vhdx"
        path = folder / EXPORTS / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        spec.write(path)


def images_below(folder: Path) -> list[str]:
    """Give the raw images, hidden files and everything else, by their paths."""
    files = (path for path in (folder / RAW).rglob("*") if not path.is_dir())
    return sorted(path.relative_to(folder / RAW).as_posix() for path in files)


def assert_all_are_right(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Every disk must be there with the right bytes, and nothing else."""
    expected = {name: spec for name, spec in NEWEST.items() if name not in but}
    assert images_below(folder) == sorted(f"{name}.img" for name in expected)
    wrong = [
        name
        for name, spec in expected.items()
        if not has_expected_bytes(folder / RAW / f"{name}.img", spec)
    ]
    assert wrong == []
