"""The comparison with other tools: what its tables claim is what happens here."""

import os
import re

import pytest

from benchmarks import peers
from benchmarks.peer_cases import CASES, Case
from benchmarks.peer_features import FEATURES, Feature, read_of, result_of
from benchmarks.peer_tools import COLUMNS, DISCUTILS, OURS, TOOLS, mark_of, version_of
from tests.support.paths import ROOT
from tests.support.peers import skip_unless_ci

DOCUMENT = ROOT / "docs" / "comparison.md"
TABLE = re.compile(r"^\| (disk|feature|tool) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
READING_WORDS = "right|warns|refuses|accepts|WRONG|short|hangs|unknown"
FEATURE_WORDS = r"yes|no|no list|n/a|\d+\.\d s"
CELL = re.compile(rf"({READING_WORDS}|{FEATURE_WORDS}) \(([tr])\)")
TIMED = "time for"


def read_tables() -> dict[str, dict[str, list[str]]]:
    """Give the tables of the document by the head of their first column, and their rows by name."""
    tables: dict[str, dict[str, list[str]]] = {}
    for head, body in TABLE.findall(DOCUMENT.read_text(encoding="utf-8")):
        rows = [line.strip("| ").split(" | ") for line in body.splitlines()]
        tables[head] = {name: cells for name, *cells in rows}
    return tables


TABLES = read_tables()


def require_the_version_of_the_document(tool: str) -> None:
    """Skip where another version is installed, or none: it may behave otherwise."""
    if tool == OURS:
        return
    written, installed = TABLES["tool"][tool][0], version_of(tool)
    if installed != written:
        pytest.skip(f"the document is about {tool} {written}, here is {installed or 'none'}")


def test_document_has_a_row_for_every_comparison() -> None:
    assert list(TABLES["disk"]) == [case.row for case in CASES]
    assert list(TABLES["feature"]) == [feature.row for feature in FEATURES]
    assert list(TABLES["tool"]) == list(COLUMNS)


@pytest.mark.parametrize("head", ["disk", "feature"])
def test_every_cell_is_marked_as_tested_or_read(head: str) -> None:
    for row, cells in TABLES[head].items():
        assert len(cells) == len(COLUMNS), row
        for cell in cells:
            assert CELL.fullmatch(cell), f"{row}: {cell}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_what_is_read_of_discutils_is_marked_so(case: Case) -> None:
    assert TABLES["disk"][case.row][-1] == f"{case.discutils} ({peers.READ})"


LARGE_ROW = "fixed disk larger than a chunk (4.25 GiB)"


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_tool_reads_disks_as_documented(case: Case, tool: str) -> None:
    require_the_version_of_the_document(tool)
    if tool != COLUMNS[0] and case.row == LARGE_ROW and not os.environ.get("VHDX2RAW_ALL_PEERS"):
        pytest.skip("takes half a minute: set VHDX2RAW_ALL_PEERS=1")
    cell = TABLES["disk"][case.row][COLUMNS.index(tool)]
    assert f"{mark_of(case, tool)} ({peers.TESTED})" == cell


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.row)
@pytest.mark.parametrize("tool", COLUMNS)
def test_tool_has_features_as_documented(feature: Feature, tool: str) -> None:
    cell = TABLES["feature"][feature.row][COLUMNS.index(tool)]
    if tool not in feature.tried:
        assert f"{read_of(feature, tool)} ({peers.READ})" == cell
        return
    require_the_version_of_the_document(tool)
    if feature.row.startswith(TIMED):
        pytest.skip("times are not asserted")
    result = result_of(feature, tool)
    if result is None:
        skip_unless_ci("cannot be tried here: needs root, losetup, mkfs.btrfs and filefrag")
    assert f"{result} ({peers.TESTED})" == cell


def test_ours_is_never_wrong_in_the_document() -> None:
    column = COLUMNS.index(OURS)
    for case in CASES:
        expected = "refuses" if case.must_refuse else "right"
        assert TABLES["disk"][case.row][column] == f"{expected} ({peers.TESTED})"


def test_nothing_of_discutils_is_marked_as_tested() -> None:
    column = COLUMNS.index(DISCUTILS)
    cells = [cells[column] for head in ("disk", "feature") for cells in TABLES[head].values()]
    assert all(cell.endswith(f"({peers.READ})") for cell in cells)
