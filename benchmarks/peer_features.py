"""What the tools can do besides reading rightly: the rows of the second table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peer_probes as probes
from benchmarks.peer_probes import NO, YES
from benchmarks.peer_tools import DISCUTILS, DISSECT, LIBRARIES, LIBVHDI, OURS, QEMU, SEVEN_ZIP

NOT_APPLICABLE = "n/a"


@dataclass(frozen=True)
class Feature:
    """A row: how to try it with a command-line tool, and what is read of the others.

    Attributes:
        row: What is tried, as the table names it.
        probe: Tries it in an empty folder; None where this machine cannot.
        tried: The tools with which it is tried.
        read: What manuals and sources state of the others; for libraries it does not apply.
    """

    row: str
    probe: Callable[[str, Path], str | None]
    tried: tuple[str, ...]
    read: Mapping[str, str]


COMMANDS = (OURS, QEMU, SEVEN_ZIP)
FEATURES = [
    Feature("sparse output", probes.sparse_output, COMMANDS, {DISCUTILS: YES}),
    Feature("stored zeros become holes", probes.zeros_become_holes, COMMANDS, {DISCUTILS: YES}),
    Feature("output to a pipe", probes.standard_output, COMMANDS, {DISCUTILS: NO}),
    Feature(
        "output to a block device",
        probes.block_device,
        (OURS, QEMU),
        {SEVEN_ZIP: NO, DISCUTILS: NO},
    ),
    Feature("blocks shared with the source (reflink)", probes.reflink, COMMANDS, {DISCUTILS: NO}),
    Feature("progress", probes.progress, COMMANDS, {DISCUTILS: YES}),
    Feature("several inputs in one command", probes.several_inputs, COMMANDS, {DISCUTILS: NO}),
    Feature(
        "nothing left of a conversion that was ended",
        probes.nothing_left,
        COMMANDS,
        {DISCUTILS: NO},
    ),
    Feature("reading back what was written", probes.read_back, (OURS,), {QEMU: NO, SEVEN_ZIP: NO}),
    Feature("digest of the disk", probes.digest, (OURS, SEVEN_ZIP), {QEMU: NO}),
    Feature("comparison with a raw image", probes.compare, (OURS, QEMU), {SEVEN_ZIP: NO}),
    Feature("check that notices a truncated file", probes.check, COMMANDS, {DISCUTILS: NO}),
    Feature(
        "truncated file salvaged, with a list of losses", probes.salvage, COMMANDS, {DISCUTILS: NO}
    ),
    Feature("information as JSON", probes.json_info, (OURS, QEMU), {SEVEN_ZIP: NO}),
    Feature("map of the stored ranges", probes.block_map, (OURS, QEMU), {SEVEN_ZIP: NO}),
    Feature(
        "use from Python",
        probes.python_api,
        (OURS, LIBVHDI, DISSECT),
        {QEMU: NO, SEVEN_ZIP: NO},
    ),
    Feature(
        "time for an empty disk of 64 GiB",
        probes.seconds_of_an_empty_disk,
        COMMANDS,
        {DISCUTILS: NOT_APPLICABLE},
    ),
]


def result_of(feature: Feature, tool: str) -> str | None:
    """Try a feature in a temporary folder; None where this machine cannot."""
    with tempfile.TemporaryDirectory(prefix="vhdx2raw-peers-") as folder:
        return feature.probe(tool, Path(folder))


def read_of(feature: Feature, tool: str) -> str:
    """Give what is read of a tool with which a feature is not tried."""
    return feature.read.get(tool, NOT_APPLICABLE if tool in LIBRARIES else NO)
