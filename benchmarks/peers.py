"""Compare vhdx2raw with other tools: ``python -m benchmarks.peers``.

Makes small images in a temporary folder, lets every tool that is installed read them, compares
with the bytes that the maker of the images knows, and prints the tables of docs/comparison.md.
The Python libraries may be in an environment of their own: PEERS_PYTHON names its interpreter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.peer_cases import CASES, Case
from benchmarks.peer_features import FEATURES, Feature, read_of, result_of
from benchmarks.peer_tools import COLUMNS, TOOLS, mark_of, version_of

TESTED, READ = "t", "r"
NOT_RUN = "not run"


def main() -> None:
    """Run everything and print it."""
    print("| tool | version |\n|---|---|")
    for tool in TOOLS:
        print(f"| {tool} | {version_of(tool) or 'not installed'} |")
    _print_table("disk", ((case.row, reading_cells(case)) for case in CASES))
    _print_table("feature", ((feature.row, feature_cells(feature)) for feature in FEATURES))


def _print_table(head: str, rows: Iterable[tuple[str, Iterator[str]]]) -> None:
    print(f"\n| {head} | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for row, cells in rows:
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def reading_cells(case: Case) -> Iterator[str]:
    """Give the cells of a row of the first table, in the order of the columns."""
    for tool in TOOLS:
        yield f"{mark_of(case, tool)} ({TESTED})" if version_of(tool) else NOT_RUN
    yield f"{case.discutils} ({READ})"


def feature_cells(feature: Feature) -> Iterator[str]:
    """Give the cells of a row of the second table."""
    for tool in COLUMNS:
        if tool not in feature.tried:
            yield f"{read_of(feature, tool)} ({READ})"
        elif version_of(tool):
            result = result_of(feature, tool)
            yield f"{result} ({TESTED})" if result else NOT_RUN
        else:
            yield NOT_RUN


if __name__ == "__main__":
    main()
