"""`vhdx2raw info`: what is known of one VHDX file, and what lies inside of its disk."""

from __future__ import annotations

from typing import Annotated

import typer

from vhdx2raw.cli.commands.info.facts import Subject, facts_of
from vhdx2raw.cli.commands.info.lines import iter_lines
from vhdx2raw.cli.exit_codes import SALVAGED
from vhdx2raw.cli.many import Answer, answer_each
from vhdx2raw.cli.options.opening import Images, OpeningFlags, SalvageFlags
from vhdx2raw.cli.options.reporting import JsonFlags
from vhdx2raw.disk.chain import open_chain
from vhdx2raw.disk.contents import read_contents
from vhdx2raw.disk.virtual_disk import VirtualDisk

EXAMPLES = """\b
Examples:
  vhdx2raw info disk.vhdx               sizes, identity, state, partitions
  vhdx2raw info --chain snapshot.avhdx  the same for every file of a chain
  vhdx2raw info --json disk.vhdx        with the keys of qemu-img, and more
  vhdx2raw info --json *.vhdx           many files, one object a line
  vhdx2raw info --salvage damaged.vhdx  what can be read of a damaged file
"""


def run(
    images: Images,
    *,
    with_chain: Annotated[
        bool, typer.Option("--chain", help="Describe every parent of a differencing disk as well.")
    ] = False,
    opening: OpeningFlags,
    salvage: SalvageFlags,
    as_json: JsonFlags,
) -> None:
    """Describe each IMAGE and the contents of its disk.

    After a failure the other images are looked at nevertheless; the exit code is that of the first
    failure.
    """
    options = opening.options_for(images, salvage)

    def answer(name: str) -> Answer:
        with VirtualDisk(open_chain(name, options, partial=not with_chain)) as disk:
            contents = None
            if disk.chain.parent_error is None:
                contents = read_contents(disk, disk.metadata.logical_sector_size)
            subject = Subject(disk.chain, contents)
            exit_code = SALVAGED if disk.chain.damage else 0
            lines = list(iter_lines(subject, with_chain=with_chain))
            return Answer(facts_of(subject, with_chain=with_chain), lines, exit_code)

    exit_code = answer_each(images, answer, as_json=bool(as_json), blank=True)
    if exit_code:
        raise typer.Exit(exit_code)
