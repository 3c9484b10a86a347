"""Images that Hyper-V and QEMU wrote, where a folder of them lies beside the checkout.

Its README.md names the SHA-256 of the raw disk for each.
"""

import bz2
import gzip
import re
import shutil
from pathlib import Path

import pytest

from tests.support.paths import SHARED_IMAGES

ROW = re.compile(
    r"^\| `(?P<name>\S+)` \|.*\| (?P<size>\d+) \| (?P<sha256>[0-9a-f]{64}) \|$", re.MULTILINE
)
README = SHARED_IMAGES / "README.md"
REAL_IMAGES = {
    row["name"]: (int(row["size"]), row["sha256"])
    for row in (ROW.finditer(README.read_text("utf-8")) if README.exists() else ())
}
"""Bytes and SHA-256 of the raw disk of each image."""
DIRTY = "iotest-dirtylog-10G-4M.vhdx.bz2"
CHILD = "dissect-differencing.avhdx.gz"
CLEAN = [name for name in REAL_IMAGES if name != DIRTY]

needs_real_images = pytest.mark.skipif(
    not SHARED_IMAGES.exists(), reason="no folder of real images beside the checkout"
)


def unpack_real_image(name: str, folder: Path) -> Path:
    """Decompress an image into a folder."""
    packed, path = SHARED_IMAGES / name, folder / Path(name).stem
    with (
        bz2.open(packed) if packed.suffix == ".bz2" else gzip.open(packed) as source,
        path.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    return path
