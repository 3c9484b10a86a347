"""The answers of `vhdx2raw info`: as JSON that fits its schema, and as named lines."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.cli import run
from tests.support.paths import ROOT

Capture = pytest.CaptureFixture[str]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "info.json").read_text(encoding="utf-8"))
MOUNT = "mount -o loop,ro disk.img /mnt"


def facts_of(capfd: Capture, *arguments: str | Path) -> dict[str, Any]:
    """Ask for JSON, which must fit its schema; give it with the data on the top level too."""
    outcome = run(capfd, "info", "--json", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    facts: dict[str, Any] = json.loads(outcome.out)
    jsonschema.validate(facts, SCHEMA, jsonschema.Draft202012Validator)
    data: dict[str, Any] = facts["format-specific"]["data"]
    return facts | data


def words_of(capfd: Capture, *arguments: str | Path) -> dict[str, list[str]]:
    """Ask for words; give the lines of the first image by their name."""
    outcome = run(capfd, "info", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    words: dict[str, list[str]] = {}
    name = ""
    for line in outcome.out.split("\n\n")[0].splitlines():
        name = line[:16].strip().rstrip(":") or name
        words.setdefault(name, []).append(line[16:])
    return words
