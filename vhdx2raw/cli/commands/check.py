"""`vhdx2raw check`: what is wrong with a VHDX file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from vhdx2raw.cli.console import OPTION_NAMES, print_result
from vhdx2raw.cli.exit_codes import CORRUPT
from vhdx2raw.cli.options import Image, JsonFlags, OpeningFlags
from vhdx2raw.cli.usage import REPORTING
from vhdx2raw.findings import Finding, Severity, printable
from vhdx2raw.operations.check import CheckReport, check_file, consequence_of

EXAMPLES = """\b
Examples:
  vhdx2raw check disk.vhdx                       everything wrong or unusual
  vhdx2raw check -q disk.vhdx && echo sound      only the exit code
  vhdx2raw check --json disk.vhdx                for a program
  vhdx2raw check --parent base.vhdx child.avhdx  check a child and its parent
"""


def run(
    image: Image,
    *,
    opening: OpeningFlags,
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", rich_help_panel=REPORTING, help="Print nothing but errors."),
    ] = False,
    as_json: JsonFlags,
) -> None:
    """Check IMAGE against every rule of the format.

    It goes on after the first broken rule, and repairs nothing. Exits with 0 if the contents of
    the disk are certain, whatever warnings there are, and with 5 if they are not.
    """
    report = check_file(image, opening.options())
    if as_json:
        print_result(json.dumps(_facts(report), indent=2))
    elif not quiet:
        print_result("\n".join(_iter_lines(report)))
    if not report.is_sound:
        raise typer.Exit(CORRUPT)


def _iter_lines(report: CheckReport) -> Iterator[str]:
    """Yield a report for people: each finding and what follows from it, then a summary."""
    for severity, finding in report.results:
        yield printable(f"{severity.value}: {finding.rule}: {finding}")
        if severity is not Severity.NOTE:
            yield f"  consequence: {_consequence(severity, finding)}"
    for (severity, rule), count in report.suppressed.items():
        yield f"{severity.value}: {rule}: {count} more of this kind"
    verdict = "sound" if report.is_sound else "NOT sound"
    if report.is_sound and report.lacks_parent:
        verdict = "sound as far as it is here, but a parent was not found"
    counts = ", ".join(f"{kind.value}s {report.count(kind)}" for kind in reversed(list(Severity)))
    yield printable(f"{report.filename}: {verdict} ({counts})")


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
    }


def _consequence(severity: Severity, finding: Finding) -> str:
    return consequence_of(severity, finding).format_map(OPTION_NAMES)
