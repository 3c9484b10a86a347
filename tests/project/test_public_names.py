"""What the package offers: all of it named, sorted, there, and nothing else."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import get_origin

import pytest

import vhdx2raw
import vhdx2raw.cli


def test_the_list_of_public_names_is_sorted_and_has_no_double() -> None:
    names = vhdx2raw.__all__
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if name[0].isupper() and not name.isupper()]
    functions = [name for name in names if name[0].islower()]
    assert names == sorted(constants) + sorted(classes) + sorted(functions)
    assert len(set(names)) == len(names)


def test_every_name_that_is_imported_is_public() -> None:
    tree = ast.parse(Path(vhdx2raw.__file__).read_text(encoding="utf-8"))
    imported = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == sorted(vhdx2raw.__all__)


@pytest.mark.parametrize("name", vhdx2raw.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(vhdx2raw, name)
    is_alias = get_origin(thing) is not None  # such as a Callable, which Python 3.10 calls a class
    if (inspect.isclass(thing) and not is_alias) or inspect.isfunction(thing):
        assert thing.__module__.startswith("vhdx2raw.")
        assert inspect.getdoc(thing)


def test_a_star_gives_just_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from vhdx2raw import *", names)
    del names["__builtins__"]
    assert sorted(names) == sorted(vhdx2raw.__all__)


def test_what_a_public_function_raises_is_public_too() -> None:
    errors = importlib.import_module("vhdx2raw.errors")
    found = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert found <= set(vhdx2raw.__all__)


def test_the_command_line_offers_its_main_function() -> None:
    assert vhdx2raw.cli.__all__ == ["main"]
    assert callable(vhdx2raw.cli.main)


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(vhdx2raw.__file__).with_name("py.typed").is_file()
