"""The algorithms that can name the contents of a disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

DEFAULT_ALGORITHM: Final = "sha256"
ALGORITHMS: Final = (
    *("blake2b", "blake2s", "md5", "sha1", "sha224", "sha256", "sha3-224", "sha3-256"),
    *("sha3-384", "sha3-512", "sha384", "sha512"),
)
"""Those that every Python has, and that have a length of their own."""
_SEPARATORS: Final = re.compile("[-_]")


def new_hash(algorithm: str) -> _Hash:
    """Return an empty hash; argument and error are those of `require_algorithm`."""
    name = require_algorithm(algorithm)
    import hashlib  # noqa: PLC0415 - takes a while, and most runs have no need

    # The contents of a disk are named, not kept secret: md5 will do where a user asks for it.
    return hashlib.new(name.replace("-", "_"), usedforsecurity=False)


def require_algorithm(name: str) -> str:
    """Return the name of an algorithm as it is in `ALGORITHMS`.

    Args:
        name: One of them in any letter case, also as `hashlib` or a standard writes it.

    Raises:
        ValueError: There is no such algorithm.
    """
    for known in ALGORITHMS:
        if _SEPARATORS.sub("", known) == _SEPARATORS.sub("", name.lower()):
            return known
    raise ValueError(f"{name!r} is none of {', '.join(ALGORITHMS)}")
