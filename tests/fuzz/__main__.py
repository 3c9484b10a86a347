"""Try hostile images for some time, or one of them again: python -m tests.fuzz --help."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.cases import Case, describe, reduce, spoil, tally, try_case

IN_MEMORY = Path("/dev/shm")
REPORT_SECONDS = 30.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which series of cases (1)")
    parser.add_argument("--seconds", type=float, help="how long to try; without it, for ever")
    parser.add_argument("--count", type=int, help="how many cases to try at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--case", type=int, help="try only this one, and print all about it")
    parser.add_argument("--drop", type=int, action="append", default=[], help="a mutation to omit")
    parser.add_argument("--keep", type=Path, help="with --case: write its files to this folder")
    return parser.parse_args()


def log(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


def try_one(case: Case, keep: Path | None, folder: Path) -> int:
    """Show what one case is and what comes of it."""
    log(describe(case))
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        log(f"written: {spoil(case).store(keep)}")
    report = try_case(case, folder)
    for action, outcome in report.outcomes.items():
        log(f"{action}: {outcome}")
    if report.violation:
        log(f"{report.violation.action}: {report.violation.kind}\n{report.violation.details}")
    return int(report.violation is not None)


class Campaign:
    """A long run: counts what comes of the cases, and prints each new finding once."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.found: Counter[tuple[str, str, str]] = Counter()
        self.done = 0
        self.started = time.monotonic()

    def try_number(self, number: int) -> None:
        case = Case(self.seed, number)
        report = try_case(case, self.folder)
        tally(self.outcomes, report)
        self.done += 1
        if (violation := report.violation) is None:
            return
        key = (violation.action, violation.kind, violation.place)
        self.found[key] += 1
        if self.found[key] == 1:
            smaller = reduce(case, violation, self.folder)
            log(f"FOUND {violation.kind} in {violation.action} at {violation.place or 'no line'}")
            log(f"{describe(smaller)}\n{violation.details}")

    def print_rate(self) -> None:
        seconds = time.monotonic() - self.started
        rate = self.done / max(seconds, 0.001)
        log(
            f"{self.done} cases in {seconds:.0f} s, {rate:.0f} a second, {len(self.found)} findings"
        )

    def summarize(self) -> int:
        for outcome, count in sorted(self.outcomes.items()):
            log(f"{count:8} {outcome}")
        for (action, kind, place), count in sorted(self.found.items()):
            log(f"{count:8} FOUND {kind} in {action} at {place}")
        self.print_rate()
        return int(bool(self.found))


def run(options: argparse.Namespace, folder: Path) -> int:
    campaign = Campaign(options.seed, folder)
    numbers = itertools.count(options.first)
    next_report = REPORT_SECONDS
    try:
        for number in itertools.islice(numbers, options.count):
            campaign.try_number(number)
            elapsed = time.monotonic() - campaign.started
            if options.seconds is not None and elapsed >= options.seconds:
                break
            if elapsed >= next_report:
                campaign.print_rate()
                next_report = elapsed + REPORT_SECONDS
    except KeyboardInterrupt:
        log("interrupted")
    return campaign.summarize()


def main() -> int:
    options = arguments()
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="vhdx2raw-fuzz-", dir=place) as folder:
        if options.case is not None:
            case = Case(options.seed, options.case, frozenset(options.drop))
            return try_one(case, options.keep, Path(folder))
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
