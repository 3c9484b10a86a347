<<<<<<< HEAD
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
=======
"""The JSON schemas of what the commands print, which name each other."""

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.support.paths import ROOT, read_schema

NAMES = sorted(path.stem for path in (ROOT / "docs" / "schemas").glob("*.json"))


def validator_of(name: str) -> Draft202012Validator:
    """Return what checks an answer against a schema, and the schemas that it names."""
    schemas = {f"{other}.json": Resource.from_contents(read_schema(other)) for other in NAMES}
    return Draft202012Validator(
        read_schema(name), registry=Registry().with_resources(schemas.items())
    )
>>>>>>> 5f6efbb (Failures as objects with --json, exit code 8 for no space and 9 for a changed source)
