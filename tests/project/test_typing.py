"""The types that other programs see: an installed wheel under `mypy --strict`."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.docs import read_blocks
from tests.support.paths import ROOT
from tests.support.peers import needs_module

TIMEOUT = 300
# `assert_type` is in the standard library from 3.11 on; mypy knows it from here in any version.
USER = """
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from typing_extensions import assert_type

import vhdx2raw


def read(path: Path, file: BinaryIO) -> None:
    with vhdx2raw.open(path, parents=["a", path, file], parent_dirs=[path]) as disk:
        assert_type(disk, vhdx2raw.VirtualDisk)
        assert_type(disk.size, int)
        assert_type(disk.pread(512, 0), bytes)
        assert_type(disk.extents(), Iterator[vhdx2raw.Extent])
        assert_type(disk.name, str)
        assert_type(disk.files, tuple[str, ...])
        assert_type(disk.metadata.block_size, int)
        assert_type(disk.metadata.has_parent, bool)
        assert_type(disk.warnings, tuple[tuple[str, vhdx2raw.Finding], ...])
        assert_type(disk.seek(0, io.SEEK_END), int)
        assert_type(vhdx2raw.digest(disk), str)
        assert_type(vhdx2raw.compare(disk, disk), vhdx2raw.Comparison)
        assert_type(vhdx2raw.compare(disk, vhdx2raw.RawFile(path)).first_difference, int | None)
    vhdx2raw.open(file)
    vhdx2raw.open(io.BytesIO())
    vhdx2raw.open(gzip.open("disk.vhdx.gz"))
    io.BufferedReader(vhdx2raw.open("disk.vhdx"))


def convert(path: Path, file: BinaryIO, sink: vhdx2raw.Sink) -> None:
    def show(done: int, total: int) -> None: ...

    result = vhdx2raw.convert(file, path, progress=show, hash_algorithm="sha256")
    assert_type(result, vhdx2raw.ConversionResult)
    assert_type(result.digest, str | None)
    assert_type(result.lost_bytes, int)
    assert_type(result.warnings, tuple[tuple[str, vhdx2raw.Finding], ...])
    with vhdx2raw.open(path, salvage=True) as disk:
        vhdx2raw.convert(disk, sink)
        vhdx2raw.convert(disk, vhdx2raw.NullSink())
        vhdx2raw.convert(disk, Recorder())
        assert_type(next(disk.extents()).kind, vhdx2raw.ExtentKind)


class Recorder(vhdx2raw.Sink):
    name = "a recorder"
    sequential = True

    def write(self, virtual_offset: int, data: memoryview) -> None: ...


def check(path: Path) -> None:
    report = vhdx2raw.check(path, log_policy=vhdx2raw.LogPolicy.REFUSE)
    assert_type(report, vhdx2raw.CheckReport)
    assert_type(report.results, tuple[tuple[vhdx2raw.Severity, vhdx2raw.Finding], ...])


def fail(path: Path) -> int:
    try:
        vhdx2raw.open(path)
    except vhdx2raw.ImageError as error:
        assert_type(error.finding, vhdx2raw.Finding)
        assert_type(error.path, str | None)
        assert_type(error.finding.spec, str)
        return 1
    except vhdx2raw.Vhdx2rawError as error:
        assert_type(error.hint, str)
    assert_type(vhdx2raw.__version__, str)
    return 0


# Each of these must be refused: with --strict, mypy reports an ignore that is not needed.
vhdx2raw.open(3)  # type: ignore[arg-type]
vhdx2raw.open(io.StringIO())  # type: ignore[arg-type]
vhdx2raw.open("disk.vhdx", "base.vhdx")  # type: ignore[arg-type, call-arg]
vhdx2raw.convert("disk.vhdx", io.BytesIO())  # type: ignore[arg-type]
vhdx2raw.convert("disk.vhdx")  # type: ignore[call-arg]
vhdx2raw.convert("disk.vhdx", "disk.img", True)  # type: ignore[call-arg]
vhdx2raw.convert("disk.vhdx", "disk.img", progress=print, workers="2")  # type: ignore[arg-type]
vhdx2raw.open_chain  # type: ignore[attr-defined]
vhdx2raw.no_such_name  # type: ignore[attr-defined]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the interpreter of an environment in which the wheel is installed, and nothing else."""
    needs_module("mypy")
    folder = tmp_path_factory.mktemp("typing")
    venv.create(folder / "env")
    interpreter = folder / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    offline = ("--no-deps", "--no-build-isolation")
    subprocess.run(
        [*pip, "wheel", *offline, "-w", folder, ROOT], check=True, cwd=folder, timeout=TIMEOUT
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "--python", interpreter, "install", "--no-deps", "--no-index", wheel],
        check=True,
        cwd=folder,
        timeout=TIMEOUT,
    )
    return interpreter


def mypy(python: Path, folder: Path) -> str:
    """Check every file in `folder` strictly; give its output."""
    options = ("--strict", "--no-error-summary", "--cache-dir", folder / ".cache")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", *options),
            *("--python-executable", python),
            *sorted(folder.glob("*.py")),
        ],
        cwd=folder,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    return done.stdout + done.stderr


def test_installed_package_has_the_promised_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    assert mypy(python, tmp_path) == ""


def test_a_wrong_expectation_would_be_found(python: Path, tmp_path: Path) -> None:
    expected = "assert_type(disk.size, int)"
    assert expected in USER
    (tmp_path / "user.py").write_text(USER.replace(expected, "assert_type(disk.size, str)"))
    output = mypy(python, tmp_path)
    assert len(output.splitlines()) == 1
    assert "[assert-type]" in output


def test_the_examples_of_the_documents_are_typed(python: Path, tmp_path: Path) -> None:
    blocks = [block for block in read_blocks("python") if "dissect" not in block.text]
    for number, block in enumerate(blocks):
        (tmp_path / f"example_{number}.py").write_text(f"# {block.name}\n{block.text}")
    assert mypy(python, tmp_path) == ""
