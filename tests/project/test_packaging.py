"""What describes a release: its metadata, its version, its files, and what it needs."""

import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.support.cli import run_program
from tests.support.packages import build_sdist, build_wheel
from tests.support.paths import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DEPENDENCIES = re.findall(r'^    "((?:crc32c|tqdm|typer)[<>=].+)",$', PYPROJECT, re.MULTILINE)
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## \[(.+)\](?: - (\d{4}-\d\d-\d\d))?$", re.MULTILINE)
MOST_BYTES_OF_THE_WHEEL = 360 * 1024


def field(name: str) -> str:
    """Give a field of pyproject.toml, which Python 3.10 cannot parse by itself."""
    [value] = re.findall(rf'^{name} = "(.+)"$', PYPROJECT, re.MULTILINE)
    assert isinstance(value, str)
    return value


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    archive = build_sdist(folder)
    with tarfile.open(archive) as files:
        if hasattr(tarfile, "data_filter"):
            files.extractall(folder, filter="data")
        else:
            files.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")


# -- the version --------------------------------------------------------------------------------


def test_changelog_begins_with_this_version() -> None:
    sections = SECTION.findall(CHANGELOG)
    assert sections[0] == ("Unreleased", "")
    assert sections[1][0] == field("version")
    assert all(date for _, date in sections[1:])
    dates = [date for _, date in sections[1:]]
    assert dates == sorted(dates, reverse=True)


def test_version_option_prints_the_project_version() -> None:
    assert run_program("--version").out == f"vhdx2raw {field('version')}\n"


# -- the wheel ----------------------------------------------------------------------------------


def test_metadata_of_the_wheel(metadata: Message) -> None:
    assert metadata["Name"] == "vhdx2raw"
    assert metadata["Version"] == field("version")
    assert metadata["Summary"] == field("description")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata.get_payload().strip() == readme.strip()  # type: ignore[union-attr]


def test_classifiers_begin_with_the_oldest_python(metadata: Message) -> None:
    promised = [
        classifier.rpartition(" ")[2]
        for classifier in metadata.get_all("Classifier", [])
        if classifier.startswith("Programming Language :: Python :: 3.")
    ]
    assert promised == [f"3.{minor}" for minor in range(10, 10 + len(promised))]
    assert f">={promised[0]}" == metadata["Requires-Python"]


def test_wheel_needs_three_packages(metadata: Message) -> None:
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    names = [re.split(r"[<>=!~ ]", requirement)[0] for requirement in needed]
    assert sorted(names) == ["crc32c", "tqdm", "typer"]
    assert all(">=" in requirement for requirement in needed)
    assert set(map(bounds_of, needed)) == set(map(bounds_of, DEPENDENCIES))


def bounds_of(requirement: str) -> tuple[str, frozenset[str]]:
    """Give the name of a package and the bounds of its version, whose order means nothing."""
    [(name, bounds)] = re.findall(r"^(\w+)(.+)$", requirement)
    return name, frozenset(bounds.split(","))


def test_the_wheel_is_for_every_host_and_small(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert Path(wheel.filename).stat().st_size < MOST_BYTES_OF_THE_WHEEL
    [script] = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(script).decode().split("\n", 2)[1] == "vhdx2raw = vhdx2raw.cli:main"


# -- the source distribution --------------------------------------------------------------------


def test_sdist_holds_all_files(
    sdist: Path,
) -> None:
    documents = [path.name for path in ROOT.glob("*.md")]
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= set(documents)
    for name in (*documents, "LICENSE", "Makefile", "pyproject.toml"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name
    for folder in ("vhdx2raw", "tests", "testdata", "benchmarks", "tools", "docs", "examples"):
        assert files_below(sdist / folder) == files_below(ROOT / folder), folder


def files_below(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_the_source_distribution_makes_the_same_wheel(
    sdist: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    rebuilt = zipfile.ZipFile(build_wheel(tmp_path, sdist))
    assert checksums_in(rebuilt) == checksums_in(wheel)


def checksums_in(archive: zipfile.ZipFile) -> dict[str, int]:
    return {entry.filename: entry.CRC for entry in archive.infolist()}
