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


def numbers_of(rule: Rule) -> tuple[int, int]:
    """Give the first and the last number of a rule."""
    match = re.fullmatch(r"R(\d+)(?:-R(\d+))?", str(rule))
    assert match, rule
    return int(match[1]), int(match[2] or match[1])


def test_numbers_are_unique() -> None:
    """A row with the number of another one would be a second name of that one."""
    assert list(Rule.__members__) == [rule.name for rule in Rule]


def test_numbers_ascend_and_do_not_overlap() -> None:
    for first, second in pairwise(map(numbers_of, Rule)):
        assert first[0] <= first[1] < second[0] <= second[1]


def test_every_rule_has_a_requirement() -> None:
    for rule in Rule:
        assert rule.requirement, rule
        assert rule.requirement == rule.requirement.strip().rstrip("."), rule


def test_spec_is_a_section_or_empty() -> None:
    for rule in Rule:
        assert re.fullmatch(r"(2(\.\d+)+)?", rule.spec), rule


def test_braces_hold_names_of_arguments() -> None:
    for rule in Rule:
        for text in (rule.requirement, rule.response, rule.error, rule.warning, rule.note):
            names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
            assert names <= ARGUMENTS | LOG_POLICIES, rule


def test_text_of_a_rule_is_its_number() -> None:
    for rule in Rule:
        number = rule.value
        assert [str(rule), f"{rule}", f"{rule:>9}"] == [number, number, f"{number:>9}"]
        assert json.dumps([rule, {rule: None}]) == f'["{number}", {{"{number}": null}}]'


def test_rule_equals_and_is_found_by_its_number() -> None:
    for rule in Rule:
        number = str(rule)
        assert rule == number
        assert {number: "found"}[rule] == "found"
        assert Rule(number) is rule  # type: ignore[call-arg]  # by value, not by `__new__`


def test_unknown_number_is_no_rule() -> None:
    with pytest.raises(ValueError, match="'R0' is not a valid Rule"):
        Rule("R0")  # type: ignore[call-arg]
