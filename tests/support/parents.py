"""Where the parents of a chain were found, or why they were not."""

from pathlib import Path

import pytest

from tests.support.chains import chain_bytes
from tests.support.files import open_files
from vhdx2raw.disk.chain import OpenOptions, open_chain
from vhdx2raw.errors import ParentNotFoundError

OUTSIDE = "lies outside the child's folder and every folder that was named for parents"


def parents_of(path: Path, *folders: Path) -> list[str]:
    """Open a chain, check that it reads its root, and give the paths of the parents."""
    with open_chain(path, OpenOptions(parent_dirs=folders)) as chain:
        assert chain_bytes(chain, 0, 4) == b"root"
        return [image.source.name for image in chain.images[1:]]


def refusal_of(path: Path, *folders: Path) -> str:
    """Open a chain whose parent is not found, and give the message."""
    before = open_files()
    with (
        pytest.raises(ParentNotFoundError) as caught,
        open_chain(path, OpenOptions(parent_dirs=folders)),
    ):
        pass
    assert caught.value.path == str(path)
    assert caught.value.hint == (
        "name the parent with parents=[...], or its folder with parent_dirs=[...]"
    )
    assert open_files() == before
    return caught.value.message
