"""Try random valid chains with every path of the tool: python -m tests.fuzz.valid --help."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.paths import PATHS, try_chain
from tests.support.random_chains import RandomChain, chains

CHAINS_OF_PART = 20
"""So many are tried before what was found is printed; the first finding of a part ends it."""


def log(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


def try_part(number: str, count: int, folder: Path | None = None, *, reduce: bool = False) -> int:
    """Try some chains, always the same for one `number`; return how many layers they had.

    Raises:
        Exception: What the first finding raised, with the chain, which is a small one if `reduce`
            is set; that takes minutes.
    """
    layers = 0

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, *[Phase.shrink] * reduce],
        suppress_health_check=list(HealthCheck),
    )
    @given(chain=chains(), choice=st.integers(0, 2**32 - 1))
    def try_one(chain: RandomChain, choice: int) -> None:
        nonlocal layers
        layers += len(chain.specs)
        with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
            try_chain(Path(name), chain, choice)

    try_one()
    return layers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.valid", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which series of chains (1)")
    parser.add_argument("--count", type=int, default=1000, help="how many chains to try (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first chain (0)")
    parser.add_argument("--folder", type=Path, help="where to write, such as a Btrfs, for cloning")
    parser.add_argument("--reduce", action="store_true", help="look for smaller chains, slowly")
    options = parser.parse_args()
    started, layers, found = time.monotonic(), 0, 0
    for first in range(options.first, options.first + options.count, CHAINS_OF_PART):
        count = min(CHAINS_OF_PART, options.first + options.count - first)
        try:
            name = f"{options.seed}:{first}"
            layers += try_part(name, count, options.folder, reduce=options.reduce)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            found += 1
            log(f"FOUND by --seed {options.seed} --first {first} --count {count}: {error!r}")
            log("".join(traceback.format_tb(error.__traceback__)[-3:]))
        done, seconds = first - options.first + count, time.monotonic() - started
        log(
            f"{done} chains, {layers} images, {len(PATHS)} paths, {seconds:.0f} s, {found} findings"
        )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
