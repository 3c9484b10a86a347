"""Groups of options: dataclasses whose fields are options.

A command names a group as the type of a parameter, and `expand_groups` makes of it what Typer
understands: a function with a parameter for each field. What is not called is not made: without
`eq`, `repr` and `frozen` such a class takes a fifth of the time, and every start waits for several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

import typer

Value = TypeVar("Value")


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with a parameter for each option of its groups."""
    parameters: list[Parameter] = []
    groups: dict[str, type] = {}
    # Not get_type_hints of a function: before Python 3.11 it wraps what has None as its default.
    for parameter in signature(command, eval_str=True).parameters.values():
        hint = parameter.annotation
        if isinstance(hint, type) and is_dataclass(hint):
            groups[parameter.name] = hint
            types = get_type_hints(hint, include_extras=True)
            parameters += [_parameter_of(option, types[option.name]) for option in fields(hint)]
        else:
            parameters.append(parameter)

    def run(**values: object) -> None:
        made = {
            name: group(**{option.name: values.pop(option.name) for option in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, {}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter_of(option: Field[Any], hint: object) -> Parameter:
    default = option.default
    if option.default_factory is not MISSING:
        default = option.default_factory()
    return Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def parsed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return `parse`, whose `ValueError` becomes a wrong use of the command line."""

    def parse_option(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse_option
