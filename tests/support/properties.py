"""How many random cases of a property are tried, and which.

By default few, always the same. `VHDX2RAW_EXAMPLES=20` tries twenty times as many of each property,
`VHDX2RAW_SEED` others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, seed, settings

SEED = int(os.environ.get("VHDX2RAW_SEED", "20251121"))
FACTOR = int(os.environ.get("VHDX2RAW_EXAMPLES", "1"))
Test = TypeVar("Test", bound=Callable[..., None])


def cases(count: int) -> Callable[[Test], Test]:
    """Decorate what `given` calls: so many cases, however long each takes."""
    chosen = settings(
        max_examples=count * FACTOR,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: seed(SEED)(chosen(test))
