"""Findings: one format of the facts, and what strict and lenient readers keep."""

import itertools

import pytest

from vhdx2raw.errors import CorruptImageError
from vhdx2raw.findings import MAX_FINDINGS_PER_RULE, Finding, Findings, Severity
from vhdx2raw.rules import Rule

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


@pytest.mark.parametrize("rule", [Rule.HEADER_VALID, Rule.ARITHMETIC])
def test_section_of_a_finding_is_that_of_its_rule(rule: Rule) -> None:
    assert Finding(rule, "file", "is wrong").spec == rule.spec
    assert Finding(rule, "file", "is wrong", spec="2.5").spec == "2.5"
    assert Finding(rule, "file", "is wrong", spec="").spec == ""


def test_error_ends_a_strict_reader_only() -> None:
    facts = (Rule.NO_HEADER, "headers", "none is valid")
    strict, lenient = Findings(), Findings(lenient=True)
    with pytest.raises(CorruptImageError) as caught:
        strict.error(CorruptImageError, *facts)
    assert caught.value.finding == Finding(*facts)
    assert strict.reported == []
    lenient.error(CorruptImageError, *facts)
    assert lenient.reported == [(Severity.ERROR, Finding(*facts))]


@pytest.mark.parametrize("lenient", [False, True])
def test_too_many_findings_of_a_rule_are_only_counted(lenient: bool) -> None:  # noqa: FBT001
    findings = Findings(lenient=lenient)
    for number in range(MAX_FINDINGS_PER_RULE + 5):
        findings.warn(Rule.STALE_OFFSET, "BAT", f"problem {number}")
    findings.note(Rule.STALE_OFFSET, "BAT", "of another severity")
    findings.warn(Rule.BLOCK_PLACE, "BAT", "of another rule")
    assert len(findings.warnings) == MAX_FINDINGS_PER_RULE + 1
    assert findings.warnings[-2].problem == f"problem {MAX_FINDINGS_PER_RULE - 1}"
    assert findings.suppressed == {(Severity.WARNING, Rule.STALE_OFFSET): 5}


def test_lenient_reader_reports_a_finding_once() -> None:
    findings = Findings(lenient=True)
    for _ in range(2):
        findings.warn(Rule.SIGNATURE, "file", "is wrong")
        findings.note(Rule.SIGNATURE, "file", "is wrong")
    assert [severity for severity, _ in findings.reported] == [Severity.WARNING, Severity.NOTE]


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
