"""What users install: the wheel holds every file, and works away from the checkout."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "testdata" / "sample.vhdx"
SAMPLE_RAW_SHA256 = "4eb64f66cded1bb94dd82fd4bcfc1d748296d48ecb16df4ab162e03ed9e00f98"


def run(*words: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program away from the checkout, which Python would look into first."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what is installed for the tests, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, folder=folder)
    return next(folder.glob("vhdx2raw-*.whl"))


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "vhdx2raw"
    sources = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    assert names == sources | {"vhdx2raw/py.typed"}


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("how", ["script", "module"])
def test_the_installed_wheel_converts_the_sample(wheel: Path, tmp_path: Path, how: str) -> None:
    installed = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", "--no-deps", "--no-index", "--target", installed, wheel, folder=tmp_path)
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
