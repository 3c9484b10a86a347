"""For any file whatever: a result or one of our errors, in bounded time and memory.

Some hundred images of a fixed series; `make fuzz` tries others for as long as one likes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import vhdx2raw
from tests.fuzz import bases
from tests.fuzz.__main__ import IN_MEMORY
from tests.fuzz.actions import (
    Action,
    DisagreementError,
    Violation,
    demand,
    perform,
    read_in_every_way,
)
from tests.fuzz.cases import ALL_ACTIONS, Case, describe, reduce, spoil, tally, try_case, try_files
from tests.fuzz.more_actions import check_everything, make_map, salvage
from tests.fuzz.regressions import STRANGE_IMAGES
from tests.fuzz.repair import repair
from tests.fuzz.valid import try_part
from tests.support.builder import MIB
from vhdx2raw.output.sparse_file import SparseFileSink
from vhdx2raw.vhdx.image import VhdxImage, open_image

SEED = 20251122
PARTS = 5
CASES_OF_PART = 250
THOROUGH = (read_in_every_way, salvage, check_everything, make_map)
"""The actions that read all that there is."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory: reading the holes of a file on a disk fills the page cache."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="vhdx2raw-fuzz-", dir=place) as name:
        yield Path(name)


@pytest.mark.parametrize("part", range(PARTS))
def test_spoiled_image_is_read_or_refused_in_limits(part: int, folder: Path) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(part * CASES_OF_PART, (part + 1) * CASES_OF_PART):
        case = Case(SEED, number)
        report = try_case(case, folder)
        assert report.violation is None, f"{describe(case)}\n{report.violation}"
        tally(outcomes, report)
    # If nearly all were refused when they are opened, nothing after that would be tried.
    assert outcomes["read_in_every_way: done"] > CASES_OF_PART / 5
    # 62 to 78 of 250; the naive reader cannot read all that the package can.
    assert outcomes["compare_with_naive_reader: done"] > CASES_OF_PART / 5
    assert len([name for name in outcomes if name.startswith("open_alone: ")]) > CASES_OF_PART / 20


@pytest.mark.parametrize("name", bases.BASES)
def test_what_is_not_spoiled_is_read(name: str, folder: Path) -> None:
    members = bases.base(name).members
    for file_name, member in members.items():
        file = member.file.copy()
        repair(member, file)
        assert file.pages == member.file.pages, "repaired though nothing was broken"
        file.store(folder / file_name)
    path = folder / next(iter(members))
    for action in ALL_ACTIONS:
        dirty = members[path.name].spec.log_guid.int
        expected = "CorruptImageError R14" if dirty and "if_clean" in action.name else "done"
        if not (dirty and "without_log" in action.name):
            assert perform(action, path) == expected, action.name


@pytest.mark.parametrize("name", bases.BASES)
def test_a_base_holds_what_its_description_says(name: str, folder: Path) -> None:
    members = bases.base(name).members
    for file_name, member in members.items():
        member.file.store(folder / file_name)
    child = next(iter(members.values())).spec
    size = min(child.virtual_disk_size, 12 * MIB)
    with vhdx2raw.open(folder / next(iter(members))) as disk:
        is_right = disk.pread(size, 0) == child.expected_disk(0, size)
        assert is_right


@pytest.mark.parametrize("write", STRANGE_IMAGES, ids=lambda write: write.__name__)
def test_strange_image_is_read_or_refused_in_limits(
    write: Callable[[Path], Path], folder: Path
) -> None:
    path = write(folder)
    for action in (action for action in ALL_ACTIONS if action.run in THOROUGH):
        outcome = perform(action, path)
        assert not isinstance(outcome, Violation), f"{action.name}: {outcome}"


def test_every_path_gives_the_bytes_of_a_valid_chain(folder: Path) -> None:
    assert try_part("0", 6, folder) > 6


def test_a_wrong_byte_on_a_path_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_less(sink: SparseFileSink, virtual_offset: int, data: memoryview) -> None:
        real(sink, virtual_offset, data[:-1])

    real = SparseFileSink.write
    monkeypatch.setattr(SparseFileSink, "write", write_less)
    with pytest.raises(DisagreementError, match=r"convert_to_file: other bytes by {}"):
        try_part("0", 6, folder)


def test_a_case_is_the_same_every_time() -> None:
    for number in range(40):
        one, again = spoil(Case(7, number)), spoil(Case(7, number))
        assert one.steps == again.steps
        assert [file.pages for file in one.files.values()] == [
            file.pages for file in again.files.values()
        ]


# --- The judge itself -----------------------------------------------------------------------------


def _raise_key_error(path: Path) -> None:
    raise KeyError(path.name)


def _take_for_ever(path: Path) -> None:
    while True:
        path.exists()


def _take_all_memory(path: Path) -> None:
    held = [bytearray(MIB) for _ in range(1000)]
    raise AssertionError(len(held))


def _leave_open(path: Path) -> None:
    left_open.append(open_image(path))


def _disagree(path: Path) -> None:
    demand(path.stat().st_size < 0, "two readers differ")


left_open: list[VhdxImage] = []


@pytest.mark.parametrize(
    ("run", "kind", "details"),
    [
        (_raise_key_error, "KeyError", "disk.vhdx"),
        (_take_for_ever, "LimitError", "processor time"),
        (_take_all_memory, "MemoryError", "_take_all_memory"),
        (_leave_open, "leak", "1 files are still open"),
        (_disagree, DisagreementError.__name__, "two readers differ"),
    ],
)
def test_a_broken_promise_is_noticed(
    run: Callable[[Path], None], kind: str, details: str, folder: Path
) -> None:
    path = folder / "disk.vhdx"
    bases.small_root().write(path)
    violation = perform(Action(run, seconds=0.2 if run is _take_for_ever else 20), path)
    while left_open:
        left_open.pop().close()
    assert isinstance(violation, Violation)
    assert violation.kind == kind
    assert re.search(details, violation.details)


def test_finding_is_reduced_to_the_needed_mutation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(c for c in (Case(1, n) for n in range(200)) if len(spoil(c).steps) == 5)
    needed = spoil(case).steps[2]

    def fail_if_needed(path: Path) -> None:
        demand(needed not in spoil(current).steps, "the finding")

    current = case
    real = try_files

    def try_current(tried: Case, folder: Path) -> object:
        nonlocal current
        current = tried
        return real(spoil(tried), folder, [Action(fail_if_needed)])

    monkeypatch.setattr("tests.fuzz.cases.try_case", try_current)
    violation = perform(Action(fail_if_needed), folder)
    assert isinstance(violation, Violation)
    smaller = reduce(case, violation, folder)
    assert [step for step in spoil(smaller).steps if step[0].isdigit()] == [needed]
