"""Which file is the parent of a child: the one with the right identity, among those that are there.

MS-VHDX 2.6.2.6.3. A parent must be the very version that the child was made from, which its
DataWriteGuid tells, since anything else gives wrong bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from vhdx2raw.errors import (
    Finding,
    ImageError,
    ParentCycleError,
    ParentError,
    ParentMismatchError,
    ParentNotFoundError,
    quote,
)
from vhdx2raw.image import VhdxImage, open_image
from vhdx2raw.locator import ParentLocator
from vhdx2raw.log import LogPolicy
from vhdx2raw.parents import Candidate, iter_candidates
from vhdx2raw.source_object import AnyFile, name_of
from vhdx2raw.structures import ZERO_GUID

NOT_A_VHDX = "R1"

MISSING_HINT = "name the parent with --parent FILE, or its folder with --parent-dir DIR"
WRONG_HINT = "name the right parent with --parent FILE"
CHANGED_HINT = (
    "the parent was changed after the child was made, or is another disk, so the result would be"
    " wrong; name the right one with --parent FILE or, if you know that only its identity was"
    " changed, use --allow-parent-mismatch"
)


@dataclass(slots=True)
class ParentSearch:
    """The search for the parent of one child: what was tried, and what was found."""

    child: VhdxImage
    images: list[VhdxImage]
    locator: ParentLocator | None
    log_policy: LogPolicy
    salvage: bool
    attempts: list[str] = field(default_factory=list)
    match: VhdxImage | None = None
    mismatch: VhdxImage | None = None
    broken: ImageError | None = None
    error_kind: type[ParentError] = ParentNotFoundError
    hint: str = MISSING_HINT

    def try_candidates(self, folders: tuple[str, ...]) -> None:
        """Try the places that the locator names, until one has the right parent."""
        if self.locator is None:
            return
        for candidate in iter_candidates(self.locator, self.child.source, folders):
            if candidate.path is None:
                self.attempts.append(f"{candidate.place}: {candidate.problem}")
            else:
                self.try_file(str(candidate.path), candidate)
            if self.match:
                return

    def try_file(self, file: AnyFile, candidate: Candidate | None = None) -> None:
        """Open a file and see whether it is the parent; keep it open only if it may be."""
        path = name_of(file)
        try:
            image = open_image(file, self.log_policy, salvage=self.salvage)
        except ImageError as error:
            self.attempts.append(f"{path}: {error.message}")
            if error.finding.rule != NOT_A_VHDX:  # a broken VHDX: that is the news
                self.broken = self.broken or error
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
        tried = "; ".join(map(quote, self.attempts)) or "nothing"
        message = f"its parent cannot be used: wanted {self._wanted_path()}"
        message += f" with the DataWriteGuid {self._wanted_guid()}; tried {tried}"
        raise self.error_kind(message, path=name, hint=self.hint)

    def _wanted_path(self) -> str:
        paths = self.locator.paths.values() if self.locator else ()
        return " or ".join(map(quote, paths)) or "a file that is not named"

    def _wanted_guid(self) -> str:
        return " or ".join(map(str, self.locator.linkages)) if self.locator else "unknown"


def _guid_of(image: VhdxImage) -> UUID:
    """Return what a child remembers of the version of its parent (R17)."""
    return image.header_section.header.data_write_guid
