"""What is to become of one disk of many, and lists of that: a manifest, a line for each disk."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.operations.convert import ConvertOptions
from vhdx2raw.output.shape import OutputFormat
from vhdx2raw.source.file_object import file_name_of
from vhdx2raw.vhdx.log import LogPolicy

_JSON_NAMES = {str: "a string", int: "a number", bool: "true or false", list: "a list", dict: "an"
    " object", type(None): "null", float: "a number"}  # fmt: skip


STANDARD_STREAM = "-"
SUFFIXES = {"raw": ".img", "vhd": ".vhd"}
"""How the name of an output ends, by its format."""


class Task(NamedTuple):
    """A disk and what it becomes.

    Attributes:
        source: The VHDX file.
        destination: The raw image.
        parents: The files of its parents, the nearest first; empty if they are to be looked for.
        options: What is different for this disk: fields of `OpenOptions` and `ConvertOptions`.
        file_size: Bytes of its files, which is what parts of a list are balanced by.
        virtual_size: Bytes of the disk; 0 if that is not known.
    """

    source: str
    destination: str
    parents: tuple[str, ...] = ()
    options: Mapping[str, object] = {}
    file_size: int = 0
    virtual_size: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read."""
        return (self.source, *self.parents)

    def apply_options(
        self, opening: OpenOptions, converting: ConvertOptions
    ) -> tuple[OpenOptions, ConvertOptions]:
        """Return the options for this disk, made of those for all.

        Raises:
            ValueError: Two contradict each other, or a value is out of its range.
        """
        own = {**self.options, **({"parents": self.parents} if self.parents else {})}
        opened: dict[str, Any] = {name: own[name] for name in own if hasattr(opening, name)}
        converted: dict[str, Any] = {name: own[name] for name in own if name not in opened}
        return dataclasses.replace(opening, **opened), dataclasses.replace(converting, **converted)

    def to_json(self) -> str:
        """Return a line of a list, with everything about the disk."""
        facts = {
            "source": self.source,
            "destination": self.destination,
            "parents": self.parents,
            "file-size": self.file_size,
            "virtual-size": self.virtual_size,
        }
        if self.options:
            facts["options"] = {
                name.replace("_", "-"): getattr(value, "value", value)
                for name, value in self.options.items()
            }
        return json.dumps(facts)


def output_name(path: str, output_format: OutputFormat) -> str:
    """Return what the output of a file is called: `disk.vhdx` becomes `disk.img`."""
    return Path(file_name_of(path)).stem + SUFFIXES[output_format]


class ListedDisks(NamedTuple):
    """What a list holds.

    Attributes:
        paths: The lines that are nothing but a path.
        tasks: The lines that say what the disk becomes.
    """

    paths: list[str]
    tasks: list[Task]


def read_list(path: str, folder: str | None, output_format: OutputFormat = "raw") -> ListedDisks:
    """Read a list of disks: a path a line, or an object of JSON, which begins with a brace.

    Args:
        path: The list.
        folder: Where images go that the list gives no place.
        output_format: What they are, unless the list says so.

    Raises:
        ValueError: A line is not what it should be; names the line.
        OSError: The host cannot read the list.
    """
    listed = ListedDisks([], [])
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        text = os.fsdecode(line).strip("\r\n")
        if not text.lstrip().startswith("{"):
            listed.paths.extend([text] if text.strip() else [])
            continue
        try:
            listed.tasks.append(_parse(text, folder, output_format))
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from error
    return listed


def _parse(text: str, folder: str | None, output_format: OutputFormat) -> Task:
    try:
        facts = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error
    types = {
        "source": str,
        "destination": str,
        "parents": list,
        "options": dict,
        "file-size": int,
        "virtual-size": int,
    }
    for key, value in facts.items():
        if key not in types:
            raise ValueError(f"has the unknown key {key!r}")
        if type(value) is not types[key]:
            raise ValueError(f"{key} is not {_JSON_NAMES[types[key]]}")
    parents = tuple(facts.get("parents", ()))
    if not all(isinstance(parent, str) for parent in parents):
        raise ValueError("parents is not a list of strings")
    source, destination = facts.get("source", ""), facts.get("destination", "")
    options = dict(_iter_options(facts.get("options", {})))
    if not destination and folder is not None:
        own: Any = options.get("output_format", output_format)
        destination = str(Path(folder, output_name(source, own)))
    for name, value in {"source": source, "destination": destination}.items():
        if value in ("", STANDARD_STREAM):
            raise ValueError(f"has no {name} that is a file")
    size = facts.get("file-size", _size_of(source, *parents))
    return Task(source, destination, parents, options, size, facts.get("virtual-size", 0))


def _size_of(*paths: str) -> int:
    """Return the bytes of files together; one that cannot be looked at is reported when opened."""
    size = 0
    for path in paths:
        try:
            size += os.stat(path).st_size  # noqa: PTH116 - no Path is needed
        except (OSError, ValueError):  # noqa: PERF203 - a file is slow anyway
            continue
    return size


def _iter_options(facts: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield options by the names of their fields, each of a type that its field takes."""
    hints = {**get_type_hints(OpenOptions), **get_type_hints(ConvertOptions)}
    for key, value in facts.items():
        name = key.replace("-", "_")
        if name in ("parents", "progress") or name not in hints or "_" in key:
            raise ValueError(f"has the unknown option {key!r}")
        hint = hints[name]
        if hint is LogPolicy and value in {policy.value for policy in LogPolicy}:
            yield name, LogPolicy(value)
        elif _fits(value, hint):
            yield name, value
        else:
            raise ValueError(f"the option {key} cannot be {json.dumps(value)}")


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type or a union of types
    """Return whether a value of JSON is of a type: simple, or a collection of simple ones."""
    if isinstance(hint, type):
        return type(value) is hint
    origin = getattr(hint, "__origin__", None)
    if origin is Literal:
        return value in get_args(hint)
    if origin is None:  # a union, X | Y
        return any(_fits(value, part) for part in get_args(hint))
    if isinstance(value, list):
        return issubclass(list, origin) and all(_fits(v, get_args(hint)[0]) for v in value)
    if isinstance(value, dict):
        return issubclass(dict, origin) and all(_fits(v, get_args(hint)[1]) for v in value.values())
    return False
