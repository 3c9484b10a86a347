"""A folder shown by FUSE as it is: what mfusepy costs at least.

python -m benchmarks.passthrough FOLDER PLACE     goes to the background; fusermount3 -u ends it
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
import mfusepy  # type: ignore[import-untyped, unused-ignore]

ATTRIBUTES = ("st_mode", "st_nlink", "st_size", "st_blocks", "st_uid", "st_gid")


class Folder(mfusepy.Operations):  # type: ignore[misc, unused-ignore]
    """Answers with what the host answers, as the example of mfusepy does."""

    use_ns = True

    def __init__(self, root: str) -> None:
        self.root = root

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, Any]:
        status = os.lstat(self.root + path)
        return {name: getattr(status, name) for name in ATTRIBUTES}

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *os.listdir(self.root + path)]  # noqa: PTH208

    def open(self, path: str, flags: int) -> int:
        return os.open(self.root + path, flags)

    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        return os.pread(handle, size, offset)


if __name__ == "__main__":
    mfusepy.FUSE(Folder(os.path.abspath(sys.argv[1])), sys.argv[2], ro=True)  # noqa: PTH100
