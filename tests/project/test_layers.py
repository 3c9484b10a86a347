"""Who may import whom: the order is the list in the docstring of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vhdx2raw

PACKAGE = Path(vhdx2raw.__file__).parent
ROOM = re.compile(r"^    (\w+)  +\S", re.MULTILINE)
ROOMS = ROOM.findall(vhdx2raw.__doc__ or "")
MODULES = sorted(PACKAGE.rglob("*.py"))
SPEAKING = {"typer", "tqdm", "rich", "click"}
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    """Give the name of a module within the package, such as ``cli/app``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(path: Path) -> str:
    """Give the room that a module belongs to: itself, or its folder."""
    return name_of(path).partition("/")[0]


def imports_of(path: Path) -> set[str]:
    """Give the full names of what a module imports, whether it runs or is for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            assert node.module
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms_imported(path: Path) -> set[str]:
    """Give the rooms that a module imports from."""
    parts = [name.split(".") for name in imports_of(path)]
    return {names[1] for names in parts if names[0] == "vhdx2raw"}


def test_the_docstring_lists_every_room_exactly_once() -> None:
    found = {room_of(path) for path in MODULES if not room_of(path).startswith("__")}
    assert sorted(ROOMS) == sorted(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_rooms_before_its_own(path: Path) -> None:
    room = room_of(path)
    allowed = set(ROOMS) if room.startswith("__") else set(ROOMS[: ROOMS.index(room)])
    if (PACKAGE / room).is_dir():
        allowed.add(room)
    assert rooms_imported(path) <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_speaks_to_people(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imports_of(path)}
    assert room_of(path) == "cli" or not tops & SPEAKING


def test_one_module_alone_knows_about_bars() -> None:
    knowing = [name_of(path) for path in MODULES if "tqdm.tqdm" in imports_of(path)]
    assert knowing == ["cli/progress"]


def test_importing_the_package_loads_nothing_that_speaks() -> None:
    code = "import sys, vhdx2raw; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "vhdx2raw" in loaded
    assert not loaded & SPEAKING
    assert "vhdx2raw.cli" not in done.stdout.split()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_can_be_read_without_scrolling(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"
