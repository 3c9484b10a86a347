"""Errors: one tree, one exit code for each family, one format of the facts."""

import importlib
import inspect
import itertools
import pkgutil
from typing import Any

import pytest

import vhdx2raw
from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    OutputError,
    TruncatedImageError,
    UnsupportedImageError,
    Vhdx2rawError,
)
from vhdx2raw.findings import Finding, Findings
from vhdx2raw.rules import Rule

FAMILIES = {"UnsupportedImageError": 4, "CorruptImageError": 5, "ParentError": 6, "OutputError": 7}
"""Exit codes by the class that heads a family, as promised to users."""


def exceptions_of_the_package() -> list[type[BaseException]]:
    """Find every exception that any module of the package defines."""
    found: dict[str, type[BaseException]] = {}
    for module in pkgutil.walk_packages(vhdx2raw.__path__, "vhdx2raw."):
        if module.name.endswith("__main__"):
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
def test_errors_have_the_exit_code_of_their_family(
    error: type[Vhdx2rawError],
) -> None:
    family = next(ancestor.__name__ for ancestor in error.__mro__ if ancestor.__name__ in FAMILIES)
    text: Any = Finding(Rule.FILE_END, "file", "is wrong") if issubclass(error, ImageError) else "x"
    assert exit_code_of(error(text)) == FAMILIES[family]


def test_truncated_is_a_kind_of_corrupt() -> None:
    assert issubclass(TruncatedImageError, CorruptImageError)
    assert issubclass(CorruptImageError, ImageError)


PARTS = {
    "file_offset": (0x30018, " at file offset 0x30018"),
    "found": ("0x04", "found 0x04"),
    "expected": ("0 to 3", "expected 0 to 3"),
    "spec": ("2.5.1", " (MS-VHDX 2.5.1)"),
}
SUBSETS = [
    subset for count in range(len(PARTS) + 1) for subset in itertools.combinations(PARTS, count)
]


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: " ".join(subset) or "nothing")
def test_finding_formats_the_facts_that_it_has(subset: tuple[str, ...]) -> None:
    facts = {name: PARTS[name][0] for name in subset}
    finding = Finding(Rule.ENTRY_RESERVED, "BAT entry 3", "is wrong", **({"spec": ""} | facts))  # type: ignore[arg-type]
    texts = {name: PARTS[name][1] if name in subset else "" for name in PARTS}
    values = ", ".join(filter(None, [texts["found"], texts["expected"]]))
    assert str(finding) == (
        f"BAT entry 3{texts['file_offset']}: is wrong"
        f"{': ' if values else ''}{values}{texts['spec']}"
    )


def test_a_file_offset_of_zero_is_a_place() -> None:
    assert str(Finding(Rule.SIGNATURE, "file", "is wrong", file_offset=0)) == (
        "file at file offset 0x0: is wrong (MS-VHDX 2.2.1)"
    )


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


def test_findings_keep_warnings_in_order() -> None:
    assert Findings().warnings == ()
    findings = Findings()
    findings.warn(Rule.HEADER_VALID, "header 1", "is wrong", file_offset=65536)
    findings.note(Rule.CREATOR, "creator", "is empty")
    findings.warn(Rule.BITMAP_WITHOUT_PARENT, "BAT", "is unusual")
    assert findings.warnings == (
        Finding(Rule.HEADER_VALID, "header 1", "is wrong", file_offset=65536),
        Finding(Rule.BITMAP_WITHOUT_PARENT, "BAT", "is unusual"),
    )


def test_long_text_of_a_file_is_shortened() -> None:
    text = "a" * 1000 + "z" * 1000
    finding = Finding(Rule.LINKAGE_TEXT, "locator", "is no GUID", found=text, spec="")
    assert str(finding) == f"locator: is no GUID: found {'a' * 200}...{'z' * 200}"
