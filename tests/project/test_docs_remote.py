"""The recipes of docs/remote.md, against nginx and the emulators of object stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.builder import child_of
from tests.support.chains import base_disk
from tests.support.docs import run_shell
from tests.support.files import has_expected_bytes
from tests.support.paths import ROOT
from tests.support.peers import needs_module
from tests.support.servers.buckets import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    S3_KEYS,
    Bucket,
    azure,
    google,
    s3,
)
from tests.support.servers.certificates import make_certificate
from tests.support.servers.nginx import nginx

TEXT = (ROOT / "docs/remote.md").read_text(encoding="utf-8")
DISK = base_disk()
SNAP = child_of(DISK, ".\\disk.vhdx")
HOST = "exports.example.com"
STORES: dict[str, Callable[[Path], AbstractContextManager[Bucket]]] = {
    "Amazon S3": s3,
    "Azure Blob Storage": azure,
    "Google Cloud Storage": google,
}
ACCOUNTS = {
    **S3_KEYS,
    "AZURE_STORAGE_ACCOUNT": AZURE_ACCOUNT,
    "AZURE_STORAGE_KEY": AZURE_KEY,
}
"""What a user exports, as the emulators know it."""


def recipes_of(title: str, places: Mapping[str, str] | None = None) -> list[list[str]]:
    """Give the commands of each block of a section, with our own places and accounts."""
    section = re.search(rf"^## From {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert section, f"no section about {title}"
    text = section[1]
    for place, own in (places or {}).items():
        assert place in text
        text = text.replace(place, own)
    for name, value in ACCOUNTS.items():
        text = re.sub(rf"^export {name}=.*$", f"export {name}={value}", text, flags=re.MULTILINE)
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in blocks]


def assert_recipes_work(folder: Path, recipes: list[list[str]]) -> None:
    """Run each block in a folder of its own; the images that it makes must be right."""
    needs_module("obstore")
    images: list[Path] = []
    for number, commands in enumerate(recipes):
        place = folder / str(number)
        place.mkdir()
        for command, done in zip(commands, run_shell(place, commands), strict=True):
            assert done.exit_code == 0, f"{command}\n{done.output}"
        images += place.glob("*.img")
    assert images
    for image in images:
        assert has_expected_bytes(image, SNAP if image.name.startswith("snap") else DISK)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Give a folder with the files that the recipes name."""
    folder = tmp_path / "exports" / "vm"
    folder.mkdir(parents=True)
    DISK.write(folder / "disk.vhdx")
    SNAP.write(folder / "snap.avhdx")
    return folder.parent


def test_recipes_for_a_web_server(exports: Path, tmp_path: Path) -> None:
    made = make_certificate(tmp_path / "certificates")
    with (
        nginx(exports, tmp_path / "tls", certificate=made) as encrypted,
        nginx(exports, tmp_path / "plain", with_user=True) as plain,
    ):
        places = {
            f"https://{HOST}": encrypted.url,
            f"@{HOST}": plain.url.replace("http://", "@"),
            "ca.pem": str(made.authority),
        }
        assert_recipes_work(tmp_path, recipes_of("a web server", places))


@pytest.mark.parametrize("title", STORES)
def test_recipes_for_a_store(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    with STORES[title](tmp_path / "store") as bucket:
        for path in exports.glob("vm/*"):
            bucket.put(f"vm/{path.name}", path)
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        assert_recipes_work(tmp_path, recipes_of(title))
