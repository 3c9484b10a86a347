"""One hostile image by its number: built, described, tried and reduced.

`Case(seed, number)` is the same in every process, so that a finding is a pair of numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz.actions import ACTIONS, Action, Violation, perform
from tests.fuzz.bases import BASES, base
from tests.fuzz.more_actions import MORE_ACTIONS
from tests.fuzz.mutations import choose
from tests.fuzz.repair import repair
from tests.fuzz.sparse import SparseFile

ALL_ACTIONS = (*ACTIONS, *MORE_ACTIONS)
TURNS = len(MORE_ACTIONS)
"""Of so many cases each does the strict actions and its share of the others."""
MOST_MUTATIONS = 4
COUNTS = (1, 1, 1, 2, 2, 3, MOST_MUTATIONS)
"""Of mutations in a case; few of many get past the first checks."""


@dataclass(frozen=True)
class Case:
    """A base and some mutations of it; those in `dropped` are left out."""

    seed: int
    number: int
    dropped: frozenset[int] = frozenset()

    def __str__(self) -> str:
        drop = "".join(f" --drop {index}" for index in sorted(self.dropped))
        return f"--seed {self.seed} --case {self.number}{drop}"


@dataclass(frozen=True)
class SpoiledFiles:
    """What a case comes to: files by name, the child first, and how they were made."""

    files: Mapping[str, SparseFile]
    base_name: str
    steps: Sequence[str]

    def store(self, folder: Path) -> Path:
        """Write the files, and give the path of the child."""
        for name, file in self.files.items():
            file.store(folder / name)
        return folder / next(iter(self.files))


@dataclass(frozen=True)
class Report:
    """The outcomes of a case: one for each action, and the first broken promise."""

    outcomes: Mapping[str, str]
    violation: Violation | None


def spoil(case: Case) -> SpoiledFiles:
    """Build the files of a case."""
    chance = random.Random(f"{case.seed}:{case.number}")
    base_name = chance.choice(list(BASES))
    members = base(base_name).members
    files = {name: member.file.copy() for name, member in members.items()}
    steps: list[str] = []
    spoiled: list[str] = []
    repairs = chance.randrange(10) > 0
    for index in range(chance.choice(COUNTS)):
        # Each has its own generator, so that the others stay the same without it.
        own = random.Random(f"{case.seed}:{case.number}:{index}")
        name = own.choice([*files, *[next(iter(files))] * 2])
        if index not in case.dropped and files[name].pages:
            change = choose(own)(own, members[name], files[name])
            steps.append(f"{index}. {name}: {change}")
            spoiled.append(name)
    for name in dict.fromkeys(spoiled) if repairs else ():
        repair(members[name], files[name])
    steps.append("checksums are repaired" if repairs else "checksums stay as they are")
    return SpoiledFiles(files, base_name, steps)


def try_case(case: Case, folder: Path, actions: Sequence[Action] = ()) -> Report:
    """Do all that is the turn of a case with it, or these things, until a promise is broken."""
    return try_files(spoil(case), folder, actions or actions_of(case))


def actions_of(case: Case) -> Sequence[Action]:
    return (*ACTIONS, *MORE_ACTIONS[case.number % TURNS :: TURNS])


def try_files(spoiled: SpoiledFiles, folder: Path, actions: Sequence[Action]) -> Report:
    """Write the files and do these things with the child, until a promise is broken."""
    path = spoiled.store(folder)
    outcomes: dict[str, str] = {}
    for action in actions:
        outcome = perform(action, path)
        if isinstance(outcome, Violation):
            return Report(outcomes, outcome)
        outcomes[action.name] = outcome
    return Report(outcomes, None)


def reduce(case: Case, violation: Violation, folder: Path) -> Case:
    """Leave out every mutation that the finding does not need."""
    for index in range(MOST_MUTATIONS):
        smaller = replace(case, dropped=case.dropped | {index})
        found = try_case(smaller, folder).violation
        if found and (found.kind, found.place) == (violation.kind, violation.place):
            case = smaller
    return case


def describe(case: Case) -> str:
    """Describe the files of a case."""
    spoiled = spoil(case)
    return "\n".join([f"{spoiled.base_name} ({case}):", *(f"  {step}" for step in spoiled.steps)])


def tally(counter: Counter[str], report: Report) -> None:
    """Count what came of a case."""
    for action, outcome in report.outcomes.items():
        counter[f"{action}: {outcome}"] += 1
