"""What users install, built from the checkout and used away from it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

SAMPLE_RAW_SHA256 = "4eb64f66cded1bb94dd82fd4bcfc1d748296d48ecb16df4ab162e03ed9e00f98"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*words: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program away from the checkout, which Python would look into first."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def build_wheel(folder: Path, project: Path = ROOT) -> Path:
    """Build the wheel with what is installed for the tests, without the network."""
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, project, folder=folder)
    return next(folder.glob("vhdx2raw-*.whl"))


def build_sdist(folder: Path) -> Path:
    """Build the source distribution, without the network."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    return next(folder.glob("vhdx2raw-*.tar.gz"))
