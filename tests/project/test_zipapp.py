"""The program in one file, for machines where nothing can be installed."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.files import names_in, sha256_of
from tests.support.packages import SAMPLE_RAW_SHA256, build_wheel, run
from tests.support.paths import ROOT, SAMPLE
from vhdx2raw.cli.app import COMMANDS

MOST_BYTES = 1024 * 1024
ISOLATED = ("-I", "-S")
"""No variable, no folder of the user, nothing that is installed."""
PYENV = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
NEW, OLD = ("3.10", "3.11", "3.12", "3.13", "3.14"), ("2.7", "3.6", "3.7", "3.8", "3.9")
WARNING = "vhdx2raw: without the package crc32c a large log takes long to read"


def pythons_of(version: str) -> Iterator[str]:
    """Give programs that may be Python of a version: this one, that of the host, those of pyenv."""
    yield sys.executable
    yield f"python{version}"
    yield from map(str, sorted(PYENV.glob(f"versions/{version}.*/bin/python{version}")))


def find_python(version: str) -> str:
    """Give Python of a version, or skip."""
    asked = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    for python in pythons_of(version):
        try:
            done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if done.stdout == version:
            return python
    pytest.skip(f"Python {version} is not here")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zipapp")
    return make(build_wheel(folder), folder / "dist" / "vhdx2raw.pyz")


def make(wheel: Path, output: Path) -> Path:
    script = ROOT / "tools" / "make_zipapp.py"
    run(sys.executable, script, wheel, output, folder=wheel.parent)
    return output


@pytest.mark.parametrize("version", NEW)
def test_zipapp_converts_the_sample(archive: Path, tmp_path: Path, version: str) -> None:
    words = (find_python(version), *ISOLATED, archive, "-v", SAMPLE, "disk.img")
    done = run(*words, folder=tmp_path)
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == WARNING
    assert sha256_of(tmp_path / "disk.img") == SAMPLE_RAW_SHA256
    assert names_in(tmp_path) == ["disk.img"]


HELP_OF_EACH = """
import os, runpy, sys
archive, *names = sys.argv[1:]
sys.path.insert(0, archive)
import vhdx2raw.cli.app
for name in names:
    print("=====", flush=True)
    child = os.fork()
    if not child:
        sys.argv[:] = [archive, name, "--help"]
        runpy.run_path(archive, run_name="__main__")
        sys.exit("it has not ended")
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(name + " fails")
"""
"""Asks for the help of commands, each in a process of its own; what all need is compiled once."""


@pytest.mark.parametrize("version", NEW)
def test_every_command_loads(archive: Path, tmp_path: Path, version: str) -> None:
    words = (find_python(version), *ISOLATED, "-c", HELP_OF_EACH, archive, *COMMANDS)
    texts = run(*words, folder=tmp_path).stdout.split("=====\n")[1:]
    for name, text in zip(COMMANDS, texts, strict=True):
        assert text.startswith(f"Usage: vhdx2raw {name} ")


@pytest.mark.parametrize("version", OLD)
def test_old_python_is_refused(archive: Path, tmp_path: Path, version: str) -> None:
    words = [find_python(version), str(archive), str(SAMPLE), "disk.img"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = f"vhdx2raw: needs Python 3.10 or later, not {version}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "words", [("--help",), ("convert", "--help"), ("info", "--json", SAMPLE), ("hash", SAMPLE)]
)
def test_commands_work_as_zipapp(
    archive: Path, tmp_path: Path, words: tuple[str | Path, ...]
) -> None:
    mine = run(sys.executable, "-m", "vhdx2raw", *words, folder=tmp_path)
    its = run(sys.executable, *ISOLATED, archive, *words, folder=tmp_path)
    assert its.stdout == mine.stdout
    assert its.stderr == ""


def test_a_bar_is_drawn(archive: Path, tmp_path: Path) -> None:
    words = (sys.executable, *ISOLATED, archive, "--progress", "always", SAMPLE, "disk.img")
    assert "100%" in run(*words, folder=tmp_path).stderr


def test_it_is_a_program_with_a_version(archive: Path, tmp_path: Path) -> None:
    assert os.access(archive, os.X_OK)
    done = run(archive, "--version", folder=tmp_path)
    here = run(sys.executable, "-m", "vhdx2raw", "--version", folder=tmp_path)
    assert done.stdout == here.stdout


def test_zipapp_is_small_and_holds_all_licences(archive: Path) -> None:
    assert archive.stat().st_size < MOST_BYTES
    names = zipfile.ZipFile(archive).namelist()
    tops = {name.partition("/")[0] for name in names}
    packages = {top for top in tops if ".dist-info" not in top}
    owners = {top.partition("-")[0] for top in tops if ".dist-info" in top}
    assert packages == {"__main__.py", "annotated_doc", "shellingham", "tqdm", "typer", "vhdx2raw"}
    assert owners == packages - {"__main__.py"}
    for owner in owners:
        assert any(
            name.startswith(f"{owner}-") and ("LICENSE" in name or "LICENCE" in name)
            for name in names
        ), owner
    assert {Path(name).suffix for name in names if ".dist-info" not in name} == {".py"}


def test_the_same_wheel_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    [wheel] = archive.parent.parent.glob("*.whl")
    assert make(wheel, tmp_path / "again.pyz").read_bytes() == archive.read_bytes()
