"""config/schema.json and config/README.md know the keys of the models, all of them and no others."""

import copy
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


def required_in(node: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The place of every key that some mapping needs; `*` stands for any name, and entries of lists are left out."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    yield from ((*place, key) for key in node.get("required", ()))
    for key, child in node.get("properties", {}).items():
        yield from required_in(child, (*place, key))
    for child in node.get("patternProperties", {}).values():
        yield from required_in(child, (*place, "*"))
    for child in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from required_in(child, place)


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


def test_an_editor_misses_a_key_where_there_is_no_base_that_may_have_it() -> None:
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    values["classes"] = [{"id": 0, "name": "sky", "color": [0, 0, 0]}, {"id": 1, "name": "road", "color": [9, 9, 9]}]
    checker, places = jsonschema.Draft202012Validator(SCHEMA), list(required_in(SCHEMA["then"], ()))
    assert checker.is_valid(values) and len(places) > 30
    found = 0
    for place in places:
        less = copy.deepcopy(values)
        node = less
        for part in place[:-1]:
            node = node.get("cag" if part == "*" else part, {})
        if place[-1] in node:
            del node[place[-1]]
            found += 1
            assert not checker.is_valid(less), place
            assert checker.is_valid(less | {"base": "demo.yaml"}), place
    assert found > 30
    of_a_list = copy.deepcopy(values) | {"base": "demo.yaml"}
    del of_a_list["classes"][1]["color"]
    assert not checker.is_valid(of_a_list), "a list is whole"


def test_a_file_with_a_base_is_checked_as_well() -> None:
    checker = jsonschema.Draft202012Validator(SCHEMA)
    for sound in ({}, {"labels": {"p0": 0.9}}, {"network": {"normalisation": "unit"}}, {"network": {"width": 8}}):
        assert checker.is_valid({"base": "demo.yaml"} | sound), sound
    for wrong in ({"sedes": [0]}, {"labels": {"p1": 0.9}}, {"stages": {"optimiser": {"momentum": 2}}},
                  {"network": {"width": 8, "backbone": "resnet101"}}, {"recipes": {"cag": {"distance": -1}}}):  # fmt: skip
        assert not checker.is_valid({"base": "demo.yaml"} | wrong), wrong
    assert not checker.is_valid({"base": ""}) and not checker.is_valid({"base": ["demo.yaml"]})


@pytest.mark.parametrize("key", SCHEMA["properties"])
def test_the_readme_explains_every_key(key: str) -> None:
    assert f"`{key}`" in SECTIONS[0]
    section = section_of(key)
    inner = {name for name, _ in keys_in(SCHEMA["properties"][key])}
    assert {name for name in inner if not re.search(rf"[`.{{ ]{name}[`:.]", section)} == set()
    assert inner or key in {
        "base",
        "plugins",
        "experiment",
        "seeds",
        "data_root",
        "cache",
        "ignore",
        "start_from",
        "bounds",
    }


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
