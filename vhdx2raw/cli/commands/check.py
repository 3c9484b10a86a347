"""`vhdx2raw check`: what is wrong with a VHDX file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from vhdx2raw.cli.console import OPTION_NAMES, error_facts
from vhdx2raw.cli.exit_codes import exit_code_of
from vhdx2raw.cli.many import Answer, answer_each
from vhdx2raw.cli.options.opening import Images, OpeningFlags
from vhdx2raw.cli.options.reporting import JsonFlags
from vhdx2raw.cli.transfers import transfer_facts
from vhdx2raw.cli.usage import REPORTING
from vhdx2raw.errors import ParentError, ParentNotFoundError
from vhdx2raw.findings import Finding, Severity
from vhdx2raw.operations.check import CheckReport, check_file, consequence_of

EXAMPLES = """\b
Examples:
  vhdx2raw check disk.vhdx                       everything wrong or unusual
  vhdx2raw check -q disk.vhdx && echo sound      only the exit code
  vhdx2raw check --json disk.vhdx                for a program
  vhdx2raw check --json *.vhdx > checks.jsonl    many files, one object a line
  vhdx2raw check --parent base.vhdx child.avhdx  check a child and its parent
"""


def run(
    images: Images,
    *,
    opening: OpeningFlags,
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", rich_help_panel=REPORTING, help="Print nothing but errors."),
    ] = False,
    as_json: JsonFlags,
) -> None:
    """Check each IMAGE against every rule of the format.

    It goes on after the first broken rule, and repairs nothing. Exits with 0 if the contents of
    the disk are certain, whatever warnings there are, and else with what a conversion would exit
    with: 5 for a damaged file, 6 if only a parent is missing. Of several images, the exit code is
    that of the first failure.
    """
    options = opening.options_for(images)

    def answer(name: str) -> Answer:
        report = check_file(name, options)
        exit_code = exit_code_of(report.error) if report.error else 0
        return Answer(_facts(report), list(_iter_lines(report)), exit_code)

    exit_code = answer_each(images, answer, as_json=bool(as_json), quiet=quiet)
    if exit_code:
        raise typer.Exit(exit_code)


def _iter_lines(report: CheckReport) -> Iterator[str]:
    """Yield a report for people: each finding and what follows from it, then a summary."""
    for severity, finding in report.results:
        yield f"{severity.value}: {finding.rule}: {finding}"
        if severity is not Severity.NOTE:
            yield f"  consequence: {_consequence(severity, finding)}"
    for (severity, rule), count in report.suppressed.items():
        yield f"{severity.value}: {rule}: {count} more of this kind"
    verdict = "sound" if report.is_sound else "NOT sound"
    if isinstance(report.error, ParentError):
        is_missing = isinstance(report.error, ParentNotFoundError)
        state = "is missing" if is_missing else "cannot be used"
        verdict = f"the file itself is sound, but its parent {state}"
    counts = ", ".join(f"{kind.value}s {report.count(kind)}" for kind in reversed(list(Severity)))
    yield f"{report.filename}: {verdict} ({counts})"


def _facts(report: CheckReport) -> dict[str, object]:
    """Return the report as JSON, with the keys of qemu-img where they mean the same."""
    return {
        "filename": report.filename,
        "format": "vhdx",
        "check-errors": 0,
        "corruptions": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "notes": report.count(Severity.NOTE),
        "findings": [
            {
                "severity": severity.value,
                "rule": finding.rule,
                "spec": finding.spec,
                "section": finding.structure,
                "file-offset": finding.file_offset,
                "problem": finding.problem,
                "found": finding.found,
                "expected": finding.expected,
                "message": str(finding),
                "consequence": _consequence(severity, finding),
            }
            for severity, finding in report.results
        ],
        "suppressed": [
            {"severity": severity.value, "rule": rule, "count": count}
            for (severity, rule), count in report.suppressed.items()
        ],
        "error": error_facts(report.error) if report.error else None,
        **transfer_facts(report.fetched),
    }


def _consequence(severity: Severity, finding: Finding) -> str:
    return consequence_of(severity, finding).format_map(OPTION_NAMES)
