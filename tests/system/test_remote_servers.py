"""Disks on servers as people have them: nginx, and the object stores of three clouds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.builder import MIB, Block, ImageSpec, child_of, same_bytes_guid
from tests.support.chains import base_disk
from tests.support.cli import Outcome, run
from tests.support.files import has_expected_bytes, names_in
from tests.support.peers import needs_module
from tests.support.servers.buckets import Bucket, azure, google, s3
from tests.support.servers.certificates import make_certificate
from tests.support.servers.nginx import PASSWORD, USER, Nginx, nginx

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
BASE = base_disk()
CHILD = child_of(BASE, ".\\base.vhdx", blocks={1: Block(content=b"new")})
TOP = child_of(
    child_of(BASE, ".\\base.vhdx", data_write_guid=same_bytes_guid(0x77)), ".\\child.avhdx"
)
KEYS = [
    "plain.vhdx",
    "a b.vhdx",
    "50%.vhdx",
    "a%20b.vhdx",
    "a+b&c=d.vhdx",
    "ü/日本.vhdx",
    "a#b.vhdx",
]
"""Names of objects that a URL would write in another way."""


def convert(capfd: Capture, url: str, target: Path, *words: str | Path) -> Outcome:
    needs_module("obstore")
    return run(capfd, "--retries", "1", "--timeout", "10", *words, url, target)


# -- nginx --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder to serve."""
    folder = tmp_path / "exports"
    folder.mkdir()
    BASE.write(folder / "base.vhdx")
    CHILD.write(folder / "child.avhdx")
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[Nginx]:
    with nginx(folder, tmp_path / "nginx") as server:
        yield server


def test_nginx_serves_a_chain(server: Nginx, tmp_path: Path, capfd: Capture) -> None:
    outcome = convert(capfd, f"{server.url}/child.avhdx", tmp_path / "x.img")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert has_expected_bytes(tmp_path / "x.img", CHILD)


def test_nginx_sends_only_what_is_stored(
    server: Nginx, folder: Path, tmp_path: Path, capfd: Capture
) -> None:
    spec = ImageSpec(128 * MIB, MIB, {index: Block() for index in range(0, 128, 2)})
    spec.write(folder / "disk.vhdx")
    assert convert(capfd, f"{server.url}/disk.vhdx", tmp_path / "x.img").exit_code == 0
    assert has_expected_bytes(tmp_path / "x.img", spec)
    sent = sum(int(length) for _, _, _, length, _ in server.requests())
    assert sent <= 1.05 * len(spec.blocks) * MIB + 4 * MIB


