"""Which VHDX files there are in some folders, and which of them is the parent of which.

A child names its parent by the DataWriteGuid that the parent had (MS-VHDX 2.6.2.6.3); names of
files count only where several files have that. Of each file only the headers, the metadata with
the parent locator and a log that holds updates are read.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard
from uuid import UUID

from vhdx2raw.disk.chain import DEFAULTS, OpenOptions
from vhdx2raw.disk.found import FoundImage, read_found_image
from vhdx2raw.disk.parent_paths import Candidate, iter_candidates
from vhdx2raw.disk.parent_search import MISSING_REMEDY
from vhdx2raw.errors import (
    CorruptImageError,
    ImageError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    Vhdx2rawError,
)
from vhdx2raw.findings import quote
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Identity
from vhdx2raw.source.file import identity_of
from vhdx2raw.source.file_object import is_url, open_source
from vhdx2raw.source.remote.options import RemoteOptions

SUFFIXES = (".vhdx", ".avhdx")
"""Of the files that are looked for in folders, in small or capital letters."""


class BrokenFile(NamedTuple):
    """A file that cannot be read, and why."""

    path: str
    error: Vhdx2rawError | OSError


if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl


def iter_files(
    folder: str, report: Callable[[OSError], None], options: RemoteOptions = DEFAULTS
) -> Iterator[str]:
    """Yield the paths of the VHDX files in a folder and in all below it, those of a folder sorted.

    A symbolic link to a file is a name like any other; one to a folder is not followed.

    Args:
        folder: Where to look; what is found begins with it.
        report: Called with what the host says of a folder that it cannot list.
        options: How to ask if it is a URL, that of a prefix in an object store.

    Raises:
        UnsupportedImageError: It is the URL of what has no list.
        RemoteError: It could not be listed.
    """
    if is_url(folder):
        from vhdx2raw.source.remote.listing import iter_names  # noqa: PLC0415 - for URLs alone

        urls = iter_names(folder, options)
        yield from (url for url in urls if url.casefold().endswith(SUFFIXES))
        return
    for place, folders, names in os.walk(folder, onerror=report):
        folders.sort()
        for name in sorted(names):
            if name.casefold().endswith(SUFFIXES):
                yield os.path.join(place, name)  # noqa: PTH118 - `./` of the folder stays


def discover(paths: Iterable[str], options: OpenOptions = DEFAULTS) -> Catalog:
    """Read what files say about themselves, and find the parent of each.

    Args:
        paths: The files.
        options: How they would be opened: what is done with logs and damage, where else parents
            may lie, and whether one of another version will do.
    """
    images: list[FoundImage] = []
    broken: list[BrokenFile] = []
    for path in paths:
        try:
            images.append(read_found_image(path, options))
        except (Vhdx2rawError, OSError) as error:  # noqa: PERF203 - a file is slow anyway
            if isinstance(error, CorruptImageError) or _is_no_vhdx(error):
                error.message = f"broken: {error.message}"
            broken.append(BrokenFile(path, error))
    return Catalog(images, broken, options)


def _is_no_vhdx(error: Exception) -> TypeGuard[ImageError]:
    return isinstance(error, ImageError) and error.finding.rule is Rule.SIGNATURE


class Catalog:
    """Files, and who is whose parent.

    Attributes:
        images: The files that can be read, in the order in which they were given.
        broken: Those that cannot.
    """

    def __init__(
        self, images: Sequence[FoundImage], broken: Sequence[BrokenFile], options: OpenOptions
    ) -> None:
        """Find the parents of `images` among them, or where their locators lead."""
        self.images = tuple(images)
        self.broken = tuple(broken)
        self._options = options
        self._by_version: defaultdict[UUID, list[FoundImage]] = defaultdict(list)
        self._by_identity: dict[Identity, FoundImage] = {}
        self._parents: dict[FoundImage, FoundImage] = {}
        self._children: defaultdict[Identity, list[FoundImage]] = defaultdict(list)
        self._errors: dict[FoundImage, ImageError | ParentError] = {}
        self._misled: set[FoundImage] = set()
        for image in images:
            self._by_version[image.data_write_guid].append(image)
            self._by_identity.setdefault(image.identity, image)
        waiting = list(reversed(self.images))
        while waiting:
            image = waiting.pop()
            if image in self._parents or image in self._errors or not image.metadata.has_parent:
                continue
            parent = self._find_parent(image)
            if parent:
                self._parents[image] = parent
                self._children[parent.identity].append(image)
                waiting.append(parent)

    @property
    def tips(self) -> tuple[FoundImage, ...]:
        """The images that none is made from: the newest of each chain."""
        return tuple(image for image in self.images if not self.children_of(image))

    def parent_of(self, image: FoundImage) -> FoundImage | None:
        """Return the parent, which need not be one of `images`; None if there is none here."""
        return self._parents.get(image)

    def children_of(self, image: FoundImage) -> tuple[FoundImage, ...]:
        """Return the images that were made from a file, under whatever name of it."""
        return tuple(self._children.get(image.identity, ()))

    def parents_of(self, image: FoundImage) -> tuple[FoundImage, ...]:
        """Return the parent, the parent of that one, and so on, as far as they are there."""
        found: list[FoundImage] = []
        while parent := self._parents.get(found[-1] if found else image):
            found.append(parent)
        return tuple(found)

    def error_of(self, image: FoundImage) -> ImageError | ParentError | None:
        """Return why a differencing image has no parent here; None if it has, or needs none."""
        return self._errors.get(image)

    def chain_error_of(self, image: FoundImage) -> ImageError | ParentError | None:
        """Return why an image, or the last of its parents, has no parent here."""
        return self._errors.get((image, *self.parents_of(image))[-1])

    def leads_to_parents(self, image: FoundImage) -> bool:
        """Return whether opening an image finds its parents without being told where they are."""
        return self._misled.isdisjoint((image, *self.parents_of(image)))

    # -- the parent of one image ----------------------------------------------------------------

    def _find_parent(self, child: FoundImage) -> FoundImage | None:
        """Return the parent of a differencing image, or keep why there is none."""
        if child.metadata.parent_locator_error and not self._options.salvage:
            self._errors[child] = child.metadata.parent_locator_error
            return None
        search = _NamedFiles(child, self._options)
        parent = search.find(lambda path: self._read_named(path, child))
        if parent is None:
            self._misled.add(child)
            known = self._known_parents(child)
            places = {image: (_distance(child.path, image.path), image.path) for image in known}
            parent = min(known, key=lambda image: places[image], default=search.substitute)
        if parent is None:
            self._errors[child] = self._cycle_error(child) or search.error()
        return parent

    def _known_parents(self, child: FoundImage) -> list[FoundImage]:
        """Return the images that have the version that a child was made from."""
        return [
            image
            for linkage in child.linkages
            for image in self._by_version.get(linkage, ())
            if image.metadata.logical_sector_size == child.metadata.logical_sector_size
            and not self._descends_from(image, child)
        ]

    def _descends_from(self, image: FoundImage, other: FoundImage) -> bool:
        chain = (image, *self.parents_of(image))
        return any(each.identity == other.identity for each in chain)

    def _cycle_error(self, child: FoundImage) -> ParentCycleError | None:
        """Return an error if the only parents of a child were made from it."""
        for linkage in child.linkages:
            for image in self._by_version.get(linkage, ()):
                if self._descends_from(image, child):
                    problem = f"orphan: its parent {quote(image.path)} was made from it"
                    return ParentCycleError(problem, rule=Rule.PARENT_CYCLE, path=child.path)
        return None

    def _read_named(self, path: str | RemoteUrl, child: FoundImage) -> FoundImage | None:
        """Read a file that a locator names; None if it was made from `child`, or is it."""
        image = None
        if isinstance(path, str):
            image = self._by_identity.get(identity_of(os.stat(path)))  # noqa: PTH116
        if image is None:
            image = read_found_image(path, self._options)
            image = self._by_identity.setdefault(image.identity, image)
        return None if self._descends_from(image, child) else image


class _NamedFiles:
    """The files that a locator names, tried as opening the child would."""

    def __init__(self, child: FoundImage, options: OpenOptions) -> None:
        self._child = child
        self._options = options
        self._attempts: list[str] = []
        self._mismatch: FoundImage | None = None
        self._broken: ImageError | None = None

    def find(self, read: Callable[[str | RemoteUrl], FoundImage | None]) -> FoundImage | None:
        """Return the first file that is the right version."""
        locator = self._child.metadata.parent_locator
        if locator is None:
            return None
        folders = [os.fspath(folder) for folder in self._options.parent_dirs]
        with open_source(self._child.path, self._options) as source:
            for candidate in iter_candidates(locator, source, folders):
                image = self._judge(candidate, read)
                if image:
                    return image
        return None

    @property
    def substitute(self) -> FoundImage | None:
        """A file of another version, if that will do."""
        return self._mismatch if self._options.allow_parent_mismatch else None

    def _judge(
        self, candidate: Candidate, read: Callable[[str | RemoteUrl], FoundImage | None]
    ) -> FoundImage | None:
        """Return the image at a place if it is the parent, else note why it is not."""
        if candidate.file is None:
            self._attempts.append(f"{candidate.place}: {candidate.problem}")
            return None
        try:
            image = read(candidate.file)
            if image:
                candidate.check_opened(image.identity)
        except (Vhdx2rawError, OSError) as error:
            if isinstance(error, ImageError) and not _is_no_vhdx(error):
                self._broken = self._broken or error  # a broken VHDX: that is the news
            problem = getattr(error, "message", None) or getattr(error, "strerror", None)
            self._attempts.append(f"{candidate.place}: {problem or error}")
            return None
        if image is None:
            self._attempts.append(f"{candidate.place}: is a file of the chain already")
        elif image.metadata.logical_sector_size != self._child.metadata.logical_sector_size:
            self._attempts.append(f"{candidate.place}: has sectors of another size")
        elif image.data_write_guid in self._child.linkages:
            return image
        else:
            self._attempts.append(
                f"{candidate.place}: has the DataWriteGuid {image.data_write_guid}"
            )
            self._mismatch = self._mismatch or image
        return None

    def error(self) -> ImageError | ParentError:
        """Return why there is no parent, with every place that was tried."""
        if self._broken:
            return self._broken
        locator = self._child.metadata.parent_locator
        names = " or ".join(map(quote, locator.paths.values())) if locator else ""
        expected = " or ".join(map(str, self._child.linkages)) or "unknown"
        tried = tuple(map(quote, self._attempts))
        problem = f"orphan: its parent is not here: expected {names or 'a file that is not named'}"
        problem += f" with the DataWriteGuid {expected}; tried {'; '.join(tried) or 'nothing'}"
        kind = ParentMismatchError if self._mismatch else ParentNotFoundError
        rule = Rule.PARENT_VERSION if self._mismatch else Rule.PARENT_MISSING
        return kind(problem, rule=rule, path=self._child.path, remedy=MISSING_REMEDY, tried=tried)


def _distance(path: str, other: str) -> int:
    """Return how many steps two files lie apart in the tree of folders."""
    one, two = (Path(os.path.abspath(each)).parts for each in (path, other))  # noqa: PTH100
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False))
    return len(one) + len(two) - 2 * sum(1 for _ in shared)
