"""Where things lie in the checkout, and beside it."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "testdata" / "sample.vhdx"
SHARED_IMAGES = ROOT.parent / "shared" / "images"
"""Real images, which are not part of the project; tests skip where they are absent."""


def read_schema(command: str) -> Any:
    """Read the JSON schema of what a command prints."""
    return json.loads((ROOT / "docs" / "schemas" / f"{command}.json").read_text("utf-8"))
