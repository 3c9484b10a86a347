"""A check finds what a conversion would refuse, however deep in the chain it is."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, same_bytes_guid
from tests.support.cli import run
from tests.support.files import open_files, write_files
from vhdx2raw import check
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.disk.virtual_disk import open_disk
from vhdx2raw.errors import ParentMismatchError, Vhdx2rawError
from vhdx2raw.findings import Severity

DEPTH = 5
SEVERITIES = {"error": Severity.ERROR, "note": Severity.NOTE}
Files = dict[str, ImageSpec | bytes]
Spoil = Callable[[Files, str], object]


def chain() -> Files:
    """Describe a chain, child first."""
    specs = [ImageSpec(4 * MIB, MIB, {0: Block(), 3: Block()}, tag="0")]
    for number in range(1, DEPTH):
        fields: dict[str, Any] = {"blocks": {1: Block()}, "tag": str(number)}
        fields["data_write_guid"] = same_bytes_guid(0x30 + number)
        specs.append(child_of(specs[-1], f".\\{number - 1}.vhdx", **fields))
    return {f"{spec.tag}.vhdx": deepcopy(spec) for spec in reversed(specs)}


def set_fields(**fields: object) -> Spoil:
    def spoil(files: Files, name: str) -> None:
        for field, value in fields.items():
            setattr(files[name], field, value)

    return spoil


def overlap(files: Files, name: str) -> None:
    """Let a block lie on the metadata."""
    spec = files[name]
    assert isinstance(spec, ImageSpec)
    spec.bat_overrides[2] = 2 * MIB | 6


def spoil_checksums(files: Files, name: str) -> None:
    spec = files[name]
    assert isinstance(spec, ImageSpec)
    for header in spec.headers:
        header.checksum = 1


SPOILED: dict[str, tuple[Spoil, str, str]] = {
    "changed": (set_fields(data_write_guid=same_bytes_guid(0x99)), "error", "R100"),
    "other sectors": (set_fields(logical_sector_size=4096), "error", "R105"),
    "cut off": (set_fields(file_size=4 * MIB), "error", "R104"),
    "broken table": (overlap, "error", "R104"),
    "no header": (spoil_checksums, "error", "R100"),
    "missing": (lambda files, name: files.pop(name), "error", "R110"),
    "no VHDX": (lambda files, name: files.update({name: b"text" * 999}), "error", "R110"),
}
WAYS = ["beside the child", "all given", "some given", "in a folder"]


def options_of(way: str, folder: Path, names: list[str]) -> OpenOptions:
    """Give the options by which the parents are found; some of them lie elsewhere."""
    parents = [folder / name for name in names[1:]]
    if way == "all given":
        return OpenOptions(parents=parents)
    if way == "some given":
        return OpenOptions(parents=parents[:2])
    return OpenOptions(parent_dirs=[folder / "parents"])


def write(folder: Path, way: str, files: Files, names: list[str]) -> tuple[Path, OpenOptions]:
    if way == "in a folder":
        (folder / "parents").mkdir()
        write_files(folder, {name: files[name] for name in names[:1]})
        write_files(folder / "parents", {n: file for n, file in files.items() if n != names[0]})
    else:
        write_files(folder, files)
    return folder / names[0], options_of(way, folder, names)


def opens(path: Path, options: OpenOptions) -> bool:
    try:
        open_disk(path, options).close()
    except Vhdx2rawError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("depth", range(1, DEPTH))
@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_parent_is_found_at_any_depth(
    tmp_path: Path, what: str, depth: int, way: str
) -> None:
    spoil, severity, rule = SPOILED[what]
    files = chain()
    names = list(files)
    spoil(files, names[depth])
    path, options = write(tmp_path, way, files, names)
    before = open_files()
    report = check(path, parents=options.parents, parent_dirs=options.parent_dirs)
    assert open_files() == before
    assert (SEVERITIES[severity], rule) in [(kind, found.rule) for kind, found in report.results]
    assert report.is_sound == (severity != "error")
    assert not opens(path, options)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_sound_chain_is_sound(tmp_path: Path, way: str) -> None:
    files = chain()
    path, options = write(tmp_path, way, files, list(files))
    report = check(path, parents=options.parents, parent_dirs=options.parent_dirs)
    assert report.results == ()
    assert report.is_sound
    assert opens(path, options)


@pytest.mark.slow
@pytest.mark.parametrize("depth", range(1, DEPTH))
def test_a_parent_that_is_given_counts_at_its_depth(tmp_path: Path, depth: int) -> None:
    """It is not looked for elsewhere, though the right one lies beside its child."""
    files = chain()
    names = list(files)
    path = write_files(tmp_path, files)
    wrong = chain()[names[depth]]
    assert isinstance(wrong, ImageSpec)
    wrong.data_write_guid = same_bytes_guid(0x99)
    wrong.write(tmp_path / "wrong.vhdx")
    given = [*(tmp_path / name for name in names[1:depth]), tmp_path / "wrong.vhdx"]
    report = check(path, parents=given)
    assert [(kind, found.rule) for kind, found in report.results] == [(Severity.ERROR, "R100")]
    assert "wrong.vhdx" in str(report.results)
    assert not opens(path, OpenOptions(parents=given))


@pytest.mark.slow
@pytest.mark.parametrize("count", range(1, DEPTH + 1))
def test_a_parent_too_many_is_refused_as_by_a_conversion(tmp_path: Path, count: int) -> None:
    """Also where the file that is checked has no parent at all."""
    files = chain()
    write_files(tmp_path, files | {"more.vhdx": ImageSpec(MIB, MIB)})
    names = list(files)[-count:]
    given = [*(tmp_path / name for name in names[1:]), tmp_path / "more.vhdx"]
    before = open_files()
    with pytest.raises(ParentMismatchError, match=r"has no use for the parent .*more\.vhdx"):
        check(tmp_path / names[0], parents=given)
    assert open_files() == before
    assert not opens(tmp_path / names[0], OpenOptions(parents=given))


@pytest.mark.parametrize(
    ("what", "exit_code", "verdict"),
    [
        ("missing", 6, "the file itself is sound, but its parent is missing"),
        ("changed", 6, "the file itself is sound, but its parent cannot be used"),
        ("cut off", 5, "NOT sound"),
    ],
)
def test_the_last_line_speaks_of_the_whole_chain(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str, exit_code: int, verdict: str
) -> None:
    files = chain()
    spoil, _, _ = SPOILED[what]
    spoil(files, list(files)[2])
    path = write_files(tmp_path, files)
    outcome = run(capfd, "check", path)
    assert outcome.exit_code == exit_code
    assert outcome.out.splitlines()[-1].startswith(f"{path}: {verdict} (errors ")
