"""How the package is built, as far as the contracts of import-linter do not say it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vhdx2raw
from tests.support.paths import ROOT

PACKAGE = Path(vhdx2raw.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
USER_INTERFACES = {"typer", "tqdm", "rich", "click"}
OPTION = re.compile(r"[\"'`( ](--[a-z][a-z-]+)")
MAX_FUNCTION_LINES = 60
MAX_PACKAGES = 7
MAX_TOP_MODULES = 10


def name_of(path: Path) -> str:
    """Give the name of a module within the package, such as ``cli/app``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


OUTSIDE_OF_CLI = [path for path in MODULES if not name_of(path).startswith("cli/")]


def imports_of(path: Path) -> set[str]:
    """Give the full names of what a module imports, whether it runs or is for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_import_contracts_hold() -> None:
    pytest.importorskip("importlinter")  # which comes with ruff, not with the tests
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as main; main()",
    ]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", OUTSIDE_OF_CLI, ids=name_of)
def test_only_cli_imports_user_interfaces(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & USER_INTERFACES


def test_only_the_bar_imports_tqdm() -> None:
    importing = [name_of(path) for path in MODULES if "tqdm.tqdm" in imports_of(path)]
    assert importing == ["cli/bar"]


def test_importing_the_package_loads_no_user_interface() -> None:
    code = "import sys, vhdx2raw; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "vhdx2raw" in loaded
    assert not loaded & USER_INTERFACES
    assert "vhdx2raw.cli" not in done.stdout.split()


@pytest.mark.parametrize("path", OUTSIDE_OF_CLI, ids=name_of)
def test_only_cli_names_options(path: Path) -> None:
    names = set(OPTION.findall(path.read_text(encoding="utf-8")))
    assert not names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"use --force to"', ["--force"]),
        ("'--strict'", ["--strict"]),
        ("(--no-replay)", ["--no-replay"]),
        ("x = a --b", []),
        ("# -- a heading ------", []),
    ],
)
def test_options_are_recognized(text: str, names: list[str]) -> None:
    assert OPTION.findall(text) == names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_top_level_is_small() -> None:
    packages = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    modules = [path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(packages) <= MAX_PACKAGES
    assert len(modules) <= MAX_TOP_MODULES
