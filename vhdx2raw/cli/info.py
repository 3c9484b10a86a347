"""`vhdx2raw info`: what is known of one VHDX file, and what lies inside of its disk."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vhdx2raw.chain import Chain, open_chain
from vhdx2raw.cli import options
from vhdx2raw.cli.info_facts import Subject, answer_facts, read_locator
from vhdx2raw.cli.info_words import iter_lines
from vhdx2raw.cli.words import answer
from vhdx2raw.contents import read_contents
from vhdx2raw.disk import VirtualDisk
from vhdx2raw.errors import Findings, ImageError, ParentError, Vhdx2rawError, printable
from vhdx2raw.image import open_image
from vhdx2raw.log import LogPolicy

EXAMPLES = """\b
Examples:
  vhdx2raw info disk.vhdx                 sizes, identity, state, and what lies inside
  vhdx2raw info --chain snapshot.avhdx    the same for every file of a chain
  vhdx2raw info --json disk.vhdx          with the keys of qemu-img, and more
"""


def run(
    image: options.Image,
    *,
    chain: options.WithChain = False,
    parents: options.Parents = [],  # noqa: B006 - Typer makes a new list
    parent_dirs: options.ParentDirs = [],  # noqa: B006
    allow_parent_mismatch: options.AllowParentMismatch = False,
    no_replay: options.NoReplay = False,
    ignore_log: options.IgnoreLog = False,
    as_json: options.JsonAnswer = False,
    output: options.Output = options.OutputFormat.HUMAN,
) -> None:
    """Tell what is known of IMAGE, and what lies inside of its disk."""
    opened, parent_error = _open(
        image,
        parents,
        parent_dirs,
        options.choose_log_policy(no_replay=no_replay, ignore_log=ignore_log),
        allow_parent_mismatch=allow_parent_mismatch,
        whole_chain=chain,
    )
    with VirtualDisk(opened) as disk:
        sector_size = disk.metadata.logical_sector_size
        contents = read_contents(disk, sector_size) if parent_error is None else None
        subject = Subject(opened, parent_error, contents)
        if as_json or output is options.OutputFormat.JSON:
            answer(json.dumps(answer_facts(subject, with_chain=chain), indent=2))
        else:
            answer("\n".join(map(printable, iter_lines(subject, with_chain=chain))))


def _open(
    path: str,
    parents: Sequence[str],
    parent_dirs: Sequence[str],
    log_policy: LogPolicy,
    *,
    allow_parent_mismatch: bool,
    whole_chain: bool,
) -> tuple[Chain, Vhdx2rawError | None]:
    """Return the chain, or the child alone and why its parent cannot be used.

    Raises:
        Vhdx2rawError: The child cannot be read or, for a `whole_chain`, a parent cannot be used.
        OSError: The host cannot open or read a file.
    """
    try:
        chain = open_chain(
            path,
            parents=parents,
            parent_dirs=parent_dirs,
            allow_parent_mismatch=allow_parent_mismatch,
            log_policy=log_policy,
        )
    except (ImageError, ParentError) as error:
        if whole_chain:
            raise
        child = open_image(path, log_policy)  # fails again if the child is at fault
        if not child.metadata.has_parent:  # then a parent was named for nothing
            child.close()
            raise
        findings = Findings()
        read_locator(child, findings)
        warnings = [(path, finding) for finding in (*child.warnings, *findings.warnings)]
        return Chain((child,), tuple(warnings)), error
    return chain, None
