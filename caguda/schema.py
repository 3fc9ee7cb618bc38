"""The JSON schema of an experiment's YAML, for editors: names, types and ranges, not what several keys must hold together."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from caguda.config import configuration_model
from caguda.config_run import Training, method_classes
from caguda.configfile import BASE
from caguda.kinds import FOLDERS, known
from caguda.whole_runs import LIKE

DERIVED = "InDerivedFile"
"""Ends the name of a section's schema for files with a base, where any key may be left out."""
RUN = "Run"
WHOLE = ("experiment", "data_root")
"""Keys by which a file without a base is known to be a whole experiment, and no part that is laid above one."""
Schema = dict[str, Any]


def _derived(node: Any) -> Any:
    """A part of the schema for files with a base: their mappings may lack keys, their lists are whole."""
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


def _of_the_package(kind: Any, classes: Mapping[str, type[Any]]) -> dict[str, type[Any]]:
    """The classes that no plugin brings, nor a test."""
    return {name: cls for name, cls in classes.items() if cls.__module__.startswith(f"{FOLDERS[kind]}.")}


def _runs(
    sections: Mapping[str, Schema], methods: Mapping[str, str], rules: Mapping[str, str]
) -> tuple[Schema, Schema]:
    """The schema of an entry of `runs` in a whole experiment, and in a file with a base.

    `methods` and `rules` are the names of their sections by their own. The keys of every method are known, with `method` those of
    that one. What a run may have from `training` need not be said, nor with `like` anything, at any depth.
    """
    complete = {name: sections[section]["properties"] for name, section in methods.items()}
    own = {name: _of_each(keys) for name, keys in complete.items()}
    known_keys = {
        key: _either(keys[key] for keys in own.values() if key in keys) for keys in own.values() for key in keys
    }
    likeness = {"title": "Like", "type": "string", "minLength": 1,
                "description": "Another run, whose keys this one has where it does not say otherwise, but for title and note."}  # fmt: skip
    properties = known_keys | {
        LIKE: likeness,
        "method": {"title": "Method", "anyOf": [{"enum": list(methods)}, {"type": "string"}]},
        "pseudo_labels": {
            "title": "Pseudo Labels",
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/{section}{DERIVED}"} for name, section in rules.items()},
            "additionalProperties": {"type": "object"},
        },
    }
    allowed = [
        _where({"method": {"const": name}}, {"propertyNames": {"enum": [LIKE, *keys]}}) for name, keys in own.items()
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
    """A schema that holds where some keys are there and have certain values."""
    return {"if": {"properties": properties, "required": list(properties), **(further or {})}, "then": then}


def _either(schemas: Iterable[Schema]) -> Schema:
    """What one of some schemas takes, each told once."""
    different = [json.loads(text) for text in dict.fromkeys(map(json.dumps, schemas))]
    return different[0] if len(different) == 1 else {"title": different[0]["title"], "anyOf": different}


def schema() -> Schema:
    """The schema of whole experiments, and of files with a base or parts that are laid above one, which may lack any key."""
    methods = {"imported": method_classes()["imported"]} | _of_the_package("method", method_classes())
    rules = _of_the_package("rule", known("rule"))
    models: list[type[BaseModel]] = [configuration_model(), Training, *methods.values(), *rules.values()]
    refs, found = models_json_schema([(model, "validation") for model in models])
    names = [refs[model, "validation"]["$ref"].rpartition("/")[2] for model in models]
    sections: dict[str, Schema] = found["$defs"]
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
