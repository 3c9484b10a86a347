"""Functions whose keyword arguments are the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest

import vhdx2raw
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.keywords import with_keywords
from vhdx2raw.operations.convert import ConvertOptions


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to do it.

    Attributes:
        size: Bytes.
        quiet: Whether to print nothing,
            on a second line.
    """

    size: int = 4096
    quiet: bool = False


def copy_with(source: str, target: str = "here", options: Options = Options()) -> object:
    """Copy a file.

    Args:
        source: A path.
        target: Another one.
        options: How to do it,
            on two lines.
    """
    return source, target, options


copy = with_keywords("copy", copy_with, Options)
untyped: Any = copy
"""The same for calls that type checkers refuse."""


@pytest.mark.parametrize(
    "call",
    [
        lambda: copy("a", "b", size=7),
        lambda: untyped("a", target="b", size=7),
        lambda: untyped(source="a", target="b", size=7),
        lambda: untyped(size=7, target="b", source="a"),
    ],
    ids=["positional", "one keyword", "keywords", "any order"],
)
def test_arguments_may_be_positional_or_keywords(call: Callable[[], object]) -> None:
    assert call() == ("a", "b", Options(size=7))


def test_defaults_are_those_of_function_and_dataclass() -> None:
    assert untyped("a") == ("a", "here", Options())
    assert untyped("a", quiet=True) == ("a", "here", Options(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("a",), {"colour": "blue"}, r"unexpected keyword argument 'colour'"),
        ((), {}, r"missing 1 required positional argument: 'source'"),
        (("a",), {"source": "b"}, r"multiple values for argument 'source'"),
        (("a", "b", "c"), {}, r"multiple values for argument 'options'"),
        (("a", "b"), {"options": Options()}, r"unexpected keyword argument 'options'"),
    ],
    ids=["unknown", "missing", "twice", "too many", "options"],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        untyped(*arguments, **keywords)


def test_signature_has_the_fields_as_keywords() -> None:
    assert str(inspect.signature(copy)) == (
        "(source: 'str', target: 'str' = 'here', *, size: 'int' = 4096, quiet: 'bool' = False)"
        " -> 'object'"
    )


def test_documentation_is_that_of_function_and_fields() -> None:
    assert inspect.getdoc(copy) == (
        "Copy a file.\n"
        "\n"
        "Args:\n"
        "    source: A path.\n"
        "    target: Another one.\n"
        "\n"
        "Keyword arguments:\n"
        "    size: Bytes.\n"
        "    quiet: Whether to print nothing,\n"
        "        on a second line."
    )


def test_function_has_its_own_name() -> None:
    assert (copy.__name__, copy.__qualname__) == ("copy", "copy")
    assert copy.__module__ == __name__
    assert copy_with.__name__ == "copy_with"


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (vhdx2raw.open, OpenOptions),
        (vhdx2raw.check, OpenOptions),
        (vhdx2raw.convert, ConvertOptions),
    ],
    ids=["open", "check", "convert"],
)
def test_public_functions_take_and_document_every_option(
    function: Callable[..., object], options: type[Any]
) -> None:
    parameters = inspect.signature(function).parameters
    documentation = inspect.getdoc(function) or ""
    for field in fields(options):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n    {field.name}: " in documentation
    assert "options" not in parameters
    assert "options:" not in documentation
