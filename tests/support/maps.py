"""Disks worth a map, and the map of a disk as JSON that is held against its schema."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import MIB, Block, BlockState, ImageSpec, child_of, same_bytes_guid
from tests.support.cli import run
from tests.support.schemas import validator_of

Facts = dict[str, Any]
VALIDATOR = validator_of("map")


def family() -> dict[str, ImageSpec]:
    """Describe five layers of 8 blocks; each has a block of its own, the lowest has all."""
    spec = ImageSpec(8 * MIB, MIB, {index: Block() for index in range(7)}, tag="layer0")
    family = {"layer0.vhdx": spec}
    for layer in range(1, 5):
        spec = child_of(
            spec,
            f".\\layer{layer - 1}.vhdx",
            blocks={layer: Block()},
            tag=f"layer{layer}",
            data_write_guid=same_bytes_guid(layer),
        )
        family[f"layer{layer}.vhdx"] = spec
    half = range(1024)
    spec.blocks |= {
        5: Block(BlockState.ZERO),
        6: Block(BlockState.PARTIALLY_PRESENT, sector_bits=half),
    }
    family["top.vhdx"] = family.pop("layer4.vhdx")
    return family


def fragmented(count: int) -> ImageSpec:
    """Describe a disk of which every second MiB is stored, the last one first."""
    spec = ImageSpec(2 * count * MIB, MIB, file_size=(8 + count) * MIB)
    index = spec.geometry.payload_bat_index
    spec.bat_overrides = {index(2 * k): (7 + count - k) * MIB | 6 for k in range(count)}
    return spec


def map_of(
    capfd: pytest.CaptureFixture[str], *arguments: str | Path, warning: str = ""
) -> list[Facts]:
    """Run `map --json`, which has to succeed and to warn of no more; its JSON must fit its schema.

    A `warning` is a regular expression.
    """
    outcome = run(capfd, "map", "--json", *arguments)
    assert outcome.exit_code == 0
    assert re.fullmatch(warning, outcome.err)
    facts: list[Facts] = json.loads(outcome.out)
    VALIDATOR.validate(facts)
    return facts


def assert_tiles(facts: Sequence[Facts], start: int, end: int) -> None:
    """Check that extents tile a range."""
    for extent in facts:
        assert extent["start"] == start
        start += extent["length"]
    assert start == end
