"""A virtual disk as a child and its parents, opened from the child on (MS-VHDX 2.6.2.6)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from vhdx2raw.errors import (
    ImageError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    SourceChangedError,
)
from vhdx2raw.findings import Finding
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Closable, Fetched, Identity, total
from vhdx2raw.source.file_object import AnyFile, name_of
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.vhdx.image import VhdxImage, open_image
from vhdx2raw.vhdx.log import LogPolicy
from vhdx2raw.vhdx.region_search import REGION_NAMES

if TYPE_CHECKING:
    from vhdx2raw.disk.parent_search import Parent

MAX_DEPTH = 256
IN_USE_REMEDY = "a VM may be using it: shut that down, or take a checkpoint"
AnyPath = str | os.PathLike[str]
NamedFinding = tuple[str, Finding]
"""The name of a file, and what is wrong or unusual about it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OpenOptions(RemoteOptions):
    """How a disk is opened.

    Attributes:
        parents: The parent of a differencing disk, the parent of that one, and so on; the ones
            after these are looked for.
        parent_dirs: Folders in which parents may lie, besides that of the child; URLs too.
        allow_parent_mismatch: Whether a parent may have another identity than the child records.
        log_policy: What to do with a log that holds updates, in every file.
        salvage: Whether to open damaged files too, and to show what they still hold; what a
            missing parent had counts as lost.
        regions: Of a damaged file that is salvaged, where its regions lie, by their names ``bat``
            and ``metadata``, in bytes.
        connections: How many requests may be under way at a time, of URLs, 1 to 16.
        retries: How often a request is made again that failed for the moment.
        timeout: Seconds to wait for a connection, and each time for more bytes.
        anonymous: Whether to use no credentials for what is public.
        ca_file: Certificates, in PEM, that are trusted besides those that the host trusts.
    """

    parents: Sequence[AnyFile] = ()
    parent_dirs: Sequence[AnyPath] = ()
    allow_parent_mismatch: bool = False
    log_policy: LogPolicy = LogPolicy.REPLAY
    salvage: bool = False
    regions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names of the regions, and the numbers.

        Raises:
            ValueError: There is no such region, or a number is out of its range.
        """
        RemoteOptions.__post_init__(self)
        for name in self.regions:
            if name not in REGION_NAMES:
                names = " or ".join(REGION_NAMES)
                raise ValueError(f"there is no region {name!r}, only {names}")


DEFAULTS = OpenOptions()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Chain(Closable):
    """The images that make up one virtual disk. Close it, or use it as a context manager.

    Attributes:
        images: The child first, its parent next, the root last.
        warnings: What is unusual about any of them, with the file that it is about.
        damage: What makes the contents uncertain or lost, in the same form; only if the chain was
            opened to be salvaged.
        salvaging: Whether to go on where something cannot be read.
        parent_error: Why the last image has no parent here, though it needs one.
        base: The DataWriteGuid of the version that the last image leaves the rest to, if the
            chain was opened down to that version only.
    """

    images: tuple[VhdxImage, ...]
    warnings: tuple[NamedFinding, ...] = ()
    damage: tuple[NamedFinding, ...] = ()
    salvaging: bool = False
    parent_error: ImageError | ParentError | None = None
    base: UUID | None = None

    @property
    def child(self) -> VhdxImage:
        """The image that the disk is named by; it alone decides on the size (R107)."""
        return self.images[0]

    @property
    def virtual_disk_size(self) -> int:
        return self.child.virtual_disk_size

    @property
    def identities(self) -> tuple[Identity, ...]:
        """What distinguishes every file that is read."""
        return tuple(image.source.identity for image in self.images)

    @property
    def read_ahead(self) -> int:
        """How many bytes are to be asked for before they are read, if any file wants that."""
        return max(image.source.read_ahead for image in self.images)

    @property
    def fetched(self) -> Fetched | None:
        """What was read over a network so far; None if every file is one of the host."""
        return total(image.source.fetched for image in self.images)

    def cancel(self) -> None:
        """Let reads that wait for a network fail now."""
        for image in self.images:
            image.source.cancel()

    def watch(self) -> None:
        """Have the host note every write to any file from now on, before what counts is read."""
        for image in self.images:
            image.source.watch()

    def find_changes(self) -> tuple[NamedFinding, ...]:
        """Return which files have changed since they were opened, and how (R119)."""
        changes = ((image.source.name, image.find_change()) for image in self.images)
        return tuple((name, change) for name, change in changes if change)

    def require_unchanged(self, *, remedy: str = IN_USE_REMEDY) -> None:
        """Make sure that no file has changed since it was opened.

        Raises:
            SourceChangedError: One has.
        """
        for name, change in self.find_changes():
            raise SourceChangedError(change, path=name, remedy=remedy)

    def close(self) -> None:
        for image in self.images:
            image.close()


def open_chain(
    path: AnyFile,
    options: OpenOptions = DEFAULTS,
    *,
    partial: bool = False,
    stop_at: UUID | None = None,
) -> Chain:
    """Open the image at `path` and every parent that it needs.

    A file is named by its path or URL, or is a binary file object, such as `io.BytesIO` or what
    `gzip.open` gives. An object must be able to seek, must not be used for anything else
    meanwhile, and stays open. Beside a child that lies under no name of the host no parent is
    looked for.

    Args:
        path: The child.
        options: How to open it.
        partial: Whether to stop at an image whose parent cannot be used; `Chain.parent_error`
            says why.
        stop_at: The DataWriteGuid of a version that is there already in another form. The chain
            ends with the image that names it as its parent, and this is `Chain.base`.

    Raises:
        UnsupportedImageError: Not a VHDX, or it needs something that is not supported.
        CorruptImageError: A file breaks the specification or is truncated.
        ParentError: A parent is missing, is the wrong one, or lies where it may not.
        RemoteError: A file could not be read over the network.
        OSError: The host cannot open or read a file.
        TypeError: Something is neither a path nor a binary file object.
    """
    child = open_image(
        path,
        options.log_policy,
        salvage=options.salvage,
        regions=options.regions,
        remote=options,
    )
    return open_parents(child, options, partial=partial, stop_at=stop_at)


def open_parents(
    child: VhdxImage,
    options: OpenOptions,
    *,
    partial: bool = False,
    stop_at: UUID | None = None,
) -> Chain:
    """Do what `open_chain` does for a child that is open, and is closed after a failure."""
    images, warnings, damage = [child], _named(child, child.warnings), _named(child, child.damage)
    given = list(options.parents)
    parent_error: ImageError | ParentError | None = None
    try:
        while images[-1].metadata.has_parent and not _rests_on(images[-1], stop_at):
            try:
                parent = _open_parent(images, given, options)
            except (ImageError, ParentError) as error:
                forgiven = isinstance(error, ParentNotFoundError | ImageError)
                if not (partial or (options.salvage and forgiven)):
                    raise
                parent_error = error
                break
            warnings += _named(images[-1], parent.warnings)
            images.append(parent.image)
            warnings += _named(parent.image, parent.image.warnings)
            damage += _named(parent.image, parent.image.damage)
        if parent_error is None and not _rests_on(images[-1], stop_at):
            _require_no_more(given, images)
    except BaseException:
        for image in images:
            image.close()
        raise
    if parent_error and options.salvage:
        is_broken = isinstance(parent_error, ImageError)
        problem = str(parent_error) if is_broken else parent_error.message
        finding = Finding(Rule.PARENT_MISSING, "parent", problem, spec="")
        damage.append((images[-1].source.name, finding))
    for image in images:
        image.bat.share_cache(len(images))
    base = stop_at if _rests_on(images[-1], stop_at) else None
    return Chain(tuple(images), tuple(warnings), tuple(damage), options.salvage, parent_error, base)


def _rests_on(image: VhdxImage, version: UUID | None) -> bool:
    """Return whether the parent of an image is a certain version of a disk."""
    locator = image.metadata.parent_locator
    return version is not None and locator is not None and version in locator.linkages


def _require_no_more(given: list[AnyFile], images: list[VhdxImage]) -> None:
    if given:
        problem = f"has no use for the parent {name_of(given[0])}"
        problem += f": {images[-1].source.name} needs no parent"
        name = images[0].source.name
        raise ParentMismatchError(problem, rule=Rule.PARENT_VERSION, path=name)


def _named(image: VhdxImage, findings: Sequence[Finding]) -> list[NamedFinding]:
    return [(image.source.name, finding) for finding in findings]


def _open_parent(images: list[VhdxImage], given: list[AnyFile], options: OpenOptions) -> Parent:
    """Open the parent of the last of `images`, the first of `given` if there are any."""
    from vhdx2raw.disk import parent_search  # noqa: PLC0415 - most disks have none

    child = images[-1]
    if len(images) == MAX_DEPTH:
        problem = f"has more than {MAX_DEPTH - 1} parents"
        raise ParentError(problem, rule=Rule.PARENT_CYCLE, path=images[0].source.name)
    broken = child.metadata.parent_locator_error
    if broken and not options.salvage and not (given and options.allow_parent_mismatch):
        broken.path = child.source.name
        broken.remedy = "if you know its parent, use {parents} with {allow_parent_mismatch}"
        raise broken
    parent = parent_search.find_parent(
        child,
        [image.source.identity for image in images],
        given=given.pop(0) if given else None,
        folders=[os.fspath(folder) for folder in options.parent_dirs],
        allow_mismatch=options.allow_parent_mismatch,
        log_policy=options.log_policy,
        salvage=options.salvage,
        remote=options,
    )
    if broken and not options.salvage:
        return parent_search.Parent(parent.image, (broken.finding, *parent.warnings))
    return parent
