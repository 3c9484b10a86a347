"""The images of a folder, each below its parent, and the command that converts it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vhdx2raw.disk.found import FoundImage
from vhdx2raw.errors import ImageError, ParentError
from vhdx2raw.operations.discovery import Catalog
from vhdx2raw.source.file_object import file_name_of, is_url

SUFFIX = ".img"


class Node(NamedTuple):
    """An image and its place.

    Attributes:
        image: The image.
        ends: For the image and all above it but the root, whether it is the last of its siblings;
            that of the root's child first.
        children: The images that were made from it.
        parents: Its parent, the parent of that one, and so on.
        leads_to_parents: Whether opening it finds them without being told where they are.
        is_tip: Whether it is the newest image of its chain.
        error: Why it has no parent here, though it needs one.
        chain_error: Why it, or the last of its parents, has none.
    """

    image: FoundImage
    ends: tuple[bool, ...]
    children: tuple[FoundImage, ...]
    parents: tuple[FoundImage, ...]
    leads_to_parents: bool
    is_tip: bool
    error: ImageError | ParentError | None
    chain_error: ImageError | ParentError | None


def iter_nodes(catalog: Catalog) -> Iterator[Node]:
    """Yield every image, with what was made from it below it.

    No recursion: a chain may be deeper than the stack of a calling program allows.
    """
    children: defaultdict[FoundImage, list[FoundImage]] = defaultdict(list)
    images = dict.fromkeys(catalog.images)
    for image in catalog.images:  # the parents may lie elsewhere
        images |= dict.fromkeys(catalog.parents_of(image))
    for image in images:
        if parent := catalog.parent_of(image):
            children[parent].append(image)
    roots = [image for image in images if catalog.parent_of(image) is None]
    tips = set(catalog.tips)
    waiting: list[tuple[FoundImage, tuple[bool, ...]]] = [(image, ()) for image in reversed(roots)]
    while waiting:
        image, ends = waiting.pop()
        below = children[image]
        yield Node(
            image,
            ends,
            tuple(below),
            catalog.parents_of(image),
            catalog.leads_to_parents(image),
            image in tips,
            catalog.error_of(image),
            catalog.chain_error_of(image),
        )
        waiting += [(child, (*ends, child is below[-1])) for child in reversed(below)]


def conversion_of(node: Node) -> list[str] | None:
    """Return the words of the command that converts a tip; None if its chain is not complete.

    The image is made beside the tip, or here if that lies under a URL. Parents are named where
    opening the tip would not find them.
    """
    if not node.is_tip or node.chain_error:
        return None
    words: list[str] = []
    if not node.leads_to_parents:
        words = [word for parent in node.parents for word in ("--parent", _as_word(parent.path))]
    source = node.image.path
    place = Path(file_name_of(source) if is_url(source) else source)
    destination = str(place.with_suffix(SUFFIX))
    return ["vhdx2raw", *words, _as_word(source), _as_word(destination)]


def _as_word(path: str) -> str:
    """Return a path that cannot be taken for an option."""
    return os.path.join(os.curdir, path) if path.startswith("-") else path  # noqa: PTH118
