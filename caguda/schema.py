"""The JSON schema of an experiment's YAML, for editors: names, types and ranges, without conditions on several keys."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from caguda.config import configuration_model
from caguda.config_run import Imported, Training
from caguda.configfile import BASE
from caguda.registry import registered_in_package
from caguda.run_inheritance import LIKE

DERIVED = "InDerivedFile"
"""The end of a section's name in the schema of files with a base, where any key may be left out."""
RUN = "Run"
WHOLE = ("experiment", "data_root")
"""A file without a base that has one of these keys is a whole experiment; another one is merged above an experiment."""
Schema = dict[str, Any]


def _derived(node: Any) -> Any:
    """A part of the schema for files with a base: their mappings may lack keys, their lists may not."""
    if isinstance(node, list):
        return [_derived(child) for child in node]
    if not isinstance(node, dict) or node.get("type") == "array":
        return node
    if "$ref" in node:
        return node | {"$ref": node["$ref"] + DERIVED}
    kept = {key: child for key, child in node.items() if key not in ("required", "discriminator")}
    return {"anyOf" if key == "oneOf" else key: _of_each(child) if key == "properties" else _derived(child)
            for key, child in kept.items()}  # fmt: skip


def _of_each(properties: Schema) -> Schema:
    return {key: _derived(child) for key, child in properties.items()}


def _runs(
    sections: Mapping[str, Schema], methods: Mapping[str, str], rules: Mapping[str, str]
) -> tuple[Schema, Schema]:
    """The schema of an entry of `runs` in a whole experiment, and in a file with a base.

    `methods` and `rules` map a name to its section in `sections`. A run with the key `method` has the keys of that method, a
    run without it those of any. It may lack keys of `training`, and with `like` any key, at any depth.
    """
    complete = {name: sections[section]["properties"] for name, section in methods.items()}
    partial = {name: _of_each(keys) for name, keys in complete.items()}
    of_any_method = {
        key: _either(keys[key] for keys in partial.values() if key in keys) for keys in partial.values() for key in keys
    }
    like = {"title": "Like", "type": "string", "minLength": 1,
                "description": "Another run, whose keys this one has where it does not say otherwise, but for title and note."}  # fmt: skip
    properties = of_any_method | {
        LIKE: like,
        "method": {"title": "Method", "anyOf": [{"enum": list(methods)}, {"type": "string"}]},
        "pseudo_labels": {
            "title": "Pseudo Labels",
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/{section}{DERIVED}"} for name, section in rules.items()},
            "additionalProperties": {"type": "object"},
        },
    }
    allowed = [
        _where({"method": {"const": name}}, {"propertyNames": {"enum": [LIKE, *keys]}})
        for name, keys in partial.items()
    ]
    allowed.append({"if": {"not": {"required": ["method"]}}, "then": {"propertyNames": {"enum": list(properties)}}})
    derived = {"title": RUN, "type": ["object", "null"], "properties": properties, "allOf": allowed}
    shared = {"method", *sections["Training"]["properties"]}
    needed = {name: {key: complete[name][key] for key in sections[section]["required"] if key not in shared}
              for name, section in methods.items()}  # fmt: skip
    alone = [
        _where({"method": {"const": name}}, {"properties": keys, "required": list(keys)}, {"not": {"required": [LIKE]}})
        for name, keys in needed.items()
        if keys
    ]
    whole = {"anyOf": [{"required": ["method"]}, {"required": [LIKE]}], "allOf": [*allowed, *alone]}
    return derived | whole, derived


def _where(properties: Schema, then: Schema, further: Schema | None = None) -> Schema:
    """A schema for mappings that have some keys with certain values."""
    return {"if": {"properties": properties, "required": list(properties), **(further or {})}, "then": then}


def _either(schemas: Iterable[Schema]) -> Schema:
    """A schema that accepts what any of some schemas accepts, without duplicates."""
    distinct: list[Schema] = [json.loads(text) for text in dict.fromkeys(map(json.dumps, schemas))]
    if len(distinct) == 1:
        return distinct[0]
    titles = [schema["title"] for schema in distinct if "title" in schema]  # a section has its title in its definition
    return {"anyOf": distinct} | ({"title": titles[0]} if titles else {})


def schema() -> Schema:
    """The schema of whole experiments, and of files with a base or merged above an experiment, which may lack any key."""
    methods: dict[str, type[BaseModel]] = {"imported": Imported, **registered_in_package("method")}
    rules = registered_in_package("rule")
    models: list[type[BaseModel]] = [configuration_model(), Training, *methods.values(), *rules.values()]
    refs, definitions = models_json_schema([(model, "validation") for model in models])
    names = [refs[model, "validation"]["$ref"].rpartition("/")[2] for model in models]
    sections: dict[str, Schema] = definitions["$defs"]
    complete, of_methods = sections.pop(names[0]), dict(zip(methods, names[2:], strict=False))
    run, derived_run = _runs(sections, of_methods, dict(zip(rules, names[2 + len(methods) :], strict=True)))
    for name in (*of_methods.values(), "RunSettings", "Rule"):
        del sections[name]
    training = _derived(sections.pop("Training"))
    complete["properties"]["training"] = training
    derived = _derived(complete)
    derived["properties"] |= {"training": training}
    for properties, name in ((complete["properties"], RUN), (derived["properties"], RUN + DERIVED)):
        (pattern,) = properties["runs"].pop("patternProperties")
        properties["runs"] |= {
            "patternProperties": {pattern: {"$ref": f"#/$defs/{name}"}},
            "additionalProperties": False,
        }
    base = {"title": "Base", "type": "string", "minLength": 1,
            "description": "Another YAML that this one differs from, relative to this file."}  # fmt: skip
    return {
        "$defs": sections
        | {RUN: run}
        | {name + DERIVED: _derived(section) for name, section in sections.items()}
        | {RUN + DERIVED: derived_run},
        **derived,
        "properties": {BASE: base, **derived["properties"]},
        "if": {"not": {"required": [BASE]}, "anyOf": [{"required": [key]} for key in WHOLE]},
        "then": {"properties": complete["properties"], "required": complete["required"]},
    }


def print_schema() -> None:
    """Print the schema."""
    print(json.dumps(schema(), indent=2))
