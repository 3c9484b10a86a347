"""Functions whose keyword arguments are the fields of a dataclass of options.

So each option is named, typed, documented and given its default once, in the dataclass, and both
type checkers and `help` see it as an argument of the function.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

Fields = ParamSpec("Fields")
Options = TypeVar("Options")
First = TypeVar("First")
Second = TypeVar("Second")
Result = TypeVar("Result")
_OPTIONS_ENTRY = re.compile(r"\n    options: .*(?:\n        .*)*")
"""What a docstring has about an argument that is none of the new function."""


@overload
def with_keywords(
    name: str, function: Callable[[First, Options], Result], options: Callable[Fields, Options]
) -> Callable[Concatenate[First, Fields], Result]: ...


@overload
def with_keywords(
    name: str,
    function: Callable[[First, Second, Options], Result],
    options: Callable[Fields, Options],
) -> Callable[Concatenate[First, Second, Fields], Result]: ...


def with_keywords(
    name: str, function: Callable[..., Result], options: Callable[..., object]
) -> Callable[..., Result]:
    """Return a function that takes the fields of `options` instead of one argument of that type.

    Args:
        name: What the new function is called.
        function: Its last argument is called `options`.
        options: A dataclass, all of whose fields are keyword-only.
    """
    own = inspect.signature(function)
    *arguments, _ = own.parameters.values()
    fields = inspect.signature(options).parameters.values()
    known = {field.name for field in fields}
    names = [argument.name for argument in arguments]

    def call(*values: Any, **keywords: Any) -> Result:  # noqa: ANN401 - as in the signature
        named = {own_name: keywords.pop(own_name) for own_name in names if own_name in keywords}
        for unknown in keywords.keys() - known:
            raise TypeError(f"{name}() got an unexpected keyword argument {unknown!r}")
        return function(*values, **named, options=options(**keywords))

    call.__name__ = call.__qualname__ = name
    call.__module__ = function.__module__
    call.__signature__ = own.replace(parameters=[*arguments, *fields])  # type: ignore[attr-defined]
    documented = inspect.cleandoc(options.__doc__ or "").partition("Attributes:")[2]
    inherited = _OPTIONS_ENTRY.sub("", inspect.getdoc(function) or "")
    call.__doc__ = f"{inherited}\n\nKeyword arguments:{documented}"
    return call


def __getattr__(name: str) -> object:
    """Return a public function, for `pickle`, which looks for it where it was made.

    Raises:
        AttributeError: There is none of this name.
    """
    package = sys.modules[__name__.rpartition(".")[0]]  # which makes them when they are used
    if name not in getattr(package, "_FUNCTIONS", ()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(package, name)
