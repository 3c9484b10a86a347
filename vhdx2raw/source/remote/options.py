"""How files are read over a network."""

from __future__ import annotations

import os
from dataclasses import dataclass

MAX_CONNECTIONS = 16
MAX_RETRIES = 100
MIN_TIMEOUT, MAX_TIMEOUT = 0.1, 3600.0
"""In seconds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RemoteOptions:
    """How files are read over a network; `OpenOptions` describes the fields."""

    connections: int = 8
    retries: int = 5
    timeout: float = 30.0
    anonymous: bool = False
    ca_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is out of its range.
        """
        if not 1 <= self.connections <= MAX_CONNECTIONS:
            raise ValueError(f"connections must be 1 to {MAX_CONNECTIONS}, not {self.connections}")
        if not 0 <= self.retries <= MAX_RETRIES:
            raise ValueError(f"retries must be 0 to {MAX_RETRIES}, not {self.retries}")
        if not MIN_TIMEOUT <= self.timeout <= MAX_TIMEOUT:
            bounds = f"{MIN_TIMEOUT:g} to {MAX_TIMEOUT:g} seconds"
            raise ValueError(f"timeout must be {bounds}, not {self.timeout:g}")


DEFAULTS = RemoteOptions()
