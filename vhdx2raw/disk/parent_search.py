"""Which file is the parent of a child: the one with the right identity, among those that exist.

MS-VHDX 2.6.2.6.3. A parent must be the very version that the child was made from, which its
DataWriteGuid shows, since anything else gives wrong bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from vhdx2raw.disk.parent_paths import Candidate, iter_candidates
from vhdx2raw.errors import (
    ImageError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    RemoteError,
)
from vhdx2raw.findings import Finding, quote
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Identity
from vhdx2raw.source.file_object import AnyFile, name_of
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.vhdx.image import VhdxImage, open_image
from vhdx2raw.vhdx.layout import ZERO_GUID
from vhdx2raw.vhdx.locator import ParentLocator
from vhdx2raw.vhdx.log import LogPolicy

if TYPE_CHECKING:
    from vhdx2raw.source.remote.url import RemoteUrl

NOT_THERE = (401, 403, 404)
"""What a server answers, by HTTP, for a file that it does not have, or does not show."""
MISSING_REMEDY = "name the parent with {parent_file}, or its folder with {parent_dir}"
WRONG_REMEDY = "name the right parent with {parent_file}"
CHANGED_REMEDY = (
    "the parent was changed after the child was made, or is another disk, so the result would be"
    " wrong; name the right one with {parent_file} or, if you know that only its identity was"
    " changed, use {allow_parent_mismatch}"
)


class Parent(NamedTuple):
    """The parent of a child.

    Attributes:
        image: It, opened.
        warnings: What is unusual about its identity.
    """

    image: VhdxImage
    warnings: tuple[Finding, ...] = ()


def find_parent(
    child: VhdxImage,
    chain: Collection[Identity],
    *,
    given: AnyFile | None,
    folders: Sequence[str],
    allow_mismatch: bool,
    log_policy: LogPolicy,
    salvage: bool,
    remote: RemoteOptions,
) -> Parent:
    """Find and open the parent of `child`.

    Args:
        child: Its locator says which parent it needs.
        chain: The files that are part of the chain already.
        given: The parent, if the user named it; else it is looked for.
        folders: Where parents may lie, besides the folder of the child.
        allow_mismatch: Whether a parent with another identity will do, if no other is there.
        log_policy: What to do with a log that holds updates.
        salvage: Whether a damaged parent will do.
        remote: How to read what lies under a URL.

    Raises:
        ParentError: There is none; lists every path tried and why.
        ImageError: The only one there is broken.
        RemoteError: Whether it is there cannot be known at the moment.
    """
    search = _Search(child, chain, log_policy, remote, salvage=salvage)
    if given is not None:
        search.try_file(given)
    elif child.metadata.parent_locator:
        for candidate in iter_candidates(child.metadata.parent_locator, child.source, folders):
            if candidate.file is None:
                search.attempts.append(f"{candidate.place}: {candidate.problem}")
            else:
                search.try_file(candidate.file, candidate)
            if search.match:
                break
    return search.finish(allow_mismatch=allow_mismatch)


@dataclass(slots=True)
class _Search:
    """What was tried so far, and what was found."""

    child: VhdxImage
    chain: Collection[Identity]
    log_policy: LogPolicy
    remote: RemoteOptions
    salvage: bool = field(kw_only=True)
    attempts: list[str] = field(default_factory=list)
    match: VhdxImage | None = None
    mismatch: VhdxImage | None = None
    broken: ImageError | None = None
    failure: tuple[type[ParentError], Rule, str] = (
        ParentNotFoundError,
        Rule.PARENT_MISSING,
        MISSING_REMEDY,
    )

    @property
    def _locator(self) -> ParentLocator | None:
        return self.child.metadata.parent_locator

    def try_file(self, file: AnyFile | RemoteUrl, candidate: Candidate | None = None) -> None:
        """Open a file and see whether it is the parent; keep it open only if it may be."""
        path = name_of(file)
        try:
            image = open_image(file, self.log_policy, salvage=self.salvage, remote=self.remote)
        except ImageError as error:
            self.attempts.append(f"{path}: {error.message}")
            if error.finding.rule is not Rule.SIGNATURE:  # a broken VHDX: that is the news
                self.broken = self.broken or error
            return
        except RemoteError as error:
            if error.status not in NOT_THERE:
                raise
            self.attempts.append(f"{path}: {error.message}")
            return
        except OSError as error:
            self.attempts.append(f"{path}: {error.strerror or error}")
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
        if image.source.identity in self.chain:
            self.attempts.append(f"{path}: is a file of the chain already")
            self.failure = ParentCycleError, Rule.PARENT_CYCLE, WRONG_REMEDY
        elif sector_size != child_sector_size:
            problem = f"has sectors of {sector_size} bytes, the child of {child_sector_size}"
            self.attempts.append(f"{path}: {problem}")
            self.failure = ParentMismatchError, Rule.PARENT_SECTOR_SIZE, WRONG_REMEDY
        elif self._locator and _guid_of(image) in self._locator.linkages:
            self.match = image
        else:
            self.attempts.append(f"{path}: has the DataWriteGuid {_guid_of(image)}")
            self.failure = ParentMismatchError, Rule.PARENT_VERSION, CHANGED_REMEDY
            self.mismatch = self.mismatch or image

    def finish(self, *, allow_mismatch: bool) -> Parent:
        """Return the parent, or raise an error that lists every path tried and why."""
        if self.mismatch and (self.match or not allow_mismatch):
            self.mismatch.close()
        if self.match:
            problem = "has no identity, so that its version cannot be checked"
            warning = Finding(Rule.PARENT_IDENTITY, "parent", problem)
            return Parent(self.match, (warning,) if _guid_of(self.match) == ZERO_GUID else ())
        if self.mismatch and allow_mismatch:
            warning = Finding(
                Rule.PARENT_VERSION,
                "parent",
                "is not the version that the child was made from, and is used nevertheless",
                found=f"DataWriteGuid {_guid_of(self.mismatch)}",
                expected=self._expected_guid(),
            )
            return Parent(self.mismatch, (warning,))
        if self.broken:
            raise self.broken
        error, rule, remedy = self.failure
        tried = tuple(map(quote, self.attempts))
        message = f"its parent cannot be used: expected {self._expected_path()}"
        message += f" with the DataWriteGuid {self._expected_guid()}"
        message += f"; tried {'; '.join(tried) or 'nothing'}"
        name = self.child.source.name
        raise error(message, rule=rule, path=name, remedy=remedy, tried=tried)

    def _expected_path(self) -> str:
        paths = self._locator.paths.values() if self._locator else ()
        return " or ".join(map(quote, paths)) or "a file that is not named"

    def _expected_guid(self) -> str:
        return " or ".join(map(str, self._locator.linkages)) if self._locator else "unknown"


def _guid_of(image: VhdxImage) -> UUID:
    """Return what a child records of the version of its parent (R17)."""
    return image.header_section.header.data_write_guid
