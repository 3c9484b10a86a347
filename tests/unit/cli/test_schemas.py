"""The schemas of what the commands print as JSON."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from tests.support.schemas import SCHEMAS
from vhdx2raw.cli.app import COMMANDS


def objects_in(schema: object) -> Iterator[dict[str, Any]]:
    """Give every part of a schema that describes an object with named keys."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects_in(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects_in(part)


WITHOUT_RESULT = {"mount", "serve"}


def test_every_command_with_a_result_has_a_schema() -> None:
    names = {*COMMANDS, "batch-list", "batch-results", "error"}
    assert SCHEMAS.keys() == names - WITHOUT_RESULT


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


CLOSED_ELSEWHERE = {"convert": 1, "info": 1}
"""How many objects are closed only by those that refer to them."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_leaves_no_object_open(name: str) -> None:
    is_open = [
        part
        for part in objects_in(SCHEMAS[name])
        if part.get("additionalProperties", part.get("unevaluatedProperties")) is not False
    ]
    assert len(is_open) == CLOSED_ELSEWHERE.get(name, 0)


@pytest.mark.parametrize(
    "name", ["batch-list", "batch-results", "compare", "hash", "map", "measure", "tree"]
)
def test_schema_describes_every_key(name: str) -> None:
    schema = SCHEMAS[name]
    keys = schema.get("items", schema)["properties"]
    assert [key for key, value in keys.items() if not value.keys() & {"description", "$ref"}] == []
