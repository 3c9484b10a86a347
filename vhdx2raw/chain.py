"""A virtual disk as a child and its parents, opened from the child on (MS-VHDX 2.6.2.6)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from vhdx2raw.errors import (
    CorruptImageError,
    Finding,
    Findings,
    ImageError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
)
from vhdx2raw.image import VhdxImage, open_image
from vhdx2raw.locator import ParentLocator, read_parent_locator
from vhdx2raw.log import LogPolicy
from vhdx2raw.parent_search import ParentSearch
from vhdx2raw.source_object import AnyFile, name_of

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_DEPTH = 256
IN_USE_HINT = "a VM may be using it: shut that down, or take a checkpoint"
AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Chain:
    """The images that make up one virtual disk. Close it, or use it as a context manager.

    Attributes:
        images: The child first, its parent next, the root last.
        warnings: What is odd about any of them, with the file that it is about.
        damage: What makes the contents uncertain or lost, in the same form; only if the chain was
            opened to be salvaged.
        salvaging: Whether to go on where something cannot be read.
    """

    images: tuple[VhdxImage, ...]
    warnings: tuple[tuple[str, Finding], ...] = ()
    damage: tuple[tuple[str, Finding], ...] = ()
    salvaging: bool = False

    @property
    def child(self) -> VhdxImage:
        """The image that the disk is named by; it alone decides on the size (R107)."""
        return self.images[0]

    @property
    def virtual_disk_size(self) -> int:
        """Bytes of the virtual disk."""
        return self.child.virtual_disk_size

    @property
    def identities(self) -> tuple[tuple[int, int], ...]:
        """What tells every file that is read from any other: `Source.identity`."""
        return tuple(image.source.identity for image in self.images)

    def find_changes(self) -> tuple[tuple[str, Finding], ...]:
        """Say which files have changed since they were opened, and how (R119)."""
        changes = ((image.source.name, image.find_change()) for image in self.images)
        return tuple((name, change) for name, change in changes if change)

    def require_unchanged(self, *, hint: str = IN_USE_HINT) -> None:
        """Make sure that no file has changed since it was opened.

        Args:
            hint: What the user can do about it.

        Raises:
            CorruptImageError: One has, so that what was read may be of two states.
        """
        for name, change in self.find_changes():
            raise CorruptImageError(change, path=name, hint=hint)

    def close(self) -> None:
        """Close every file; a second call does nothing."""
        for image in self.images:
            image.close()

    def __enter__(self) -> Self:
        """Return the chain itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every file."""
        self.close()


def open_chain(
    path: AnyFile,
    *,
    parents: Sequence[AnyFile] = (),
    parent_dirs: Sequence[AnyPath] = (),
    allow_parent_mismatch: bool = False,
    log_policy: LogPolicy = LogPolicy.REPLAY,
    salvage: bool = False,
) -> Chain:
    """Open the image at `path` and every parent that it needs.

    Close the chain, or use it as a context manager.

    A file is named by its path, or is a binary file object, such as `io.BytesIO` or what
    `gzip.open` gives. An object must be able to seek, must not be used for anything else
    meanwhile, and stays open. Beside a child that lies under no name of the host no parent is
    looked for.

    Args:
        path: The child.
        parents: Its parent, the parent of that one, and so on; found by themselves behind these.
        parent_dirs: Folders in which parents may lie, besides that of the child.
        allow_parent_mismatch: Whether a parent may have another identity than the child wants.
        log_policy: What to do with a log that holds updates, in every image.
        salvage: Whether to open damaged files too, and to show what they still hold; what a
            missing parent had counts as lost.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: A file breaks the specification or is truncated.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        OSError: The host cannot open or read a file.
        TypeError: Something is neither a path nor a binary file object.
    """
    opening = _Opening(
        list(parents),
        tuple(os.fspath(folder) for folder in parent_dirs),
        allow_mismatch=allow_parent_mismatch,
        log_policy=log_policy,
        salvage=salvage,
    )
    try:
        return opening.open(path)
    except BaseException:
        for image in opening.images:
            image.close()
        raise


@dataclass(slots=True)
class _Opening:
    """The chain while it is being opened, from the child on."""

    parents: list[AnyFile]
    folders: tuple[str, ...]
    allow_mismatch: bool = field(kw_only=True)
    log_policy: LogPolicy = field(kw_only=True)
    salvage: bool = field(kw_only=True)
    images: list[VhdxImage] = field(default_factory=list)
    warnings: list[tuple[str, Finding]] = field(default_factory=list)
    damage: list[tuple[str, Finding]] = field(default_factory=list)

    def open(self, path: AnyFile) -> Chain:
        self._add(open_image(path, self.log_policy, salvage=self.salvage))
        while self.images[-1].metadata.has_parent:
            if len(self.images) == MAX_DEPTH:
                raise ParentError(f"has more than {MAX_DEPTH - 1} parents", path=name_of(path))
            parent = self._open_parent(self.images[-1])
            if parent is None:
                break
            self._add(parent)
        if self.parents:
            problem = f"has no use for the parent {name_of(self.parents[0])}"
            problem += f": {self.images[-1].source.name} needs no parent"
            raise ParentMismatchError(problem, path=name_of(path))
        return Chain(
            tuple(self.images), tuple(self.warnings), tuple(self.damage), salvaging=self.salvage
        )

    def _add(self, image: VhdxImage) -> None:
        self.images.append(image)
        self.warnings += [(image.source.name, finding) for finding in image.warnings]
        self.damage += [(image.source.name, finding) for finding in image.damage]

    def _open_parent(self, child: VhdxImage) -> VhdxImage | None:
        """Open the parent of a child; None if it is missing and the disk is salvaged (R110)."""
        search = ParentSearch(
            child, self.images, self._read_locator(child), self.log_policy, salvage=self.salvage
        )
        if self.parents:
            search.try_file(self.parents.pop(0))
        else:
            search.try_candidates(self.folders)
        try:
            return search.choose(allow_mismatch=self.allow_mismatch, warnings=self.warnings)
        except (ParentNotFoundError, ImageError) as error:
            if not self.salvage:
                raise
            problem = error.message if isinstance(error, ParentError) else str(error)
            self.damage.append((child.source.name, Finding("R110", "parent", problem)))
            return None

    def _read_locator(self, child: VhdxImage) -> ParentLocator | None:
        """Read the locator of a child; None if it is broken and that is no hindrance (R95)."""
        name = child.source.name
        item = child.metadata.parent_locator
        if item is None:  # known as damage already (R94)
            return None
        findings = Findings()
        try:
            locator = read_parent_locator(item, findings)
        except ImageError as error:
            if self.salvage:
                self.damage.append((name, error.finding))
                return None
            if self.parents and self.allow_mismatch:
                self.warnings.append((name, error.finding))
                return None
            error.path = name
            error.hint = "if you know its parent, use --parent with --allow-parent-mismatch"
            raise
        self.warnings += [(name, finding) for finding in findings.warnings]
        return locator
