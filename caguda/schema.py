"""The JSON schema of an experiment's YAML, for editors: names, types and ranges, not what several keys must hold together."""

import json
from typing import Any

from caguda.config import configuration_model
from caguda.configfile import BASE

DERIVED = "InDerivedFile"
"""Ends the name of a section's schema for files with a base, where any key may be left out."""


def _derived(node: Any) -> Any:
    """A part of the schema for files with a base: their mappings may lack keys, their lists are whole."""
    if isinstance(node, list):
        return [_derived(child) for child in node]
    if not isinstance(node, dict) or node.get("type") == "array":
        return node
    if "$ref" in node:
        return node | {"$ref": node["$ref"] + DERIVED}
    kept = {key: child for key, child in node.items() if key not in ("required", "discriminator")}
    return {"anyOf" if key == "oneOf" else key: _derived(child) for key, child in kept.items()}


def schema() -> dict[str, Any]:
    """The schema of files with a base and of those without: only these must have every key that has no default."""
    complete = configuration_model().model_json_schema()
    sections = complete.pop("$defs")
    derived = _derived(complete)
    base = {"title": "Base", "type": "string", "minLength": 1,
            "description": "Another YAML that this one differs from, relative to this file."}  # fmt: skip
    return {
        "$defs": sections | {name + DERIVED: _derived(section) for name, section in sections.items()},
        **derived,
        "properties": {BASE: base, **derived["properties"]},
        "if": {"not": {"required": [BASE]}},
        "then": {"properties": complete["properties"], "required": complete["required"]},
    }


def print_schema() -> None:
    """Print the schema."""
    print(json.dumps(schema(), indent=2))
