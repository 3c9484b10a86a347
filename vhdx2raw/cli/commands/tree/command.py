"""`vhdx2raw tree`: the chains in a folder, and how to convert the newest image of each."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from vhdx2raw.cli.commands.tree.drawing import NANOSECONDS, iter_lines
from vhdx2raw.cli.commands.tree.nodes import Node, conversion_of, iter_nodes
from vhdx2raw.cli.console import error_facts, print_failure, print_json, print_result
from vhdx2raw.cli.exit_codes import first_failure
from vhdx2raw.cli.options.remote import RemoteFlags
from vhdx2raw.cli.options.reporting import JsonFlags
from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.operations.discovery import BrokenFile, discover, iter_files
from vhdx2raw.source.file_object import name_of

EXAMPLES = """\b
Examples:
  vhdx2raw tree .               the chains in this folder and all below it
  vhdx2raw tree . | grep -w tip  only the newest image of each chain
  vhdx2raw tree --json .        the same for a script
"""


def run(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="The folder, or the URL of a prefix in a store; what lies below it belongs to it.",
        ),
    ],
    *,
    remote: RemoteFlags,
    as_json: JsonFlags,
) -> None:
    """Draw the chains of VHDX files in DIR, from root to tip.

    A line has the virtual size, the space that the file takes up, when it was written last, the
    first digits of its DataWriteGuid, and what there is to know: "tip" is the newest image of a
    chain, and the command that converts it stands at the end; "orphan" is one whose parent is not
    here, "mismatch" one whose parent has changed. Parents are told by their DataWriteGuid, whatever
    they are called. Only headers, metadata and locators are read, and logs that hold updates. The
    exit code is that of the first file or folder that cannot be read.
    """
    unreadable: list[OSError] = []

    def report(error: OSError) -> None:
        if error.filename == folder:
            raise error
        unreadable.append(error)

    options = OpenOptions(**remote.remote_options())
    catalog = discover(iter_files(folder, report, options), options)
    folder = name_of(folder)
    nodes = list(iter_nodes(catalog))
    failures = [*(BrokenFile(str(e.filename), e) for e in unreadable), *catalog.broken]
    codes = [print_failure(error) for _, error in failures]
    if as_json:
        facts = {
            "folder": folder,
            "images": [_facts(node) for node in nodes],
            "failed": [{"filename": name, "error": error_facts(error)} for name, error in failures],
        }
        print_json(facts)
    else:
        print_result("\n".join(iter_lines(folder, nodes, len(failures))))
    if exit_code := first_failure(codes):
        raise typer.Exit(exit_code)


def _facts(node: Node) -> dict[str, object]:
    """Return what docs/schemas/tree.json describes."""
    image, metadata = node.image, node.image.metadata
    modified = datetime.fromtimestamp(image.modified_ns / NANOSECONDS, timezone.utc)
    return {
        "filename": image.path,
        "disk-type": metadata.disk_type,
        "virtual-size": metadata.virtual_disk_size,
        "actual-size": image.stored_size,
        "modified": f"{modified:%Y-%m-%dT%H:%M:%SZ}" if image.modified_ns else None,
        "virtual-disk-id": str(metadata.virtual_disk_id) if metadata.virtual_disk_id else None,
        "data-write-guid": str(image.data_write_guid),
        "dirty-flag": image.is_dirty,
        "parent": node.parents[0].path if node.parents else None,
        "parent-guids": [str(version) for version in image.linkages],
        "children": [child.path for child in node.children],
        "tip": node.is_tip,
        "error": error_facts(node.error) if node.error else None,
        "command": conversion_of(node),
    }
