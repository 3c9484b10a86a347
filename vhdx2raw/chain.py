"""A virtual disk as one image, or as a child and its parents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vhdx2raw.errors import Finding, UnsupportedImageError
from vhdx2raw.image import VhdxImage, open_image


@dataclass(frozen=True, slots=True)
class Chain:
    """The images that make up one virtual disk.

    Attributes:
        images: The child first, its parent next, the root last.
    """

    images: tuple[VhdxImage, ...]

    @property
    def child(self) -> VhdxImage:
        """The image that the disk is named by; it alone decides on the size."""
        return self.images[0]

    @property
    def virtual_disk_size(self) -> int:
        """Bytes of the virtual disk."""
        return self.child.virtual_disk_size

    @property
    def identities(self) -> tuple[tuple[int, int], ...]:
        """Device and inode of every file that is read."""
        return tuple(image.source.identity for image in self.images)


@contextmanager
def open_chain(path: str | os.PathLike[str]) -> Iterator[Chain]:
    """Open the image at `path` and every parent that it needs, for as long as the context lasts.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: A file breaks the specification or is truncated.
        OSError: The host cannot open or read a file.
    """
    with open_image(path) as image:
        if image.metadata.has_parent:
            problem = "the disk needs its parent, which this version cannot read"
            finding = Finding("R94", "Parent Locator", problem, "2.6.2.6")
            raise UnsupportedImageError(finding, path=image.source.name)
        yield Chain((image,))
