"""`vhdx2raw measure`: what raw images will need, in the words of qemu-img."""

from __future__ import annotations

import json

import typer

from vhdx2raw.cli.console import (
    error_facts,
    format_size,
    print_damage,
    print_failure,
    print_result,
)
from vhdx2raw.cli.exit_codes import SALVAGED, first_failure
from vhdx2raw.cli.options.opening import Images, OpeningFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import JsonFlags, VerbosityFlags
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.errors import Vhdx2rawError
from vhdx2raw.findings import printable
from vhdx2raw.operations.measure import Measurement, measure

EXAMPLES = """\b
Examples:
  vhdx2raw measure disk.vhdx         length of the raw image, and its space
  vhdx2raw measure *.vhdx            for each, and for all of them together
  vhdx2raw measure --json disk.vhdx  with the keys of qemu-img, and one more
"""


def run(
    images: Images,
    *,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    verbosity: VerbosityFlags,
    as_json: JsonFlags,
) -> None:
    """Say how much space the raw image of each IMAGE needs.

    The required size is the length of the image, which a block device for it must have; a raw image
    is never longer. The sparse size is the most that it takes up on a file system, unless -S 0
    writes everything. Only tables are read, no data. After a failure the other images are measured
    nevertheless; the exit code is that of the first failure.
    """
    options = opening.options_for(images, salvage)
    found = [Measurement(0, 0, 0)]
    results: list[dict[str, object]] = []
    codes: list[int] = []
    for name in images:
        try:
            with open_chain(name, options) as chain:
                verbosity.print_warnings(chain.warnings)
                print_damage(chain.damage)
                measured = measure(chain)
                codes.append(SALVAGED if chain.damage else 0)
        except (Vhdx2rawError, OSError) as error:
            if len(images) == 1:
                raise
            results.append({"filename": name, "error": error_facts(error)})
            codes.append(print_failure(error))
            continue
        found.append(measured)
        results.append({"filename": name, **_facts(measured)})
        if len(images) > 1 and not as_json:
            required, sparse = format_size(measured.required), format_size(measured.sparse)
            print_result(f"{printable(name)}: required {required}, sparse {sparse}")
    total = Measurement(*map(sum, zip(*found, strict=True)))
    if as_json:
        print_result(json.dumps({**_facts(total), "images": results}, indent=2))
    else:
        print_result("\n".join(_lines(total)))
    if exit_code := first_failure(codes):
        raise typer.Exit(exit_code)


def _facts(measured: Measurement) -> dict[str, object]:
    return {key.replace("_", "-"): value for key, value in measured._asdict().items()}


def _lines(measured: Measurement) -> list[str]:
    """Return what qemu-img prints, each size for people as well, and then what it does not know."""
    words = ("required size", "fully allocated size", "sparse size")
    pairs = zip(words, measured, strict=True)
    return [f"{name}: {size} ({format_size(size)})" for name, size in pairs]
