"""`--hash` and `hash -a` more than once: every digest is printed, in the order of the options."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.cli import run, small_disk
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]
NAMES = ("md5", "sha256", "blake2b")


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the digests of disk.vhdx in the current folder."""
    monkeypatch.chdir(tmp_path)
    spec = small_disk()
    spec.write("disk.vhdx")
    raw = spec.expected_disk(0, spec.virtual_disk_size)
    return [hashlib.new(name, raw, usedforsecurity=False).hexdigest() for name in NAMES]


def test_convert_prints_every_digest(expected: list[str], capfd: Capture) -> None:
    words = [word for name in NAMES for word in ("--hash", name)]
    done = run(capfd, *words, "disk.vhdx", "disk.img")
    assert done.out.splitlines() == [f"{digest}  disk.img" for digest in expected]


def test_hash_prints_every_digest(expected: list[str], capfd: Capture) -> None:
    words = [word for name in NAMES for word in ("-a", name)]
    done = run(capfd, "hash", *words, "disk.vhdx")
    assert done.out.splitlines() == [f"{digest}  disk.vhdx" for digest in expected]


def test_json_has_every_digest(expected: list[str], capfd: Capture) -> None:
    pairs = dict(zip(NAMES, expected, strict=True))
    words = [word for name in NAMES for word in ("--hash", name)]
    facts = json.loads(run(capfd, "--json", *words, "disk.vhdx", "disk.img").out)
    validator_of("convert").validate(facts)
    assert {each["algorithm"]: each["digest"] for each in facts["hashes"]} == pairs
    assert facts["hash"] == {"algorithm": "md5", "digest": expected[0]}
    words = [word for name in NAMES for word in ("-a", name)]
    [image] = json.loads(run(capfd, "hash", "--json", *words, "disk.vhdx").out)["images"]
    assert image["digests"] == pairs
    assert image["digest"] == expected[0]
