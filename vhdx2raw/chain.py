"""A virtual disk as a child and its parents: which file is the parent, and whether it is the one.

MS-VHDX 2.6.2.6. A parent must be the very version that the child was made from, which its
DataWriteGuid tells, since anything else gives wrong bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import UUID

from vhdx2raw.errors import (
    Finding,
    Findings,
    ImageError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
)
from vhdx2raw.image import VhdxImage, open_image
from vhdx2raw.locator import ParentLocator, read_parent_locator
from vhdx2raw.log import LogPolicy
from vhdx2raw.parents import Candidate, iter_candidates
from vhdx2raw.structures import ZERO_GUID

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_DEPTH = 256
NOT_A_VHDX = "R1"

MISSING_HINT = "name the parent with --parent FILE, or its folder with --parent-dir DIR"
WRONG_HINT = "name the right parent with --parent FILE"
CHANGED_HINT = (
    "the parent was changed after the child was made, or is another disk, so the result would be"
    " wrong; name the right one with --parent FILE or, if you know that only its identity was"
    " changed, use --allow-parent-mismatch"
)

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Chain:
    """The images that make up one virtual disk. Close it, or use it as a context manager.

    Attributes:
        images: The child first, its parent next, the root last.
        warnings: What is odd about any of them, with the file that it is about.
    """

    images: tuple[VhdxImage, ...]
    warnings: tuple[tuple[str, Finding], ...] = ()

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
        """Device and inode of every file that is read."""
        return tuple(image.source.identity for image in self.images)

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
    path: AnyPath,
    *,
    parents: Sequence[AnyPath] = (),
    parent_dirs: Sequence[AnyPath] = (),
    allow_parent_mismatch: bool = False,
    log_policy: LogPolicy = LogPolicy.REPLAY,
) -> Chain:
    """Open the image at `path` and every parent that it needs.

    Close the chain, or use it as a context manager.

    Args:
        path: The child.
        parents: Its parent, the parent of that one, and so on; found by themselves behind these.
        parent_dirs: Folders in which parents may lie, besides that of the child.
        allow_parent_mismatch: Whether a parent may have another identity than the child wants.
        log_policy: What to do with a log that holds updates, in every image.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: A file breaks the specification or is truncated.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        OSError: The host cannot open or read a file.
    """
    opening = _Opening(
        [os.fspath(parent) for parent in parents],
        tuple(os.fspath(folder) for folder in parent_dirs),
        allow_mismatch=allow_parent_mismatch,
        log_policy=log_policy,
    )
    try:
        return opening.open(os.fspath(path))
    except BaseException:
        for image in opening.images:
            image.close()
        raise


@dataclass(slots=True)
class _Opening:
    """The chain while it is being opened, from the child on."""

    parents: list[str]
    folders: tuple[str, ...]
    allow_mismatch: bool = field(kw_only=True)
    log_policy: LogPolicy = field(kw_only=True)
    images: list[VhdxImage] = field(default_factory=list)
    warnings: list[tuple[str, Finding]] = field(default_factory=list)

    def open(self, path: str) -> Chain:
        self._add(open_image(path, self.log_policy))
        while self.images[-1].metadata.has_parent:
            if len(self.images) == MAX_DEPTH:
                raise ParentError(f"has more than {MAX_DEPTH - 1} parents", path=path)
            self._add(self._open_parent(self.images[-1]))
        if self.parents:
            problem = f"has no use for the parent {self.parents[0]}: {self.images[-1].source.name}"
            raise ParentMismatchError(f"{problem} needs no parent", path=path)
        return Chain(tuple(self.images), tuple(self.warnings))

    def _add(self, image: VhdxImage) -> None:
        self.images.append(image)
        self.warnings += [(image.source.name, finding) for finding in image.warnings]

    def _open_parent(self, child: VhdxImage) -> VhdxImage:
        search = _Search(child, self.images, self._read_locator(child), self.log_policy)
        if self.parents:
            search.try_file(self.parents.pop(0))
        else:
            search.try_candidates(self.folders)
        return search.choose(allow_mismatch=self.allow_mismatch, warnings=self.warnings)

    def _read_locator(self, child: VhdxImage) -> ParentLocator | None:
        """Read the locator of a child; None if it is broken and the user knows better (R95)."""
        assert child.metadata.parent_locator is not None, "a differencing disk has one (R94)"
        name = child.source.name
        findings = Findings()
        try:
            locator = read_parent_locator(child.metadata.parent_locator, findings)
        except ImageError as error:
            if self.parents and self.allow_mismatch:
                self.warnings.append((name, error.finding))
                return None
            error.path = name
            error.hint = "if you know its parent, use --parent with --allow-parent-mismatch"
            raise
        self.warnings += [(name, finding) for finding in findings.warnings]
        return locator


@dataclass(slots=True)
class _Search:
    """The search for the parent of one child: what was tried, and what was found."""

    child: VhdxImage
    images: list[VhdxImage]
    locator: ParentLocator | None
    log_policy: LogPolicy
    attempts: list[str] = field(default_factory=list)
    match: VhdxImage | None = None
    mismatch: VhdxImage | None = None
    broken: ImageError | None = None
    error_kind: type[ParentError] = ParentNotFoundError
    hint: str = MISSING_HINT

    def try_candidates(self, folders: tuple[str, ...]) -> None:
        """Try the places that the locator names, until one has the right parent."""
        assert self.locator is not None, "without one there is nothing to try"
        for candidate in iter_candidates(self.locator, self.child.source.name, folders):
            if candidate.path is None:
                self.attempts.append(f"{candidate.place}: {candidate.problem}")
            else:
                self.try_file(str(candidate.path), candidate)
            if self.match:
                return

    def try_file(self, path: str, candidate: Candidate | None = None) -> None:
        """Open a file and see whether it is the parent; keep it open only if it may be."""
        try:
            image = open_image(path, self.log_policy)
        except ImageError as error:
            self.attempts.append(f"{path}: {error.message}")
            if error.finding.rule != NOT_A_VHDX:  # a broken VHDX: that is the news
                self.broken = self.broken or error
            return
        except OSError as error:
            self.attempts.append(f"{path}: {error.strerror}")
            return
        try:
            if candidate:
                candidate.check_opened(image.source.identity)
            self._judge(path, image)
        except (OSError, ParentNotFoundError) as error:
            self.attempts.append(f"{path}: {error}")
        finally:
            if image not in (self.match, self.mismatch):
                image.close()

    def _judge(self, path: str, image: VhdxImage) -> None:
        """Keep `image` as the parent, or note why it is not (R100, R101, R105, R108)."""
        sector_size = image.metadata.logical_sector_size
        child_sector_size = self.child.metadata.logical_sector_size
        if image.source.identity in (known.source.identity for known in self.images):
            self.attempts.append(f"{path}: is a file of the chain already")
            self.error_kind, self.hint = ParentCycleError, WRONG_HINT
        elif sector_size != child_sector_size:
            problem = f"has sectors of {sector_size} bytes, the child of {child_sector_size}"
            self.attempts.append(f"{path}: {problem}")
            self.error_kind, self.hint = ParentMismatchError, WRONG_HINT
        elif self.locator and _guid_of(image) in self.locator.linkages:
            self.match = image
        else:
            self.attempts.append(f"{path}: has the DataWriteGuid {_guid_of(image)}")
            self.error_kind, self.hint = ParentMismatchError, CHANGED_HINT
            self.mismatch = self.mismatch or image

    def choose(self, *, allow_mismatch: bool, warnings: list[tuple[str, Finding]]) -> VhdxImage:
        """Return the parent, or raise an error that lists every path tried and why."""
        name = self.child.source.name
        if self.mismatch and (self.match or not allow_mismatch):
            self.mismatch.close()
        if self.match:
            if _guid_of(self.match) == ZERO_GUID:
                problem = "has no identity, so that its version cannot be told"
                warnings.append((name, Finding("R101", "parent", problem, "2.6.2.6.3")))
            return self.match
        if self.mismatch and allow_mismatch:
            problem = "is not the version that the child was made from, and is used nevertheless"
            found = f"DataWriteGuid {_guid_of(self.mismatch)}"
            facts = Finding(
                "R100", "parent", problem, "2.6.2.6.3", None, found, self._wanted_guid()
            )
            warnings.append((name, facts))
            return self.mismatch
        if self.broken:
            raise self.broken
        tried = "; ".join(self.attempts) or "nothing"
        message = f"its parent cannot be used: wanted {self._wanted_path()}"
        message += f" with the DataWriteGuid {self._wanted_guid()}; tried {tried}"
        raise self.error_kind(message, path=name, hint=self.hint)

    def _wanted_path(self) -> str:
        paths = self.locator.paths.values() if self.locator else ()
        return " or ".join(paths) or "a file that is not named"

    def _wanted_guid(self) -> str:
        return " or ".join(map(str, self.locator.linkages)) if self.locator else "unknown"


def _guid_of(image: VhdxImage) -> UUID:
    """Return what a child remembers of the version of its parent (R17)."""
    return image.header_section.header.data_write_guid
