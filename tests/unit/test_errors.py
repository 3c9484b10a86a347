"""Errors: one tree, one exit code for each family, a remedy and a hint."""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import vhdx2raw
from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.errors import (
    CUT_OFF,
    CorruptImageError,
    ImageError,
    OutputError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    TruncatedImageError,
    UnsupportedImageError,
    Vhdx2rawError,
)
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule

FAMILIES = {
    "UnsupportedImageError": 4,
    "CorruptImageError": 5,
    "PartitionError": 4,
    "MountError": 8,
    "ServerError": 8,
    "RemoteError": 8,
    "ParentError": 6,
    "OutputError": 7,
    "NoSpaceError": 8,
    "SourceChangedError": 9,
    "UntoldResultError": 8,
}
"""Exit codes by the class that heads a family, as promised to users."""


def exceptions_of_the_package() -> list[type[BaseException]]:
    """Find every exception that any module of the package defines."""
    found: dict[str, type[BaseException]] = {}
    for module in pkgutil.walk_packages(vhdx2raw.__path__, "vhdx2raw."):
        if module.name.endswith(("__main__", ".nbdkit")):  # which only nbdkit can load
            continue
        for thing in vars(importlib.import_module(module.name)).values():
            is_own = inspect.isclass(thing) and thing.__module__.startswith("vhdx2raw")
            if is_own and issubclass(thing, BaseException):
                found[thing.__name__] = thing
    return sorted(found.values(), key=lambda error: error.__name__)


ERRORS = [error for error in exceptions_of_the_package() if error.__name__ != "Interrupted"]
LEAVES = [error for error in ERRORS if not error.__subclasses__()]


def test_every_known_error_is_found() -> None:
    names = {error.__name__ for error in ERRORS}
    assert set(FAMILIES) | {"Vhdx2rawError", "ImageError", "TruncatedImageError"} <= names


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_under_the_one_base(error: type[BaseException]) -> None:
    assert issubclass(error, Vhdx2rawError)
    assert error.__module__ == "vhdx2raw.errors"


def test_an_interruption_is_no_error_of_the_package() -> None:
    [interrupted] = [error for error in exceptions_of_the_package() if error not in ERRORS]
    assert interrupted.__module__ == "vhdx2raw.cli.signals"
    assert not issubclass(interrupted, Exception)


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_errors_have_the_exit_code_of_their_family(error: type[Vhdx2rawError]) -> None:
    family = next(ancestor.__name__ for ancestor in error.__mro__ if ancestor.__name__ in FAMILIES)
    text: Any = Finding(Rule.FILE_END, "file", "is wrong") if issubclass(error, ImageError) else "x"
    assert exit_code_of(error(text)) == FAMILIES[family]


def test_truncated_is_a_kind_of_corrupt() -> None:
    assert issubclass(TruncatedImageError, CorruptImageError)
    assert issubclass(CorruptImageError, ImageError)


@pytest.mark.parametrize("error", [UnsupportedImageError, CorruptImageError, TruncatedImageError])
def test_image_error_has_its_finding_and_file(error: type[ImageError]) -> None:
    finding = Finding(Rule.HEADER_VALID, "header 1", "is wrong", file_offset=65536)
    caught = error(finding, path="disk.vhdx")
    assert caught.finding is finding
    assert caught.path == "disk.vhdx"
    assert str(caught) == f"disk.vhdx: {finding}"
    caught.path = None
    assert str(caught) == str(finding)


def test_an_output_error_names_the_file() -> None:
    assert str(OutputError("exists already", path="out.img")) == "out.img: exists already"
    assert str(OutputError("exists already")) == "exists already"
    assert OutputError("exists already").hint == ""


def test_hint_is_the_remedy_in_terms_of_python() -> None:
    remedy = "leave out {no_replay}, or use {ignore_log} or {salvage}"
    error = Vhdx2rawError("is wrong", remedy=remedy)
    assert error.remedy == remedy
    assert error.hint == "leave out LogPolicy.REFUSE, or use LogPolicy.IGNORE or salvage="


def test_truncated_file_has_the_remedy_of_a_cut_file() -> None:
    error = TruncatedImageError(Finding(Rule.FILE_END, "file", "ends too early"))
    assert error.remedy == error.hint == CUT_OFF


@pytest.mark.parametrize("error", [ParentNotFoundError, ParentMismatchError, ParentCycleError])
def test_parent_error_has_a_rule(error: type[ParentError]) -> None:
    assert error("is missing").rule is Rule.PARENT_MISSING
    assert error("is its own parent", rule=Rule.PARENT_CYCLE).rule is Rule.PARENT_CYCLE
