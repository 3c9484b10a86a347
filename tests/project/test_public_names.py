"""What the package offers: named, sorted, documented, and nothing else."""

import ast
import importlib
import inspect
import io
import pydoc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_origin

import pytest

import vhdx2raw
import vhdx2raw.cli
from tests.support.cli import small_disk
from tests.support.files import has_expected_bytes

FUNCTIONS = ["open", "convert", "apply", "check", "compare", "digest"]
"""What most programs call, in the order of the help."""
BUILDING_BLOCKS = {
    *("ApplyOptions", "ConvertOptions", "OpenOptions"),
    *("apply_checkpoint", "check_file", "convert_disk", "open_disk"),
}
"""What public functions are made of by `with_keywords`."""
DEPRECATED = {
    "Chain": "disk.chain",
    "VhdxImage": "vhdx.image",
    "iter_extents": "disk.walk",
    "open_chain": "disk.chain",
    "open_image": "vhdx.image",
}
MAX_REPR_LENGTH = 150


def name_of_type(thing: object) -> str:
    return type(thing).__name__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    small_disk().write(tmp_path / "disk.vhdx")
    return tmp_path / "disk.vhdx"


# -- names --------------------------------------------------------------------------------------


def test_public_names_are_sorted_and_unique() -> None:
    assert vhdx2raw.__all__ == sorted(set(vhdx2raw.__all__))


def test_every_imported_name_is_public() -> None:
    tree = ast.parse(Path(vhdx2raw.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vhdx2raw.")
        for alias in node.names
    }
    own = {"__version__", "apply", "check", "convert", "open"}
    assert imported - BUILDING_BLOCKS - {"with_keywords"} | own == set(vhdx2raw.__all__)


def test_every_name_is_loaded_from_the_module_that_type_checkers_see() -> None:
    tree = ast.parse(Path(vhdx2raw.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: (node.module or "").removeprefix("vhdx2raw.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name, module in vhdx2raw._MODULES.items():
        assert seen[name] == module, name
    for function, maker in vhdx2raw._FUNCTIONS.items():
        module, worker, options_module, options = maker
        assert (seen[worker], seen[options]) == (module, options_module), function


def test_only_what_is_used_is_loaded() -> None:
    program = (
        "import sys, vhdx2raw; before = set(sys.modules); vhdx2raw.open;"
        " print(*sorted(m for m in before if m.startswith('vhdx2raw')));"
        " print(any('operations' in m or 'output' in m for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["vhdx2raw", "False"]


def test_all_names_are_listed_before_they_are_loaded() -> None:
    assert set(vhdx2raw.__all__) <= set(dir(vhdx2raw))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vhdx2raw' has no attribute 'missing'"):
        vhdx2raw.missing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", vhdx2raw.__all__)
def test_public_name_exists_and_is_documented(name: str) -> None:
    thing = getattr(vhdx2raw, name)
    is_alias = get_origin(thing) is not None  # such as a Callable, which Python 3.10 calls a class
    if (inspect.isclass(thing) and not is_alias) or inspect.isfunction(thing):
        assert thing.__module__.startswith("vhdx2raw.")
        assert inspect.getdoc(thing)


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from vhdx2raw import *", names)
    del names["__builtins__"]
    assert sorted(names) == sorted(vhdx2raw.__all__)


def test_version_is_that_of_the_metadata() -> None:
    assert vhdx2raw.__version__ == version("vhdx2raw")


def test_all_errors_are_public() -> None:
    errors = importlib.import_module("vhdx2raw.errors")
    found = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert found <= set(vhdx2raw.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vhdx2raw' has no attribute 'no_such_name'"):
        getattr(vhdx2raw, "no_such_name")  # noqa: B009 - a type checker would refuse the other


@pytest.mark.parametrize("name", DEPRECATED)
def test_deprecated_name_works_with_a_warning(name: str) -> None:
    assert name not in vhdx2raw.__all__
    with pytest.warns(DeprecationWarning, match=rf"vhdx2raw\.{name} .* VirtualDisk") as warnings:
        thing = getattr(vhdx2raw, name)
    assert warnings[0].filename == __file__
    assert thing is getattr(importlib.import_module(f"vhdx2raw.{DEPRECATED[name]}"), name)


def test_command_line_offers_its_main_function() -> None:
    assert vhdx2raw.cli.__all__ == ["main"]
    assert callable(vhdx2raw.cli.main)


def test_package_is_marked_as_typed() -> None:
    assert Path(vhdx2raw.__file__).with_name("py.typed").is_file()


# -- what a user of the interpreter sees --------------------------------------------------------


def test_help_begins_with_what_users_call() -> None:
    text = pydoc.plain(pydoc.render_doc(vhdx2raw)).partition("DESCRIPTION\n")[2]
    lines = [line.strip() for line in text.splitlines()[: len(FUNCTIONS)]]
    assert [line.partition("(")[0] for line in lines] == FUNCTIONS


@pytest.mark.parametrize("name", ["open", "convert", "apply", "check"])
def test_help_lists_every_option_of_a_function(name: str) -> None:
    function = getattr(vhdx2raw, name)
    parameters = inspect.signature(function).parameters.values()
    options = [option.name for option in parameters if option.kind is option.KEYWORD_ONLY]
    assert len(options) >= 5
    text = pydoc.plain(pydoc.render_doc(function))
    assert f"{name}(" in text.splitlines()[2]
    described = text.partition("Keyword arguments:")[2]
    assert [option for option in options if f"{option}: " not in described] == []


def test_repr_is_one_short_line(path: Path) -> None:
    with vhdx2raw.open(path) as disk, vhdx2raw.RawFile(path) as raw:
        things = [disk, raw, *disk.extents()]
        texts = [repr(thing).replace(str(path), "disk.vhdx") for thing in things]
    assert texts[0] == f"<VirtualDisk 'disk.vhdx', dynamic, {small_disk().virtual_disk_size} bytes>"
    assert texts[1] == f"<RawFile 'disk.vhdx', {path.stat().st_size} bytes>"
    assert texts[2] == "<Extent DATA 0x0-0x100000, 'disk.vhdx' at 0x500000>"
    assert all(text.isprintable() and len(text) <= MAX_REPR_LENGTH for text in texts)


# -- destinations -------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [io.BytesIO(), 1, None, b"disk.img"], ids=name_of_type)
def test_destination_of_another_type_is_a_type_error(path: Path, destination: object) -> None:
    pattern = rf"neither a path nor a sink, but {name_of_type(destination)}; .*StreamSink\(file\)"
    with pytest.raises(TypeError, match=pattern):
        vhdx2raw.convert(path, destination)  # type: ignore[arg-type]


def test_stream_sink_writes_to_an_open_file(path: Path, tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        with pytest.raises(TypeError, match=r"BufferedWriter; .*StreamSink\(file\)"):
            vhdx2raw.convert(path, file)  # type: ignore[arg-type]
        vhdx2raw.convert(path, vhdx2raw.StreamSink(file))
    assert has_expected_bytes(tmp_path / "disk.img", small_disk())
