"""The recipes of the paper and of the authors' code: complete, with a source for every value, and as documented."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from caguda.configfile import load_configuration, read_merged

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "paper_and_code.md"
RECIPES = ("gta5_cityscapes_paper", "gta5_cityscapes_official")
SYNTHIA = "synthia_cityscapes_paper"
METHOD = ("anchors", "labels", "losses", "recipes")
SOURCE = re.compile(r"(Section|Table|Algorithm|Eq\.) \d|\.py:\d|yml:\d|not given|machine")


@pytest.fixture(autouse=True)
def _data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")


def file_of(name: str) -> Path:
    return ROOT / "config" / f"{name}.yaml"


def resolved(name: str) -> dict[str, Any]:
    """The validated configuration as plain values, every default filled in."""
    return load_configuration(file_of(name)).model_dump(mode="json")


def leaves(values: Any, path: str = "") -> dict[str, Any]:
    """`a.b.c` and its value, of everything in nested mappings that is no mapping itself."""
    if not isinstance(values, dict):
        return {path: values}
    return {
        key: value
        for name, below in values.items()
        for key, value in leaves(below, f"{path}.{name}" if path else name).items()
    }


def key_lines(node: yaml.Node) -> Iterator[int]:
    """The line of every key that has a value of its own; `base` is no choice and has no source."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "base":
                continue
            if isinstance(value, yaml.MappingNode):
                yield from key_lines(value)
            else:
                yield key.start_mark.line


def documented() -> dict[str, tuple[Any, Any]]:
    """Every key of the table of choices, with its value in the paper's and in the official recipe."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    cells = [[cell.strip("`") for cell in row[-3:]] for row in rows if len(row) == 6 and row[-1].startswith("`")]
    keys = [key for key, _, _ in cells]
    assert len(keys) == len(set(keys)), "a key has two rows"
    return {key: (yaml.safe_load(paper), yaml.safe_load(official)) for key, paper, official in cells}


@pytest.mark.parametrize("name", [*RECIPES, SYNTHIA])
def test_a_recipe_and_its_base_leave_nothing_to_defaults(name: str) -> None:
    assert leaves(read_merged(file_of(name)).values).keys() == leaves(resolved(name)).keys()


@pytest.mark.parametrize("name", [*RECIPES, SYNTHIA])
def test_every_value_of_a_recipe_names_its_source(name: str) -> None:
    text = file_of(name).read_text(encoding="utf-8")
    lines = text.splitlines()
    without = [
        lines[number]
        for number in key_lines(yaml.compose(text, Loader=yaml.SafeLoader))
        if not SOURCE.search(lines[number].partition("  # ")[2])
    ]
    assert without == []


@pytest.mark.parametrize("name", [*RECIPES, SYNTHIA, "demo_official"])
def test_a_recipe_begins_with_its_command(name: str) -> None:
    first = file_of(name).read_text(encoding="utf-8").split("\n\n")[0]
    assert f"--configfile config/{name}.yaml\n" in first


def test_the_document_says_what_the_recipes_say() -> None:
    paper, official = (leaves(resolved(name)) for name in RECIPES)
    rows = documented()
    assert rows
    assert rows == {key: (paper[key], official[key]) for key in rows}


def test_every_choice_of_the_method_is_documented() -> None:
    paper, official = (leaves(resolved(name)) for name in RECIPES)
    rows = documented().keys()
    for key in paper:
        section, differs = key.partition(".")[0], paper[key] != official[key]
        chosen = section in METHOD or (section in ("network", "stages") and differs)
        same_for_both_domains = key.replace("target_augmentation", "augmentation")
        assert not chosen or key == "labels.margin_unit" or rows & {key, same_for_both_domains}, key


def test_the_official_demo_differs_from_the_demo_in_the_method_alone() -> None:
    demo, official, recipe = resolved("demo"), resolved("demo_official"), resolved("gta5_cityscapes_official")
    assert {key for key in demo if demo[key] != official[key]} == {"experiment", "anchors", "losses", "recipes"}
    for section in ("anchors", "losses", "recipes"):
        assert official[section] == recipe[section]


def test_the_experiment_on_synthia_is_that_on_gta5_with_another_source() -> None:
    gta5, synthia = leaves(resolved("gta5_cityscapes_paper")), leaves(resolved(SYNTHIA))
    iterations = {f"{training}.iterations" for training in ("pretrain", "warmup", "stages")}
    differ = {"experiment", "classes", "source.layout", "source.root", *iterations}
    assert {key for key in gta5 if gta5[key] != synthia[key]} == differ
    assert (synthia["classes"], synthia["source.layout"]) == ("cityscapes16", "synthia")
    assert {gta5[key] / 24966 for key in iterations} == {synthia[key] / 9400 for key in iterations} == {20}
