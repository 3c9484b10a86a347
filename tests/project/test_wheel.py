"""What users install: the wheel holds every file, and works away from the checkout."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.packages import PIP, SAMPLE_RAW_SHA256, build_wheel, run
from tests.support.paths import ROOT, SAMPLE

MANUAL_PAGE = "share/man/man1/vhdx2raw.1"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "vhdx2raw"
    sources = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    shared = {name for name in names if ".data/" in name}
    assert names - shared == sources | {"vhdx2raw/py.typed"}
    assert [name.partition(".data/data/")[2] for name in shared] == [MANUAL_PAGE]


def test_manual_page_is_installed(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(MANUAL_PAGE))
    assert archive.read(name) == (ROOT / "docs" / "vhdx2raw.1").read_bytes()


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("how", ["script", "module"])
def test_the_installed_wheel_converts_the_sample(wheel: Path, tmp_path: Path, how: str) -> None:
    installed = tmp_path / "installed"
    run(*PIP, "install", "--no-deps", "--no-index", "--target", installed, wheel, folder=tmp_path)
    asked = "import vhdx2raw; print(vhdx2raw.__file__)"
    where = run(sys.executable, "-c", asked, folder=tmp_path, PYTHONPATH=str(installed))
    assert Path(where.stdout.strip()).is_relative_to(installed)
    program = {
        "script": (sys.executable, installed / "bin" / "vhdx2raw"),
        "module": (sys.executable, "-m", "vhdx2raw"),
    }[how]
    done = run(*program, SAMPLE, "disk.img", folder=tmp_path, PYTHONPATH=str(installed))
    assert (done.stdout, done.stderr) == ("", "")
    digest = hashlib.sha256((tmp_path / "disk.img").read_bytes()).hexdigest()
    assert digest == SAMPLE_RAW_SHA256
