"""The check of one file, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vhdx2raw.chain import AnyPath
from vhdx2raw.check.oddities import find_oddities
from vhdx2raw.errors import (
    Finding,
    Findings,
    ImageError,
    ParentCycleError,
    ParentError,
    ParentNotFoundError,
    Severity,
)
from vhdx2raw.image import VhdxImage, read_image
from vhdx2raw.locator import ParentLocator, read_parent_locator
from vhdx2raw.log import LogPolicy
from vhdx2raw.parent_search import NOT_A_VHDX, ParentSearch
from vhdx2raw.source import Source
from vhdx2raw.source_object import AnyFile, open_source

REPLAYED_LOG = "R119"
"""A warning to whoever reads the disk, but no fault of the file."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with a file.

    Attributes:
        filename: The file as the caller named it.
        results: Every finding with its severity, in the order of the structures.
        suppressed: How many findings of a severity and rule are not in `results`, because there
            are many of them.
    """

    filename: str
    results: tuple[tuple[Severity, Finding], ...]
    suppressed: dict[tuple[Severity, str], int]

    def count(self, severity: Severity) -> int:
        """Return how many findings of one severity there are, suppressed ones included."""
        listed = sum(kind is severity for kind, _ in self.results)
        return listed + sum(
            count for (kind, _), count in self.suppressed.items() if kind is severity
        )

    @property
    def is_sound(self) -> bool:
        """Whether the contents of the disk are certain."""
        return not self.count(Severity.ERROR)


def check(
    file: AnyFile,
    *,
    parents: Sequence[AnyFile] = (),
    parent_dirs: Sequence[AnyPath] = (),
    log_policy: LogPolicy = LogPolicy.REPLAY,
) -> CheckReport:
    """Check a file against every rule of the format that can be checked.

    The log is replayed in memory first. Of a differencing disk, its parent is opened too, to see
    that it is the version that the child was made from.

    Args:
        file: The file, by its path or as a binary file object.
        parents: The parent, if it is not to be looked for.
        parent_dirs: Folders in which the parent may lie, besides that of the child.
        log_policy: What to do with a log that holds updates.

    Raises:
        UnsupportedImageError: It is no VHDX at all.
        OSError: The host cannot open or read it.
    """
    source = open_source(file)
    findings = Findings(lenient=True)
    try:
        image = _read(source, log_policy, findings)
        find_oddities(image.source if image else source, image, findings)
        if image and image.metadata.has_parent:
            folders = tuple(map(str, parent_dirs))
            _check_parent(image, list(parents), folders, log_policy, findings)
    finally:
        source.close()
    results = tuple((_severity(kind, finding), finding) for kind, finding in findings.reported)
    return CheckReport(source.name, results, dict(findings.suppressed))


def _severity(severity: Severity, finding: Finding) -> Severity:
    return Severity.NOTE if finding.rule == REPLAYED_LOG else severity


def _read(source: Source, log_policy: LogPolicy, findings: Findings) -> VhdxImage | None:
    """Read all of the file that can be read; None if that is not enough for an image."""
    try:
        return read_image(source, log_policy, findings)
    except ImageError as error:
        if error.finding.rule == NOT_A_VHDX:
            error.path = source.name
            raise
        findings.keep(Severity.ERROR, error.finding)
        return None


def _check_parent(
    child: VhdxImage,
    parents: list[AnyFile],
    folders: tuple[str, ...],
    log_policy: LogPolicy,
    findings: Findings,
) -> None:
    """Hold a child against its parent (R95 to R110)."""
    locator = _read_locator(child, findings)
    if locator is None and not parents:
        return
    search = ParentSearch(child, [child], locator, log_policy, salvage=True)
    if parents:
        search.try_file(parents[0])
    else:
        search.try_candidates(folders)
    warnings: list[tuple[str, Finding]] = []
    try:
        with search.choose(allow_mismatch=False, warnings=warnings) as parent:
            _judge_parent(parent, findings)
    except ParentNotFoundError as error:
        problem = f"was not found, so that its version could not be checked; {error.message}"
        findings.note(Finding("R110", "parent", problem, "2.6.2.6.3"))
    except ParentError as error:
        facts = Finding(_rule_of_misfit(search), "parent", error.message, "2.6.2.6.3")
        findings.keep(Severity.ERROR, facts)
    except ImageError as error:
        problem = f"cannot be read: {error}"
        findings.keep(Severity.ERROR, Finding("R104", "parent", problem))
    for _, warning in warnings:
        findings.warn(warning)


def _judge_parent(parent: VhdxImage, findings: Findings) -> None:
    """Say what is wrong with the file of the parent itself, which has a check of its own."""
    if parent.damage:
        problem = f"is damaged: {parent.source.name}: {parent.damage[0]}"
        found = f"errors: {len(parent.damage)}"
        findings.keep(Severity.ERROR, Finding("R104", "parent", problem, found=found))
    if parent.header_section.is_dirty:
        problem = "holds updates in its log, though a parent should not change"
        findings.note(Finding("R104", "parent", problem))


def _rule_of_misfit(search: ParentSearch) -> str:
    """Return the rule that keeps what was found from being the parent."""
    if search.error_kind is ParentCycleError:
        return "R108"
    return "R100" if search.mismatch else "R105"


def _read_locator(child: VhdxImage, findings: Findings) -> ParentLocator | None:
    item = child.metadata.parent_locator
    if item is None:  # reported already (R94)
        return None
    try:
        locator = read_parent_locator(item, findings)
    except ImageError as error:
        findings.keep(Severity.ERROR, error.finding)
        return None
    if len(locator.linkages) > 1:
        problem = "allows two versions of the parent: a merge was under way"
        findings.note(Finding("R101", "metadata item Parent Locator", problem, "2.6.2.6.3"))
    if not locator.paths:
        problem = "names no path, so that the parent has to be named by the user"
        findings.warn(Finding("R98", "metadata item Parent Locator", problem, "2.6.2.6.3"))
    return locator
