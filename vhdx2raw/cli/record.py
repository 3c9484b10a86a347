"""What is filed of a run besides its result: who, where, when, and what was read."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache

from vhdx2raw.cli.console import Answer, log_facts
from vhdx2raw.disk.chain import Chain

SECOND_NS = 10**9
_URL = re.compile(r"(.*?https?://)(?:[^/?#]*@)?([^?#]*)(.*)", re.DOTALL | re.IGNORECASE)
"""What stands before a host, with a user perhaps; host and path; and what follows."""


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def run_facts(began: str) -> dict[str, object]:
    """Return the facts of the run itself, which began at a time and ends now."""
    import platform  # noqa: PLC0415 - takes a while

    return {
        "program": program(),
        "command-line": ["vhdx2raw", *map(_without_secrets, Answer.arguments)],
        "host": {
            "name": platform.node(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": sys.version.split()[0],
        },
        "began": began,
        "ended": now(),
    }


@cache
def program() -> str:
    """Return the name and version of the program.

    It is asked for when an output is complete: what cannot be found out then must be no failure.
    """
    from importlib import metadata  # noqa: PLC0415 - takes a while

    try:
        return f"vhdx2raw {metadata.version('vhdx2raw')}"
    except metadata.PackageNotFoundError:
        return "vhdx2raw of an unknown version"


def file_facts(chain: Chain, digests: Sequence[Mapping[str, str]]) -> list[dict[str, object]]:
    """Return the facts of each file that was read.

    Args:
        chain: The files, the child first.
        digests: Of each of them, if they were taken.
    """
    files: list[dict[str, object]] = []
    for index, image in enumerate(chain.images):
        status = image.state.status
        facts: dict[str, object] = {
            "filename": image.source.name,
            "size": status.size,
            "modified": _time(status.modified_ns),
            "changed": _time(status.changed_ns),
            "log": log_facts(image.log),
        }
        if digests:
            facts["hashes"] = digest_facts(digests[index])
        files.append(facts)
    return files


def digest_facts(digests: Mapping[str, str]) -> list[dict[str, str]]:
    """Return digests as every command writes them in JSON."""
    return [{"algorithm": name, "digest": found} for name, found in digests.items()]


def _without_secrets(word: str) -> str:
    """Return a word of the command line without the password or the signature of a URL."""
    match = _URL.fullmatch(word)
    return f"{match[1]}{match[2]}{'?...' if match[3] else ''}" if match else word


def _time(nanoseconds: int | None) -> str | None:
    """Return a time of a file in UTC, with all that its host knows of it."""
    if nanoseconds is None:
        return None
    seconds, rest = divmod(nanoseconds, SECOND_NS)
    whole = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    return whole.replace("+", f".{rest:09}+")
