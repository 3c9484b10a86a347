"""Where things lie in the checkout, and beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "testdata" / "sample.vhdx"
SHARED_IMAGES = ROOT.parent / "shared" / "images"
"""Real images, which are not part of the project; tests skip where they are absent."""
