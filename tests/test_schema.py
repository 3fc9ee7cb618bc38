"""config/schema.json and config/README.md know the keys of the models, all of them and no others."""

import copy
import json
import re
from collections.abc import Iterable, Iterator
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


def keys_in(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that a part of the schema allows at any depth, as `.a.b`, and what the schema says about it."""
    if isinstance(node, list):
        for child in node:
            yield from keys_in(child, above)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield from keys_in(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], above)
        for key, child in node.get("properties", {}).items():
            yield f"{above}.{key}", child
            yield from keys_in(child, f"{above}.{key}")
        yield from keys_in(list(node.get("patternProperties", {}).values()), above)
        for key in ("anyOf", "oneOf", "items"):
            yield from keys_in(node.get(key), above)


def defaults_of(name: str, known: Iterable[tuple[str, Any]]) -> list[Any]:
    """The defaults that the schema has for a key, one of each method that has it; None for none. Empty for no such key."""
    nodes = [node for key, node in known if key.endswith(f".{name}")]
    return [
        each.get("default")
        for node in nodes
        for each in (node.get("anyOf") if "default" not in node else None) or [node]
    ]


def required_in(node: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The place of every key that some mapping needs; `*` stands for any name, and entries of lists are left out."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    yield from ((*place, key) for key in node.get("required", ()))
    for key, child in node.get("properties", {}).items():
        yield from required_in(child, (*place, key))
    for child in node.get("patternProperties", {}).values():
        yield from required_in(child, (*place, "*"))
    further = [node["then"] for node in node.get("allOf", ())]
    for child in (*node.get("anyOf", ()), *node.get("oneOf", ()), *further):
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
    values["runs"] |= {"brought": {"method": "imported", "file": "model.safetensors"}}
    checker, places = jsonschema.Draft202012Validator(SCHEMA), list(dict.fromkeys(required_in(SCHEMA["then"], ())))
    assert checker.is_valid(values) and len(places) > 30
    found = 0
    for place in places:
        for run in values["runs"] if "*" in place else [""]:
            less = copy.deepcopy(values)
            node = less
            for part in place[:-1]:
                node = node.get(run if part == "*" else part, {})
            if place[-1] in node:
                del node[place[-1]]
                found += 1
                assert not checker.is_valid(less), (place, run)
                assert checker.is_valid(less | {"base": "demo.yaml"}), (place, run)
    assert found > 30
    of_a_list = copy.deepcopy(values) | {"base": "demo.yaml"}
    del of_a_list["classes"][1]["color"]
    assert not checker.is_valid(of_a_list), "a list is whole"


def test_a_part_that_is_laid_above_an_experiment_may_lack_any_key() -> None:
    """It has neither a base nor what makes an experiment: its name, and the folder of its frames."""
    checker = jsonschema.Draft202012Validator(SCHEMA)
    part = {"runs": {"plain": {"weights": {"distance": 0}}}}
    assert checker.is_valid(part) and not checker.is_valid({"runs": {"plain": {"weights": {"distnce": 0}}}})
    assert not checker.is_valid(part | {"experiment": "own"}) and not checker.is_valid(part | {"data_root": "data"})


def test_a_file_with_a_base_is_checked_as_well() -> None:
    checker = jsonschema.Draft202012Validator(SCHEMA)
    runs: list[Any] = [{"cag": {"pseudo_labels": {"probability": {"p0": 0.9}}}}, {"cag": None}, {"a": {"like": "cag"}}]
    for sound in (
        {},
        *({"runs": run} for run in runs),
        {"network": {"normalisation": "unit"}},
        {"network": {"width": 8}},
    ):
        assert checker.is_valid({"base": "demo.yaml"} | sound), sound
    for wrong in (
        {"sedes": [0]},
        {"runs": {"cag": {"pseudo_labels": {"probability": {"p1": 0.9}}}}},
        {"training": {"optimiser": {"momentum": 2}}},
        {"training": {"weights": {}}},
        {"network": {"width": 8, "backbone": "resnet101"}},
        {"runs": {"cag": {"weights": {"distance": -1}}}},
        {"runs": {"cag": 3}},
    ):
        assert not checker.is_valid({"base": "demo.yaml"} | wrong), wrong
    assert not checker.is_valid({"base": ""}) and not checker.is_valid({"base": ["demo.yaml"]})


def test_a_run_has_the_keys_of_its_method() -> None:
    """Those of every method where none is said, as the run that it is like may say it; any where only a plugin knows it."""
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator(SCHEMA)

    def is_valid(run: dict[str, Any]) -> bool:
        return checker.is_valid(values | {"runs": values["runs"] | {"own": run}})

    weights = {"distance": 1, "anchor_cross_entropy": 1, "probability_cross_entropy": 1}
    for sound in ({"method": "supervised"}, {"method": "supervised", "frames": "target"}, {"like": "cag", "weights": {}},
                  {"method": "cag", "weights": weights}, {"like": "warm-up", "discriminator": {"width": 8}},
                  {"like": "cag", "method": "cag_every_iteration", "stages": None},
                  {"like": "cag", "pseudo_labels": {"of_a_plugin": {"share": 0.5}}},
                  {"method": "of_a_plugin", "share": 0.5}):  # fmt: skip
        assert is_valid(sound), sound
    for wrong in ({"method": "supervised", "weights": weights}, {"method": "cag", "weight": 1, "weights": weights},
                  {"method": "imported", "file": "w.pt", "iterations": 3}, {"like": "cag", "share": 0.5}, {"iterations": 3},
                  {"method": "cag", "weights": weights, "discriminator": {"width": 8}}, {"like": ""},
                  {"method": "cag", "weights": {"distance": 1}}, {"method": "adversarial", "weight": 1},
                  {"like": "cag", "pseudo_labels": {"anchor": {"share": 0.5}}}, {"like": "cag", "stages": 0}):  # fmt: skip
        assert not is_valid(wrong), wrong
    assert not checker.is_valid(values | {"runs": values["runs"] | {"of two words": {"method": "supervised"}}})


@pytest.mark.parametrize("key", SCHEMA["properties"])
def test_the_readme_explains_every_key(key: str) -> None:
    assert f"`{key}`" in SECTIONS[0]
    section = section_of(key)
    inner = {name.rpartition(".")[2] for name, _ in keys_in(SCHEMA["properties"][key])}
    assert {name for name in inner if not re.search(rf"[`.{{ ]{name}[`:.]", section)} == set()
    assert inner or key in {
        "base",
        "plugins",
        "experiment",
        "seeds",
        "data_root",
        "cache",
        "ignore",
        "reports",
        "tables",
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
        known = list(keys_in({"properties": {parent: SCHEMA["properties"][parent] for parent in parents}}))
        keys = re.findall(r"`([\w.]+)`", names)
        assert keys
        written = default.split(", ") if default and len(keys) > 1 else [default] * len(keys)
        for key, said in zip(keys, map(yaml.safe_load, (text.strip("`") for text in written)), strict=True):
            actual = defaults_of(key, known)
            assert actual, names
            if isinstance(said, bool | float | int) or any(isinstance(each, bool | float | int) for each in actual):
                assert said in actual, key
                checked += 1
    assert checked > 20
