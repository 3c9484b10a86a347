"""The check of one file and its parents, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vhdx2raw.disk.chain import DEFAULTS, Chain, OpenOptions, open_parents
from vhdx2raw.errors import CorruptImageError, ImageError, ParentError, ParentNotFoundError
from vhdx2raw.findings import Finding, Findings, Severity
from vhdx2raw.operations.check.notes import add_notes
from vhdx2raw.rules import Rule
from vhdx2raw.source.base import Fetched, Source
from vhdx2raw.source.file_object import AnyFile, open_source
from vhdx2raw.vhdx.image import VhdxImage, read_image
from vhdx2raw.vhdx.locator import NAME as LOCATOR
from vhdx2raw.vhdx.log import LogPolicy

OF_SEVERITY = {
    Severity.NOTE: "none",
    Severity.WARNING: "none for the contents; the file was written carelessly, or damaged a little",
    Severity.ERROR: "the contents are uncertain: the file is refused without {salvage}",
}
"""What follows from a finding whose rule says no more."""


def consequence_of(severity: Severity, finding: Finding) -> str:
    """Return in a few words what follows from a finding; names in braces as in a remedy."""
    of_rule: str = getattr(finding.rule, severity.value)
    return of_rule or OF_SEVERITY[severity]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with a file.

    Attributes:
        filename: The file as the caller named it.
        results: Every finding with its severity, in the order of the structures.
        suppressed: How many findings of a severity and rule are not in `results`, because there
            are many of them.
        error: What a conversion of the file would fail with; None if the contents are certain. It
            is about the parent only if nothing is wrong with the file itself.
        fetched: What was read of it over a network; None if it is a file of the host.
    """

    filename: str
    results: tuple[tuple[Severity, Finding], ...]
    suppressed: dict[tuple[Severity, Rule], int]
    error: ImageError | ParentError | None = None
    fetched: Fetched | None = None

    def count(self, severity: Severity) -> int:
        """Return how many findings of one severity there are, suppressed ones included."""
        listed = sum(kind is severity for kind, _ in self.results)
        return listed + sum(
            count for (kind, _), count in self.suppressed.items() if kind is severity
        )

    @property
    def is_sound(self) -> bool:
        """Whether the contents of the disk are certain, as far as its files are there."""
        return not self.count(Severity.ERROR)


def check_file(file: AnyFile, options: OpenOptions = DEFAULTS) -> CheckReport:
    """Check a file against every rule of the format that can be checked.

    The log is replayed in memory first. Of a differencing disk, all of its parents are opened too,
    as for a conversion, to see that each is sound and the version that its child was made from.

    Args:
        file: The file, by its path or as a binary file object.
        options: How to open it; a damaged file is always read as far as possible.

    Raises:
        UnsupportedImageError: It is no VHDX at all.
        ParentMismatchError: More parents are given than there are.
        RemoteError: It could not be read over the network.
        OSError: The host cannot open or read it.
    """
    source = open_source(file, options)
    findings = Findings(lenient=True)
    try:
        image = _read(source, options.log_policy, findings)
        add_notes(image.source if image else source, image, findings)
        if image and (image.metadata.has_parent or options.parents):
            _check_parents(image, options, findings)
    finally:
        source.close()
    results = tuple((_severity(kind, finding), finding) for kind, finding in findings.reported)
    error = findings.first_error
    assert error is None or isinstance(error, ImageError | ParentError)
    if error is not None and error.path is None:
        error.path = source.name
    suppressed = dict(findings.suppressed)
    return CheckReport(source.name, results, suppressed, error, source.fetched)


def _severity(severity: Severity, finding: Finding) -> Severity:
    # A warning to a reader of the disk, but no fault of the file.
    return Severity.NOTE if finding.rule is Rule.LOG_REPLAYED else severity


def _read(source: Source, log_policy: LogPolicy, findings: Findings) -> VhdxImage | None:
    """Read all of the file that can be read; None if that is not enough for an image."""
    try:
        return read_image(source, log_policy, findings)
    except ImageError as error:
        if error.finding.rule is Rule.SIGNATURE:
            error.path = source.name
            raise
        findings.forgive(error, error.finding)
        return None


def _check_parents(child: VhdxImage, options: OpenOptions, findings: Findings) -> None:
    """Hold each image of the chain against its parent (R95 to R110)."""
    locator = child.metadata.parent_locator
    if locator is None and not options.parents:
        return  # reported already
    if locator and len(locator.linkages) > 1:
        problem = "allows two versions of the parent: a merge was under way"
        findings.note(Rule.PARENT_IDENTITY, LOCATOR, problem)
    if locator and not locator.paths:
        problem = "names no path, so that the parent has to be named by the user"
        findings.warn(Rule.LINKAGE_MISSING, LOCATOR, problem)
    with open_parents(child, replace(options, salvage=True), partial=True) as chain:
        for parent in chain.images[1:]:
            _judge_parent(parent, findings)
        if chain.parent_error:
            _judge_failure(chain, chain.parent_error, findings)
        for _, warning in chain.warnings:
            if warning.rule in (Rule.PARENT_IDENTITY, Rule.PARENT_VERSION):
                findings.keep(Severity.WARNING, warning)


def _judge_parent(parent: VhdxImage, findings: Findings) -> None:
    """Report what is wrong with the file of the parent itself, which has a check of its own."""
    if parent.damage:
        problem = f"is damaged: {parent.source.name}: {parent.damage[0]}"
        finding = Finding(
            Rule.PARENT_IMAGE, "parent", problem, found=f"errors: {len(parent.damage)}"
        )
        findings.forgive(CorruptImageError(parent.damage[0], path=parent.source.name), finding)
    if parent.header_section.is_dirty:
        problem = "holds updates in its log, though a parent should not change"
        findings.note(Rule.PARENT_IMAGE, "parent", problem)


def _judge_failure(chain: Chain, error: ImageError | ParentError, findings: Findings) -> None:
    """Report why the last image of the chain has no parent here."""
    name = "parent" if len(chain.images) == 1 else f"parent of {chain.images[-1].source.name}"
    if isinstance(error, ParentNotFoundError):
        problem = f"was not found, so that its version could not be checked; {error.message}"
        findings.forgive(error, Finding(error.rule, name, problem))
    elif isinstance(error, ParentError):
        findings.forgive(error, Finding(error.rule, name, error.message))
    else:
        problem = f"cannot be read: {error}"
        findings.forgive(error, Finding(Rule.PARENT_IMAGE, name, problem))
