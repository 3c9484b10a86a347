"""The JSON schemas of what the commands print."""

import json
from functools import cache
from typing import Any

import jsonschema
from referencing import Registry, Resource

from tests.support.paths import ROOT

SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "docs" / "schemas").glob("*.json"))
}
"""By the name of the command; that of a batch refers to that of `convert`."""


@cache
def validator_of(name: str) -> jsonschema.Draft202012Validator:
    """Give what holds JSON against the schema of a command."""
    resources = [
        (f"{other}.json", Resource.from_contents(schema)) for other, schema in SCHEMAS.items()
    ]
    registry: Registry[Any] = Registry().with_resources(resources)
    return jsonschema.Draft202012Validator(SCHEMAS[name], registry=registry)
