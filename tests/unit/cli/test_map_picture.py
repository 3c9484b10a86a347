"""`vhdx2raw map` as a picture: in a terminal, elsewhere, and as an SVG."""

from __future__ import annotations

import os
import re
import signal
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.builder import MIB
from tests.support.cli import Outcome, run, run_on_terminal
from tests.support.files import names_in, sha256_of
from tests.support.maps import fragmented, map_of

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


# -- the picture --------------------------------------------------------------------------------


def drawn(capfd: Capture, *arguments: str) -> Outcome:
    outcome = run(capfd, "map", "--picture", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    return outcome


def test_the_picture_shows_what_lies_where(
    disks: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One MiB a row."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "24")
    assert drawn(capfd, "top.vhdx").out == (
        "top.vhdx: 8 MiB; one cell is 64 KiB\n"
        "0x000000 3333333333333333\n"
        "0x100000 3333333333333333\n"
        "0x200000 2222222222222222\n"
        "0x300000 1111111111111111\n"
        "0x400000 ################\n"
        "0x500000 ................\n"
        "0x600000 ########33333333\n"
        "0x700000 ................\n"
        "# data in the file itself        24 cells, 1.5 MiB in all\n"
        "1 data in its parent             16 cells, 1 MiB in all\n"
        "2 data in the parent's parent    16 cells, 1 MiB in all\n"
        "3 data in a file further down    40 cells, 2.5 MiB in all\n"
        ". zeros that are stored nowhere  32 cells, 2 MiB in all\n"
    )


def test_picture_of_a_range_marks_mixed_cells(
    disks: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "1")
    picture = drawn(capfd, "--start-offset", "1048064", "--max-length", "32k", "disk.vhdx").out
    assert picture == (
        "disk.vhdx: 5 MiB, 0x8000 bytes of it from 0xffe00 on; one cell is 512 B\n"
        "0x0ffe00 #...............\n"
        "0x101e00 ................\n"
        "0x103e00 ................\n"
        "0x105e00 ................\n"
        "# data in the file itself        1 cell, 512 B in all\n"
        ". zeros that are stored nowhere  63 cells, 31.5 KiB in all\n"
    )
    picture = drawn(capfd, "--start-offset", "512", "disk.vhdx").out
    assert picture.splitlines()[1:] == [
        "0x000200 #######+.......+",
        "0x200200 #######+.......+",
        "0x400200 #######+",
        "# data in the file itself        21 cells, 3 MiB in all",
        ". zeros that are stored nowhere  14 cells, 2 MiB in all",
        "+ several of these               5 cells",
    ]


@pytest.mark.parametrize("columns", [1, 40, 80, 133, 500])
@pytest.mark.parametrize("lines", [1, 24, 200])
def test_the_picture_fits_into_the_terminal(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int
) -> None:
    fragmented(5000).write(tmp_path / "disk.vhdx")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    picture = drawn(capfd, f"{tmp_path}/disk.vhdx").out
    rows = re.findall(r"^0x[0-9a-f]+ ([^\n]*)$", picture, re.MULTILINE)
    address = len(f"{10_000 * MIB:#x} ")
    assert max(map(len, rows)) <= max(16, columns - address)
    assert len(rows) <= max(4, min(lines - 10, 32))
    assert {len(row) for row in rows[:-1]} == {len(rows[0])}


SIGNS = re.compile(r"\x1b\[[0-9;]*m")


def test_a_terminal_gets_colours_over_the_same_picture(disks: Path) -> None:
    coloured = run_on_terminal("map", "--picture", "top.vhdx", streams=["stdout"])
    assert coloured.exit_code == 0
    assert "\x1b[97;44m" in coloured.err
    plain = SIGNS.sub("", coloured.err)
    assert "\x1b" not in plain
    rows = [line for line in coloured.err.splitlines() if "\x1b" in line]
    assert all(row.count("\x1b[0m") * 2 == row.count("\x1b") for row in rows)
    assert max(map(len, plain.splitlines())) <= 100


PLAIN = [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("TERM", "dumb")]


@pytest.mark.parametrize(("variable", "value"), PLAIN)
def test_no_color_variable_disables_colours(
    disks: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    outcome = run_on_terminal("map", "--picture", "top.vhdx", streams=["stdout"])
    assert outcome.exit_code == 0
    assert "\x1b" not in outcome.err
    assert "3333" in outcome.err


def test_empty_no_color_variable_is_ignored(disks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b" in run_on_terminal("map", "--picture", "top.vhdx", streams=["stdout"]).err


def test_no_colours_without_a_terminal(disks: Path, capfd: Capture) -> None:
    assert "\x1b" not in drawn(capfd, "top.vhdx").out


# -- SVG ----------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"
TOOLTIP = re.compile(r"(0x[0-9a-f]+) to (0x[0-9a-f]+), [^:]+: (.+)")


def svg_of(capfd: Capture, *arguments: str) -> ET.Element:
    outcome = run(capfd, "map", "--svg", "-", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.isascii()
    return ET.fromstring(outcome.out)


def runs_of(root: ET.Element) -> list[tuple[ET.Element, str]]:
    """Give the rectangles of the grid, with their tooltips."""
    pairs = [(rect, rect.findtext(f"{SVG}title")) for rect in root.iter(f"{SVG}rect")]
    return [(rect, title) for rect, title in pairs if title]


@pytest.mark.parametrize("name", ["disk.vhdx", "top.vhdx"])
def test_svg_tooltips_tile_the_disk(disks: Path, capfd: Capture, name: str) -> None:
    facts = map_of(capfd, name)
    size = facts[-1]["start"] + facts[-1]["length"]
    words = [
        "data in the file itself",
        "data in its parent",
        "data in the parent's parent",
        "data in a file further down",
        "data in a file further down",
    ]
    position = 0
    for _, title in runs_of(svg_of(capfd, name)):
        match = TOOLTIP.fullmatch(title)
        assert match
        start, end = int(match[1], 16), int(match[2], 16)
        assert start == position
        position = end
        over = [e for e in facts if e["start"] < end and e["start"] + e["length"] > start]
        expected = {
            words[e["depth"]] if e["data"] else "zeros that are stored nowhere" for e in over
        }
        assert set(match[3].split(" and ")) == expected
    assert position == size


def test_the_areas_of_an_svg_are_those_of_its_cells(disks: Path, capfd: Capture) -> None:
    """8 MiB in cells of 2 KiB; each kind has as much area as it has bytes."""
    root = svg_of(capfd, "top.vhdx")
    runs = runs_of(root)
    areas: dict[str, int] = {}
    for rect, _ in runs:
        kind = rect.attrib["class"]
        areas[kind] = areas.get(kind, 0) + int(rect.attrib["width"]) * int(rect.attrib["height"])
    unit = sum(areas.values()) / 16
    found = sorted(area / unit for area in areas.values())
    assert found == [2, 2, 3, 4, 5]
    boxes = sorted(
        (int(r.attrib["y"]), int(r.attrib["x"]), int(r.attrib["width"])) for r, _ in runs
    )
    for (y, x, width), (next_y, next_x, _) in pairwise(boxes):
        assert next_x == x + width if next_y == y else next_y > y
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    assert all(x + w <= width and y < height for y, x, w in boxes)


def test_svg_has_title_legend_and_two_themes(disks: Path, capfd: Capture) -> None:
    root = svg_of(capfd, "top.vhdx")
    assert root.findtext(f"{SVG}title") == "top.vhdx: 8 MiB; one cell is 2 KiB"
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts[0] == "top.vhdx: 8 MiB; one cell is 2 KiB"
    assert "data in the parent's parent: 512 cells, 1 MiB in all" in texts
    style = root.findtext(f"{SVG}style") or ""
    assert "@media(prefers-color-scheme:dark)" in style
    used = {element.attrib["class"] for element in root.iter(f"{SVG}rect")}
    assert all(style.count(f".{kind}{{fill:#") == 2 for kind in used)


def test_the_name_of_a_file_is_text_in_an_svg(disks: Path, capfd: Capture) -> None:
    name = 'a<b>&"c"\' é\x00'[:-1] + os.fsdecode(b"\xff\x07") + "x" * 150 + ".vhdx"
    (disks / "disk.vhdx").rename(name)
    root = svg_of(capfd, name)
    shown = name.replace("\udcff", "\\xff").replace("\x07", "\\x07")
    assert root.findtext(f"{SVG}title") == f"{shown}: 5 MiB; one cell is 2 KiB"
    heading = next(root.iter(f"{SVG}text")).text or ""
    assert heading.startswith('a<b>&"c"\' é')
    assert len(heading) < 100


def test_an_svg_has_a_bounded_size_whatever_the_disk(tmp_path: Path, capfd: Capture) -> None:
    fragmented(20_000).write(tmp_path / "disk.vhdx")
    outcome = run(capfd, "map", "--svg", "-", "--max-length=3G", tmp_path / "disk.vhdx")
    assert outcome.exit_code == 0
    assert 3000 < len(runs_of(ET.fromstring(outcome.out))) <= 4096
    assert len(outcome.out) < MIB


def test_an_svg_becomes_a_file_and_nothing_else(disks: Path, capfd: Capture) -> None:
    before = names_in(disks)
    outcome = run(capfd, "map", "--svg", "map.svg", "disk.vhdx")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "", "")
    assert names_in(disks) == sorted([*before, "map.svg"])
    assert (disks / "map.svg").read_text() == run(capfd, "map", "--svg=-", "disk.vhdx").out


def test_a_file_is_replaced_only_by_force(disks: Path, capfd: Capture) -> None:
    (disks / "map.svg").write_text("old")
    outcome = run(capfd, "map", "--svg", "map.svg", "disk.vhdx")
    assert outcome.exit_code == 7
    assert outcome.err_lines == [
        "vhdx2raw: map.svg: exists already",
        "vhdx2raw: hint: choose another name, or use --force to replace it",
    ]
    assert (disks / "map.svg").read_text() == "old"
    assert run(capfd, "map", "--force", "--svg", "map.svg", "disk.vhdx").exit_code == 0
    assert (disks / "map.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize("name", ["disk.vhdx", "layer0.vhdx"])
def test_no_file_of_the_chain_becomes_its_picture(disks: Path, capfd: Capture, name: str) -> None:
    before = sha256_of(disks / name)
    source = "disk.vhdx" if name == "disk.vhdx" else "top.vhdx"
    outcome = run(capfd, "map", "--force", "--svg", name, source)
    assert outcome.exit_code == 7
    assert outcome.err_lines[0] == f"vhdx2raw: {name}: is the input itself"
    assert sha256_of(disks / name) == before


def test_svg_that_cannot_be_written_leaves_nothing(
    disks: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = names_in(disks)
    monkeypatch.setattr(os, "fsync", fail)
    outcome = run(capfd, "map", "--svg", "map.svg", "disk.vhdx")
    assert outcome.exit_code == 8
    assert outcome.err_lines[0] == ("vhdx2raw: map.svg: cannot be written: No space left on device")
    assert names_in(disks) == before


def test_signal_during_an_svg_leaves_nothing(
    disks: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names_in(disks)
    monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    outcome = run(capfd, "map", "--svg", "map.svg", "disk.vhdx")
    assert (outcome.exit_code, outcome.err) == (143, "vhdx2raw: ended by SIGTERM\n")
    assert names_in(disks) == before
