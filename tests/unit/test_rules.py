"""The table of rules: every row is complete, and a rule is its number."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from itertools import pairwise
from string import Formatter

import pytest

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.operations.convert import ConvertOptions
from vhdx2raw.rules import Rule

ARGUMENTS = {field.name for field in fields(OpenOptions) + fields(ConvertOptions)}
LOG_POLICIES = {"no_replay", "ignore_log"}
"""Names that stand for a `LogPolicy`."""
RULES = pytest.mark.parametrize("rule", Rule, ids=str)


def numbers_of(rule: Rule) -> tuple[int, int]:
    """Give the first and the last number of a rule."""
    match = re.fullmatch(r"R(\d+)(?:-R(\d+))?", str(rule))
    assert match
    return int(match[1]), int(match[2] or match[1])


def test_numbers_are_unique() -> None:
    """A row with the number of another one would be a second name of that one."""
    assert list(Rule.__members__) == [rule.name for rule in Rule]


def test_numbers_ascend_and_do_not_overlap() -> None:
    for first, second in pairwise(map(numbers_of, Rule)):
        assert first[0] <= first[1] < second[0] <= second[1]


@RULES
def test_rule_has_a_requirement(rule: Rule) -> None:
    assert rule.requirement
    assert rule.requirement == rule.requirement.strip().rstrip(".")


@RULES
def test_spec_is_a_section_or_empty(rule: Rule) -> None:
    assert re.fullmatch(r"(2(\.\d+)+)?", rule.spec)


@RULES
def test_braces_hold_names_of_arguments(rule: Rule) -> None:
    texts = (rule.requirement, rule.response, rule.error, rule.warning, rule.note)
    names = {name for text in texts for _, name, _, _ in Formatter().parse(text) if name}
    assert names <= ARGUMENTS | LOG_POLICIES


@RULES
def test_text_of_a_rule_is_its_number(rule: Rule) -> None:
    number = rule.value
    assert [str(rule), f"{rule}", f"{rule:>9}"] == [number, number, f"{number:>9}"]
    assert json.loads(json.dumps({"rule": rule, rule: None})) == {"rule": number, number: None}


@RULES
def test_rule_equals_and_is_found_by_its_number(rule: Rule) -> None:
    assert rule == str(rule)
    assert {str(rule): "found"}[rule] == "found"
    assert Rule(str(rule)) is rule  # type: ignore[call-arg]  # by value, not by `__new__`


def test_unknown_number_is_no_rule() -> None:
    with pytest.raises(ValueError, match="'R0' is not a valid Rule"):
        Rule("R0")  # type: ignore[call-arg]
