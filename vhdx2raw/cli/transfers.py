"""What is reported of files that were read over a network."""

from __future__ import annotations

from vhdx2raw.cli.console import format_size, print_message
from vhdx2raw.source.base import Fetched


def print_transfer(name: str, fetched: Fetched | None) -> None:
    """Report what was fetched of a disk and its parents; nothing of files of the host."""
    if fetched is None:
        return
    again = f", {fetched.retries} of them once more" if fetched.retries else ""
    is_open = "; the connection is not encrypted" if name.startswith("http://") else ""
    size = format_size(fetched.bytes)
    print_message(
        f"vhdx2raw: {name}: {size} fetched in {fetched.requests} requests{again}{is_open}"
    )


def transfer_facts(fetched: Fetched | None) -> dict[str, object]:
    """Return what was fetched as every command writes it in JSON; nothing for files of the host."""
    return {} if fetched is None else {"fetched": fetched._asdict()}
