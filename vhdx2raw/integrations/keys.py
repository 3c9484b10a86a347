"""How an image is opened, as KEY=VALUE: in this form programs hand words to their plugins.

Besides ``file``, the image, the keys are the arguments of `vhdx2raw.open`, with ``-`` for ``_``.
What takes several values is given once for each, in the singular:

    file=child.avhdx parent=base.vhdx parent=root.vhdx
    file=disk.vhdx log-policy=ignore
    file=damaged.vhdx salvage=true region=bat=0x300000
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import vhdx2raw

FILE = "file"
BOOLEANS = {"true": True, "false": False}
_ARGUMENTS = [
    argument
    for argument in inspect.signature(vhdx2raw.open).parameters.values()
    if argument.kind is argument.KEYWORD_ONLY
]


def _is_single(default: object) -> bool:
    """Return whether an argument with this default has one value, and is no list or mapping."""
    return default is None or isinstance(default, bool | int | float | str | Enum)


def _key_of(argument: inspect.Parameter) -> str:
    name = argument.name.replace("_", "-")
    return name if _is_single(argument.default) else name.removesuffix("s")


KEYS = {_key_of(argument): argument for argument in _ARGUMENTS}
"""The argument that each key is about."""


def write_keys(name: str, options: object) -> Iterator[tuple[str, str]]:
    """Yield the keys and values that say how an image is opened.

    Args:
        name: The image.
        options: What has the arguments of `vhdx2raw.open` as attributes.
    """
    yield FILE, name
    for key, argument in KEYS.items():
        value = getattr(options, argument.name)
        if isinstance(value, Mapping):
            yield from ((key, f"{item}={place}") for item, place in value.items())
        elif not _is_single(argument.default):
            yield from ((key, os.fspath(item)) for item in value)
        elif value != argument.default:
            yield key, _text_of(value)


def _text_of(value: Any) -> str:  # noqa: ANN401 - of any argument
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_key(arguments: dict[str, Any], key: str, text: str) -> None:
    """Put what one key says into the arguments for `vhdx2raw.open`.

    Raises:
        ValueError: There is no such key, or it cannot have this value.
    """
    if key not in KEYS:
        raise ValueError(f"there is no key {key!r}, only {', '.join([FILE, *KEYS])}")
    name, default = KEYS[key].name, KEYS[key].default
    try:
        if isinstance(default, tuple):
            arguments.setdefault(name, []).append(text)
        elif _is_single(default):
            arguments[name] = _value_of(text, default)
        else:
            item, _, place = text.partition("=")
            arguments.setdefault(name, {})[item] = int(place, 0)
    except (KeyError, ValueError):
        raise ValueError(f"{key}={text}: {key} cannot have this value") from None


def _value_of(text: str, default: object) -> object:
    """Return a value of the same type as `default`."""
    if isinstance(default, bool):
        return BOOLEANS[text]
    if isinstance(default, Enum | int | float):
        return type(default)(text)
    return text
