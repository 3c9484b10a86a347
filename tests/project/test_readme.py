"""The table of faults in tests/README.md names tests that exist."""

import re

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
ROWS = [line for line in (TESTS / "README.md").read_text().splitlines() if line.startswith("| ")]
TOKEN = re.compile(r"`((?:\w+/)*test_\w+)(\.py)?`")


@pytest.mark.parametrize("row", [row for row in ROWS if "test_" in row])
def test_a_row_names_tests_that_exist(row: str) -> None:
    module = ""
    for name, is_module in TOKEN.findall(row):
        if is_module:
            module = (TESTS / f"{name}.py").read_text()
        else:
            assert f"def {name}(" in module


def test_every_fault_names_a_test() -> None:
    start = next(i for i, row in enumerate(ROWS) if row.startswith("| Fault or attack"))
    rows = [row for row in ROWS[start:] if not row.startswith("| Fault or attack")]
    assert len(rows) > 40
    assert [row for row in rows if not TOKEN.search(row)] == []
