"""KEY=VALUE for plugins: what is written is read again, and what is no key is refused."""

import inspect
from pathlib import Path
from typing import Any

import pytest

import vhdx2raw
from vhdx2raw import LogPolicy
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.integrations.keys import KEYS, _value_of, read_key, write_keys

CASES: list[tuple[OpenOptions, list[tuple[str, str]]]] = [
    (OpenOptions(), []),
    (
        OpenOptions(parents=["a=b", "c"], parent_dirs=[Path("d")]),
        [("parent", "a=b"), ("parent", "c"), ("parent-dir", "d")],
    ),
    (
        OpenOptions(
            allow_parent_mismatch=True,
            log_policy=LogPolicy.REFUSE,
            salvage=True,
            regions={"bat": 3 << 20, "metadata": 512},
        ),
        [
            ("allow-parent-mismatch", "true"),
            ("log-policy", "refuse"),
            ("salvage", "true"),
            ("region", "bat=3145728"),
            ("region", "metadata=512"),
        ],
    ),
]


@pytest.mark.parametrize(("options", "pairs"), CASES)
def test_options_are_written_and_read(options: OpenOptions, pairs: list[tuple[str, str]]) -> None:
    assert list(write_keys("disk.vhdx", options)) == [("file", "disk.vhdx"), *pairs]
    found: dict[str, Any] = {}
    for key, value in pairs:
        read_key(found, key, value)
    again = OpenOptions(**found)
    assert list(write_keys("disk.vhdx", again)) == [("file", "disk.vhdx"), *pairs]
    assert again.log_policy is options.log_policy
    assert again.regions == options.regions


def test_every_argument_of_open_has_a_key() -> None:
    parameters = inspect.signature(vhdx2raw.open).parameters.values()
    options = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    assert [argument.name for argument in KEYS.values()] == options
    assert {"parent", "parent-dir", "log-policy", "salvage", "region"} < set(KEYS)


def test_a_place_may_be_hexadecimal_and_an_answer_no() -> None:
    found: dict[str, Any] = {}
    read_key(found, "region", "bat=0x300000")
    read_key(found, "salvage", "false")
    assert found == {"regions": {"bat": 3 << 20}, "salvage": False}


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [("3", 8, 3), ("0.5", 30.0, 0.5), ("/a", None, "/a"), ("b", "a", "b"), ("true", False, True)],
)
def test_a_value_is_of_the_type_of_the_default(text: str, default: object, value: object) -> None:
    assert _value_of(text, default) == value
    assert type(_value_of(text, default)) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "fil",
            "x",
            "there is no key 'fil', only file, .*parent, parent-dir, allow-parent-mismatch",
        ),
        ("salvage", "maybe", "salvage=maybe: salvage cannot have this value"),
        ("log-policy", "skip", "log-policy=skip: log-policy cannot have this value"),
        ("region", "bat", "region=bat: region cannot have this value"),
    ],
)
def test_what_cannot_be_read_is_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_key({}, key, value)
