"""config/schema.json and config/README.md know the keys of the models, all of them and no others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from caguda.cli import main

ROOT = Path(__file__).parents[1]
SCHEMA: dict[str, Any] = json.loads((ROOT / "config" / "schema.json").read_text(encoding="utf-8"))
README = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
HEADING, *SECTIONS = re.split(r"^## ", README, flags=re.MULTILINE)
YAMLS = [*sorted((ROOT / "config").glob("*.yaml")), ROOT / "tests" / "smoke.yaml"]


def keys_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key that a part of the schema allows at any depth, and what the schema says about it."""
    if isinstance(node, list):
        for child in node:
            yield from keys_in(child)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield from keys_in(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
        for key, child in node.get("properties", {}).items():
            yield key, child
            yield from keys_in(child)
        yield from keys_in(list(node.get("patternProperties", {}).values()))
        for key in ("anyOf", "oneOf", "items"):
            yield from keys_in(node.get(key))


def section_of(key: str) -> str:
    """The section of the README about a key of the top level."""
    found = [section for section in SECTIONS if f"`{key}`" in section.partition("\n")[0]]
    return found[0] if found else SECTIONS[0]


def test_the_schema_is_that_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA, "make schema"


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_an_editor_that_reads_the_schema_accepts_what_is_published(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (named,) = re.findall(r"\A# yaml-language-server: \$schema=(.*)", text)
    assert (path.parent / named).resolve() == ROOT / "config" / "schema.json"
    values = yaml.safe_load(text)
    checker = jsonschema.Draft202012Validator(SCHEMA)
    assert list(checker.iter_errors(values)) == []
    assert not checker.is_valid(values | {"sedes": [0]}) and not checker.is_valid(values | {"seeds": [-1]})


@pytest.mark.parametrize("key", SCHEMA["properties"])
def test_the_readme_explains_every_key(key: str) -> None:
    assert f"`{key}`" in SECTIONS[0]
    section = section_of(key)
    inner = {name for name, _ in keys_in(SCHEMA["properties"][key])}
    assert {name for name in inner if not re.search(rf"[`.{{ ]{name}[`:.]", section)} == set()
    assert inner or key in {"experiment", "seeds", "data_root", "cache", "ignore", "start_from", "bounds"}


def rows() -> Iterator[tuple[str, str, str]]:
    """The section's title, the keys and their defaults as written, of every row of a table of keys in the README."""
    for section in SECTIONS:
        for table in re.findall(r"^\| key \| default \|.*\n\|[-|]+\n((?:\|.*\n?)+)", section, re.MULTILINE):
            for line in table.splitlines():
                names, default = line.split("|")[1:3]
                yield section.partition("\n")[0], names.strip(), default.strip()


def test_the_readme_has_the_keys_and_defaults_of_the_models() -> None:
    checked = 0
    for title, names, default in rows():
        parents = re.findall(r"`(\w+)`", title) or list(SCHEMA["properties"])
        known = dict(keys_in({"properties": {parent: SCHEMA["properties"][parent] for parent in parents}}))
        known |= {} if "`" in title else SCHEMA["properties"]
        keys = [name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", names)]
        assert keys and set(keys) <= known.keys(), names
        written = default.split(", ") if default and len(keys) > 1 else [default] * len(keys)
        for key, said in zip(keys, map(yaml.safe_load, (text.strip("`") for text in written)), strict=True):
            actual = known[key].get("default")
            if isinstance(actual, bool | float | int) or isinstance(said, bool | float | int):
                assert said == actual, key
                checked += 1
    assert checked > 20
