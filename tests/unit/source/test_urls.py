"""What is a URL, and what happens where the package that reads them is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from vhdx2raw.errors import UnsupportedImageError
from vhdx2raw.source.base import Fetched, total
from vhdx2raw.source.file_object import file_name_of, is_url, name_of, open_source

LOADED = """
import sys, vhdx2raw.cli.app, vhdx2raw
vhdx2raw.convert(sys.argv[1], sys.argv[2])
known = ("obstore", "ssl", "asyncio", "urllib.request", "vhdx2raw.source.remote.source")
print([name for name in known if name in sys.modules])
"""
PARTS = "vhdx2raw.source.remote.s"  # what needs the package


def test_url_is_what_begins_like_one_and_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_url("https://host/disk.vhdx")
    assert is_url("ftp://host/disk.vhdx")
    assert not is_url("C:/disk.vhdx")
    assert not is_url("disk.vhdx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "disk.vhdx").touch()
    assert not is_url("s3://disk.vhdx")


def test_names_have_nothing_secret() -> None:
    url = "https://me:secret@host/vm/my%20disk.vhdx?secret"
    assert name_of(url) == "https://host/vm/my%20disk.vhdx"
    assert file_name_of(url) == "my disk.vhdx"
    assert file_name_of("vm/disk.vhdx") == "disk.vhdx"


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("obstore", PARTS))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", ["testdata"])  # where no package is
    with pytest.raises(
        UnsupportedImageError, match="is a URL, which takes a package more"
    ) as error:
        open_source("https://me:secret@host/disk.vhdx")
    assert error.value.hint == "install it: pip install 'vhdx2raw[remote]'"
    assert error.value.path == "https://host/disk.vhdx"


@pytest.mark.slow
def test_what_reads_urls_is_loaded_for_urls_only(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LOADED, "testdata/sample.vhdx", str(tmp_path / "disk.img")]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_what_was_fetched_is_added_up() -> None:
    assert total([None, None]) is None
    assert total([Fetched(1, 2, 3), None, Fetched(10, 20, 30)]) == Fetched(11, 22, 33)
