"""What `vhdx2raw info` prints: JSON that fits its schema, and named lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.schemas import validator_of

Capture = pytest.CaptureFixture[str]
VALIDATOR = validator_of("info")
MOUNT = "mount -o loop,ro disk.img /mnt"


def facts_of(capfd: Capture, *arguments: str | Path) -> dict[str, Any]:
    """Give the JSON, which must fit its schema, with the data on the top level too."""
    outcome = run(capfd, "info", "--json", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    facts: dict[str, Any] = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    data: dict[str, Any] = facts["format-specific"]["data"]
    return facts | data


def named_lines(capfd: Capture, *arguments: str | Path) -> dict[str, list[str]]:
    """Give the lines of the first image by their name."""
    outcome = run(capfd, "info", *arguments)
    assert (outcome.exit_code, outcome.err) == (0, "")
    lines: dict[str, list[str]] = {}
    name = ""
    for line in outcome.out.split("\n\n")[0].splitlines():
        name = line[:16].strip().rstrip(":") or name
        lines.setdefault(name, []).append(line[16:])
    return lines
