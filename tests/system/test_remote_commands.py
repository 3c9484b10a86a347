"""Commands that do more with a disk than convert it: each takes a URL, and shows nothing secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of
from tests.support.chains import base_disk
from tests.support.cli import run_program
from tests.support.files import has_expected_bytes, names_in
from tests.support.mounts import folder_for_mounts, mounted, servers_of, wait_until
from tests.support.nbd import server_of
from tests.support.peers import needs_program
from tests.support.servers import faults
from tests.support.servers.exports import Exports, exports

BASE = base_disk()
TOP = child_of(BASE, ".\\base.vhdx", blocks={1: Block(content=b"new")})
SECRET = "s1gnature-of-th3-url"


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Exports]:
    """Give a server that answers only to those who have a signature."""
    with exports(tmp_path, capfd) as place:
        place.write({"vm/top.avhdx": TOP, "vm/base.vhdx": BASE})
        place.server.fault = faults.always(faults.demand_query(f"sig={SECRET}"))
        yield place


def signed(place: Exports, name: str) -> str:
    return f"{place.url(name)}?sig={SECRET}"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with folder_for_mounts(tmp_path / "mnt") as path:
        yield path


def test_a_mounted_url(place: Exports, folder: Path) -> None:
    with mounted(signed(place, "vm/top.avhdx"), folder, "-v") as mount:
        assert has_expected_bytes(mount.disk, TOP)
        assert SECRET not in mount.end()


def test_a_url_that_is_mounted_in_the_background(place: Exports, folder: Path) -> None:
    """By a process that was split off: it must have threads of its own."""
    outcome = run_program("mount", "-v", signed(place, "vm/top.avhdx"), folder)
    assert outcome.exit_code == 0, outcome.err
    assert SECRET not in outcome.err
    assert has_expected_bytes(folder / "disk.img", TOP)
    subprocess.run(["umount", folder], check=True)
    wait_until(lambda: not servers_of(folder), "the program has ended")


def test_a_mounted_url_that_changes_is_an_error_of_reading(place: Exports, folder: Path) -> None:
    """Nothing of the other version is ever given."""
    with mounted(signed(place, "vm/base.vhdx"), folder) as mount:
        place.write({"vm/base.vhdx": base_disk(tag="other")})
        (place.folder / "vm/base.vhdx").touch()
        with pytest.raises(OSError, match="error"):
            mount.disk.read_bytes()


def test_a_served_url(place: Exports, tmp_path: Path) -> None:
    needs_program("qemu-img")
    with server_of("-v", signed(place, "vm/top.avhdx")) as server:
        copy = tmp_path / "copy.img"
        subprocess.run(["qemu-img", "convert", "-O", "raw", server.uri, copy], check=True)
        assert has_expected_bytes(copy, TOP)
        _, err = server.end()
    assert SECRET not in err


def test_measure_is_that_of_the_file(place: Exports) -> None:
    remote = place.run("measure", "--json", signed(place, "vm/top.avhdx"))
    local = place.run("measure", "--json", place.folder / "vm/top.avhdx")
    assert (remote.exit_code, remote.err) == (0, "")
    figures, others = json.loads(remote.out), json.loads(local.out)
    assert figures["required"] == others["required"]
    assert SECRET not in remote.out


def test_batch_converts_urls(place: Exports) -> None:
    specs = {f"{name}.vhdx": ImageSpec(2 * MIB, MIB, {1: Block()}, tag=name) for name in "abc"}
    place.write(specs)
    results = place.outputs / "results.jsonl"
    words = ("batch", "--output-dir", place.outputs, "--results", results)
    outcome = place.run(*words, *(signed(place, name) for name in specs))
    assert outcome.exit_code == 0, outcome.err
    assert names_in(place.outputs) == ["a.img", "b.img", "c.img", "results.jsonl"]
    for name, spec in specs.items():
        assert has_expected_bytes(place.outputs / name.replace("vhdx", "img"), spec)
    assert SECRET not in outcome.out + outcome.err + results.read_text()


def test_batch_goes_on_after_a_url_that_fails(place: Exports) -> None:
    place.write({"a.vhdx": BASE})
    missing, there = signed(place, "missing.vhdx"), signed(place, "a.vhdx")
    outcome = place.run("batch", "--output-dir", place.outputs, missing, there)
    assert outcome.exit_code == 8
    assert names_in(place.outputs) == ["a.img"]
    assert SECRET not in outcome.out + outcome.err
