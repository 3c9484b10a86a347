"""`vhdx2raw check`: what is wrong with a VHDX file."""

from __future__ import annotations

import json

import typer

from vhdx2raw.check import CheckReport, check, consequence_of
from vhdx2raw.cli import options
from vhdx2raw.cli.words import answer
from vhdx2raw.errors import Severity, printable

ERRORS_FOUND = 5
EXAMPLES = """\b
Examples:
  vhdx2raw check disk.vhdx                       everything that is wrong or odd
  vhdx2raw check -q disk.vhdx && echo sound      only the exit code
  vhdx2raw check --json disk.vhdx                for a program
  vhdx2raw check --parent base.vhdx child.avhdx  hold a child against its parent
"""


def run(
    image: options.Image,
    *,
    parents: options.Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: options.ParentDirs = [],  # noqa: B006
    ignore_log: options.IgnoreLog = False,
    quiet: options.Quiet = False,
    as_json: options.JsonAnswer = False,
    output: options.Output = options.OutputFormat.HUMAN,
) -> None:
    """Check IMAGE against every rule of the format, without stopping at the first broken one.

    Nothing is repaired. Exits with 0 if the contents of the disk are certain, whatever warnings
    there are, and with 5 if they are not.
    """
    log_policy = options.choose_log_policy(no_replay=False, ignore_log=ignore_log)
    report = check(image, parents=parents, parent_dirs=parent_dirs, log_policy=log_policy)
    if as_json or output is options.OutputFormat.JSON:
        answer(json.dumps(_facts(report), indent=2))
    elif not quiet:
        answer(_lines(report))
    if not report.is_sound:
        raise typer.Exit(ERRORS_FOUND)


def _lines(report: CheckReport) -> str:
    """Word a report for people: each finding and what follows from it, then a summary."""
    lines = []
    for severity, finding in report.results:
        lines.append(printable(f"{severity.value}: {finding.rule}: {finding}"))
        if severity is not Severity.NOTE:
            lines.append(f"  consequence: {consequence_of(severity, finding)}")
    for (severity, rule), count in report.suppressed.items():
        lines.append(f"{severity.value}: {rule}: {count} more of this kind")
    verdict = "sound" if report.is_sound else "NOT sound"
    counts = ", ".join(f"{kind.value}s {report.count(kind)}" for kind in reversed(list(Severity)))
    lines.append(printable(f"{report.filename}: {verdict} ({counts})"))
    return "\n".join(lines)


def _facts(report: CheckReport) -> dict[str, object]:
    """Build what `--json` prints, with the keys of qemu-img where they mean the same."""
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
                "section": finding.section,
                "file-offset": finding.file_offset,
                "problem": finding.problem,
                "found": finding.found,
                "expected": finding.expected,
                "message": str(finding),
                "consequence": consequence_of(severity, finding),
            }
            for severity, finding in report.results
        ],
        "suppressed": [
            {"severity": severity.value, "rule": rule, "count": count}
            for (severity, rule), count in report.suppressed.items()
        ],
    }