def test_a_file_that_is_replaced_on_nginx(
    server: Nginx, folder: Path, tmp_path: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    """Between opening it and reading it, that is."""
    import vhdx2raw  # noqa: PLC0415 - with what it needs for URLs

    needs_module("obstore")
    with vhdx2raw.open(f"{server.url}/base.vhdx") as disk:
        base_disk(tag="changed").write(folder / "new")
        # The ETag of nginx is the size, and the time in whole seconds.
        os.utime(folder / "new", (1_800_000_000, 1_800_000_000))
        (folder / "new").replace(folder / "base.vhdx")
        with pytest.raises(vhdx2raw.SourceChangedError):
            disk.read()


def test_a_missing_file(server: Nginx, tmp_path: Path, capfd: Capture) -> None:
    outcome = convert(capfd, f"{server.url}/nothing.vhdx", tmp_path / "x.img")
    assert outcome.exit_code == 8
    assert f"{server.url}/nothing.vhdx: does not exist (HTTP 404)" in outcome.err


def test_a_certificate_of_a_private_authority(folder: Path, tmp_path: Path, capfd: Capture) -> None:
    ours, theirs = make_certificate(tmp_path / "ours"), make_certificate(tmp_path / "theirs")
    target = tmp_path / "x.img"
    with nginx(folder, tmp_path / "nginx", certificate=ours) as server:
        url = f"{server.url}/child.avhdx"
        for outcome in (
            convert(capfd, url, target),
            convert(capfd, url, target, "--ca-file", theirs.authority),
        ):
            assert outcome.exit_code == 8
            assert "its certificate is not trusted" in outcome.err
            assert "--ca-file" in outcome.err
        outcome = convert(capfd, url, target, "--ca-file", ours.authority, "-v")
        assert outcome.exit_code == 0, outcome.err
        assert "encrypted" not in outcome.err
        assert has_expected_bytes(target, CHILD)
        both = tmp_path / "both.pem"
        both.write_bytes(theirs.authority.read_bytes() + ours.authority.read_bytes())
        assert convert(capfd, url, tmp_path / "again.img", "--ca-file", both).exit_code == 0


def test_a_certificate_for_another_host(folder: Path, tmp_path: Path, capfd: Capture) -> None:
    made = make_certificate(tmp_path / "made", "DNS:somewhere.example")
    with nginx(folder, tmp_path / "nginx", certificate=made) as server:
        words = ("--ca-file", made.authority)
        outcome = convert(capfd, f"{server.url}/base.vhdx", tmp_path / "x.img", *words)
    assert outcome.exit_code == 8
    assert "certificate" in outcome.err


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_file_without_certificates(
    server: Nginx, tmp_path: Path, capfd: Capture, text: str
) -> None:
    (tmp_path / "ca.pem").write_text(text)
    words = ("--ca-file", tmp_path / "ca.pem")
    outcome = convert(capfd, f"{server.url}/base.vhdx", tmp_path / "x.img", *words)
    assert outcome.exit_code in (2, 8)
    assert "ca.pem" in outcome.err
    assert len(outcome.err_lines) <= 2


def test_a_file_of_certificates_that_is_missing(
    server: Nginx, tmp_path: Path, capfd: Capture
) -> None:
    words = ("--ca-file", tmp_path / "missing.pem")
    outcome = convert(capfd, f"{server.url}/base.vhdx", tmp_path / "x.img", *words)
    assert outcome.exit_code in (2, 8)
    assert "missing.pem" in outcome.err
    assert len(outcome.err_lines) <= 2


def test_a_user_with_a_password(folder: Path, tmp_path: Path, capfd: Capture) -> None:
    target = tmp_path / "x.img"
    with nginx(folder, tmp_path / "nginx", with_user=True) as server:
        url = f"{server.url}/child.avhdx"
        outcome = convert(capfd, url, target)
        assert outcome.exit_code == 8
        assert "(HTTP 401)" in outcome.err
        outcome = convert(capfd, url.replace("//", f"//{USER}:wrong@"), target)
        assert outcome.exit_code == 8
        assert "HTTP 401" in outcome.err
        assert "wrong" not in outcome.err
        named = url.replace("//", f"//{USER}:{PASSWORD}@")
        outcome = convert(capfd, named, target, "-v")
        assert outcome.exit_code == 0, outcome.err
        assert PASSWORD not in outcome.out + outcome.err
        assert has_expected_bytes(target, CHILD)
        anonymous = convert(capfd, named, tmp_path / "y.img", "--anonymous")
        assert anonymous.exit_code in (0, 8)


# -- object stores ------------------------------------------------------------------------------

Store = Callable[[Path], AbstractContextManager[Bucket]]


@pytest.fixture(scope="module", params=[s3, google, azure], ids=["s3", "google", "azure"])
def bucket(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bucket]:
    """Give a bucket of each cloud, with a chain in a folder of it."""
    needs_module("obstore")
    store: Store = request.param
    folder = tmp_path_factory.mktemp(store.__name__)
    with store(folder) as bucket:
        for name, spec in (("base.vhdx", BASE), ("child.avhdx", CHILD)):
            spec.write(folder / name)
            bucket.put(f"vm/{name}", folder / name)
        yield bucket


@pytest.fixture
def known(bucket: Bucket, monkeypatch: Patch) -> Bucket:
    """Give the bucket where the environment tells of it."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


def test_a_chain_in_a_bucket(known: Bucket, tmp_path: Path, capfd: Capture) -> None:
    outcome = convert(capfd, f"{known.url}vm/child.avhdx", tmp_path / "x.img", "-v", "--json")
    assert outcome.exit_code == 0, outcome.err
    assert has_expected_bytes(tmp_path / "x.img", CHILD)
    assert json.loads(outcome.out)["fetched"]["bytes"] > MIB
    for secret in known.secrets:
        assert secret not in outcome.out + outcome.err


def test_a_parent_in_another_folder_of_the_bucket(
    known: Bucket, tmp_path: Path, capfd: Capture
) -> None:
    CHILD.write(tmp_path / "child.avhdx")
    url = known.put("elsewhere/child.avhdx", tmp_path / "child.avhdx")
    outcome = convert(capfd, url, tmp_path / "x.img")
    assert outcome.exit_code == 6
    assert f"{known.url}elsewhere/base.vhdx" in outcome.err
    words = ("--parent-dir", f"{known.url}vm")
    outcome = convert(capfd, url, tmp_path / "x.img", *words)
    assert outcome.exit_code == 0, outcome.err
    assert has_expected_bytes(tmp_path / "x.img", CHILD)


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_taken_as_they_are(
    known: Bucket, tmp_path: Path, capfd: Capture, key: str
) -> None:
    BASE.write(tmp_path / "base.vhdx")
    known.put(key, tmp_path / "base.vhdx")
    outcome = convert(capfd, f"{known.url}{key}", tmp_path / "x.img")
    assert outcome.exit_code == 0, outcome.err
    assert has_expected_bytes(tmp_path / "x.img", BASE)


@pytest.mark.parametrize("words", [("info", "--json"), ("check",), ("map",), ("hash",)])
def test_commands_read_a_bucket(known: Bucket, capfd: Capture, words: tuple[str, ...]) -> None:
    outcome = run(capfd, *words, f"{known.url}vm/child.avhdx")
    assert (outcome.exit_code, outcome.err) == (0, "")


def test_a_missing_object(known: Bucket, tmp_path: Path, capfd: Capture) -> None:
    outcome = convert(capfd, f"{known.url}vm/nothing.vhdx", tmp_path / "x.img")
    assert outcome.exit_code == 8
    assert f"{known.url}vm/nothing.vhdx: does not exist (HTTP 404)" in outcome.err
    assert "x.img" not in names_in(tmp_path)


def test_a_missing_bucket(known: Bucket, tmp_path: Path, capfd: Capture) -> None:
    scheme = known.url.partition("://")[0]
    outcome = convert(capfd, f"{scheme}://nowhere/disk.vhdx", tmp_path / "x.img")
    assert outcome.exit_code == 8
    assert len(outcome.err_lines) <= 2
    for secret in known.secrets:
        assert secret not in outcome.err


@pytest.mark.parametrize("rest", ["", "//", "vm/"])
def test_a_url_without_a_key(known: Bucket, tmp_path: Path, capfd: Capture, rest: str) -> None:
    outcome = convert(capfd, f"{known.url}{rest}", tmp_path / "x.img")
    assert outcome.exit_code in (2, 4, 8)
    assert len(outcome.err_lines) <= 2
    assert "Traceback" not in outcome.err


def test_an_object_that_is_replaced(known: Bucket, tmp_path: Path, capfd: Capture) -> None:
    import vhdx2raw  # noqa: PLC0415 - with what it needs for URLs

    BASE.write(tmp_path / "base.vhdx")
    url = known.put("replaced.vhdx", tmp_path / "base.vhdx")
    with vhdx2raw.open(url) as disk:
        base_disk(tag="changed").write(tmp_path / "base.vhdx")
        known.put("replaced.vhdx", tmp_path / "base.vhdx")
        with pytest.raises(vhdx2raw.SourceChangedError):
            disk.read()


@pytest.mark.parametrize("bucket", [s3, google], indirect=True, ids=["s3", "google"])
def test_a_public_object_needs_no_credentials(
    bucket: Bucket, tmp_path: Path, capfd: Capture, monkeypatch: Patch
) -> None:
    for name, value in bucket.environment.items():
        if "KEY" not in name:
            monkeypatch.setenv(name, value)
    outcome = convert(capfd, f"{bucket.url}vm/base.vhdx", tmp_path / "x.img", "--anonymous")
    assert outcome.exit_code == 0, outcome.err
    assert has_expected_bytes(tmp_path / "x.img", BASE)


@pytest.mark.parametrize("bucket", [azure], indirect=True, ids=["azure"])
def test_a_wrong_key(known: Bucket, tmp_path: Path, capfd: Capture, monkeypatch: Patch) -> None:
    """Which moto would believe."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmcta2V5")
    outcome = convert(capfd, f"{known.url}vm/base.vhdx", tmp_path / "x.img")
    assert outcome.exit_code == 8
    assert "access is denied (HTTP 403)" in outcome.err
    assert "d3Jvbmcta2V5" not in outcome.err


def test_tree_lists_what_lies_below_a_prefix(known: Bucket, capfd: Capture) -> None:
    outcome = run(capfd, "tree", "--json", f"{known.url}vm")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert f"{known.url}vm/base.vhdx" in outcome.out
    assert f"{known.url}vm/child.avhdx" in outcome.out
    drawn = run(capfd, "tree", f"{known.url}vm/")
    assert drawn.exit_code == 0
    assert "tip" in drawn.out
