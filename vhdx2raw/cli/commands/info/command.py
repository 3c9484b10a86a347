"""`vhdx2raw info`: what is known of one VHDX file, and what lies inside of its disk."""

from __future__ import annotations

from typing import Annotated

import typer

from vhdx2raw.cli.commands.info.facts import Subject, facts_of
from vhdx2raw.cli.commands.info.lines import iter_lines
from vhdx2raw.cli.console import print_result
from vhdx2raw.cli.options import Image, JsonFlags, OpeningFlags
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.virtual_disk import VirtualDisk
from vhdx2raw.findings import printable
from vhdx2raw.operations.contents import read_contents

EXAMPLES = """\b
Examples:
  vhdx2raw info disk.vhdx               sizes, identity, state, partitions
  vhdx2raw info --chain snapshot.avhdx  the same for every file of a chain
  vhdx2raw info --json disk.vhdx        with the keys of qemu-img, and more
"""


def run(
    image: Image,
    *,
    with_chain: Annotated[
        bool, typer.Option("--chain", help="Describe every parent of a differencing disk as well.")
    ] = False,
    opening: OpeningFlags,
    as_json: JsonFlags,
) -> None:
    """Describe IMAGE and the contents of its disk."""
    with VirtualDisk(open_chain(image, opening.options(), partial=not with_chain)) as disk:
        contents = None
        if disk.chain.parent_error is None:
            contents = read_contents(disk, disk.metadata.logical_sector_size)
        subject = Subject(disk.chain, contents)
        if as_json:
            import json  # noqa: PLC0415 - a run without it starts sooner

            print_result(json.dumps(facts_of(subject, with_chain=with_chain), indent=2))
        else:
            print_result("\n".join(map(printable, iter_lines(subject, with_chain=with_chain))))
