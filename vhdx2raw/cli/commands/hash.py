"""`vhdx2raw hash`: the digest of the disk in a VHDX, which is that of its raw image."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from vhdx2raw.cli.console import (
    error_facts,
    format_size,
    print_damage,
    print_digest,
    print_failure,
    print_json,
    print_message,
    warning_facts,
)
from vhdx2raw.cli.exit_codes import SALVAGED, first_failure
from vhdx2raw.cli.options.groups import parsed
from vhdx2raw.cli.options.opening import Images, OpeningFlags, PartitionFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import JsonFlags, ProgressFlags, VerbosityFlags
from vhdx2raw.cli.progress import ProgressMode, show_progress
from vhdx2raw.cli.transfers import print_transfer, transfer_facts
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.operations.digest import digests
from vhdx2raw.output.hashes import ALGORITHMS, DEFAULT_ALGORITHM, require_algorithm
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw hash disk.vhdx             the SHA-256 that the raw image has
  vhdx2raw hash -a md5 disk.vhdx      another digest
  vhdx2raw hash *.vhdx > SHA256SUMS   one line for each, like sha256sum
  vhdx2raw hash --partition 2 server.vhdx
  vhdx2raw hash --json disk.vhdx      for a script
"""


def run(
    images: Images,
    *,
    algorithms: Annotated[
        list[str],
        typer.Option(
            "-a",
            "--algorithm",
            metavar="NAME",
            parser=parsed(require_algorithm),
            help=f"The kind of digest: {', '.join(ALGORITHMS)}; repeat it for several.",
        ),
    ] = [DEFAULT_ALGORITHM],  # noqa: B006 - Typer makes a new list
    opening: OpeningFlags,
    salvage: SalvageFlags,
    part: PartitionFlags,
    progress: ProgressFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Print the digest of the disk in each IMAGE.

    It is the digest of the raw image that `convert` makes; holes count as zeros. After a failure
    the other images are hashed nevertheless; the exit code is that of the first failure.
    """
    options = opening.options_for(images, salvage)
    mode = progress.mode(quiet=verbosity.quiet)
    results: list[dict[str, object]] = []
    codes: list[int] = []
    for name in images:
        try:
            facts, exit_code = _hash(name, part, algorithms, options, mode, verbosity=verbosity)
        except (Vhdx2rawError, OSError) as error:  # noqa: PERF203 - a file is slow anyway
            results.append({"filename": name_of(name), "error": error_facts(error)})
            codes.append(print_failure(error))
        else:
            results.append(facts)
            codes.append(exit_code)
            if not as_json:
                for found in facts["digests"].values():
                    print_digest(found, name_of(name) + part.words)
    if as_json:
        print_json({"algorithm": algorithms[0], "images": results})
    if exit_code := first_failure(codes):
        raise typer.Exit(exit_code)


def _hash(
    path: str,
    part: PartitionFlags,
    algorithms: list[str],
    options: OpenOptions,
    mode: ProgressMode,
    *,
    verbosity: VerbosityFlags,
) -> tuple[dict[str, Any], int]:
    """Hash one disk; return what is known then, and the exit code."""
    started = time.monotonic()
    with part.open(path, options) as disk, show_progress(mode) as show:
        found = digests(disk, algorithms, progress=show)
    verbosity.print_warnings(disk.warnings)
    print_damage(disk.damage)
    if verbosity.verbose:
        size, kind = format_size(disk.size), disk.metadata.disk_type
        seconds = time.monotonic() - started
        words = f"{disk.name}{part.words}: {size} {kind} disk hashed in {seconds:.1f} s"
        print_message(f"vhdx2raw: {words}")
        print_transfer(disk.name, disk.chain.fetched)
    facts = {
        "filename": disk.name,
        "partition": part.partition,
        "virtual-size": disk.size,
        "digest": found[algorithms[0]],
        "digests": found,
        "warnings": warning_facts(disk.warnings),
        "damage": warning_facts(disk.damage),
        **transfer_facts(disk.chain.fetched),
    }
    return facts, 0 if disk.is_certain else SALVAGED
