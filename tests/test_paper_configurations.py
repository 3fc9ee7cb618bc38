"""The configurations of the paper and of the authors' code: complete, with a source for every value, and as documented."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import block

from caguda.config_run import Training
from caguda.configfile import load_configuration, parse_configuration, read_merged
from caguda.merging import merge_all
from caguda.run_inheritance import with_inherited_keys
from caguda.runs import anchors_files, imported_files, models

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "paper_and_code.md"
BOTH = ("gta5_cityscapes_paper", "gta5_cityscapes_official")
SYNTHIA = "synthia_cityscapes_paper"
UNSAID = {"title", "note", "start", "stages", "anchors"}
"""Keys of a run that say something where they are there, and are no choice where they are not."""
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
    """Every key of the table of choices, with its value in the paper's and in the official configuration."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    cells = [[cell.strip("`") for cell in row[-3:]] for row in rows if len(row) == 6 and row[-1].startswith("`")]
    keys = [key for key, _, _ in cells]
    assert len(keys) == len(set(keys)), "a key has two rows"
    return {key: (yaml.safe_load(paper), yaml.safe_load(official)) for key, paper, official in cells}


@pytest.mark.parametrize("name", [*BOTH, SYNTHIA])
def test_a_configuration_and_its_base_leave_nothing_to_defaults(name: str) -> None:
    said, known = leaves(with_inherited_keys(read_merged(file_of(name)).values)), leaves(resolved(name))
    assert said.keys() <= known.keys()
    unsaid = {key: known[key] for key in known.keys() - said.keys()}
    assert {key.rpartition(".")[2] for key in unsaid} <= UNSAID and set(unsaid.values()) == {None}
    assert all(key.startswith("runs.") for key in unsaid)


@pytest.mark.parametrize("name", [*BOTH, SYNTHIA])
def test_every_value_of_a_configuration_names_its_source(name: str) -> None:
    text = file_of(name).read_text(encoding="utf-8")
    lines = text.splitlines()
    without = [
        lines[number]
        for number in key_lines(yaml.compose(text, Loader=yaml.SafeLoader))
        if not SOURCE.search(lines[number].partition("  # ")[2])
    ]
    assert without == []


@pytest.mark.parametrize("name", [*BOTH, SYNTHIA, "demo_official"])
def test_a_configuration_begins_with_its_command(name: str) -> None:
    first = file_of(name).read_text(encoding="utf-8").split("\n\n")[0]
    assert f"--configfile config/{name}.yaml\n" in first


def test_the_document_says_what_the_configurations_say() -> None:
    paper, official = (leaves(resolved(name)) for name in BOTH)
    rows = documented()
    assert rows
    assert rows == {key: (paper[key], official[key]) for key in rows}


def test_the_authors_files_take_the_place_of_ours_as_documented(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(block("reproduce.md", "yaml").replace("base: ", f"base: {ROOT / 'config'}/"), encoding="utf-8")
    config = load_configuration(file)
    assert models(config) == ["warm-up", *(f"cag/stage{k}" for k in (1, 2, 3)), "control"]
    assert imported_files(config) == {"warm-up": "warm_up.safetensors"}
    assert anchors_files(config) == {"cag": "category_anchors"}


def is_choice(key: str, differs: bool) -> bool:
    """Whether a key is one of the method: all of its own, and those of network and training in which the two differ."""
    section, _, name = key.removeprefix("runs.").partition(".")
    name = name.partition(".")[0]
    if section == "anchors" or section == "cag" and name not in {*Training.model_fields, *UNSAID}:
        return True
    return key in ("runs.cag.reduction", "runs.cag.start") or (section in ("network", "cag") and differs)


def test_every_choice_of_the_method_is_documented() -> None:
    paper, official = (leaves(resolved(name)) for name in BOTH)
    rows = documented().keys()
    chosen = [key for key in paper if is_choice(key, paper[key] != official.get(key))]
    assert len(chosen) > 20
    for key in chosen:
        same_for_both_domains = key.replace("target_augmentation", "augmentation")
        assert key == "runs.cag.pseudo_labels.anchor.unit" or rows & {key, same_for_both_domains}, key


def test_the_official_demo_differs_from_the_demo_in_the_method_alone() -> None:
    demo, official, theirs = (leaves(resolved(name)) for name in ("demo", "demo_official", "gta5_cityscapes_official"))
    differ = {key for key in demo.keys() | official.keys() if demo.get(key) != official.get(key)} - {"experiment"}
    method = ("anchors.", "runs.cag.weights.", "runs.cag.distance.")
    assert differ and all(key.startswith(method) for key in differ)
    assert all(official[key] == theirs[key] for key in theirs if key.startswith(method))


def test_the_experiment_on_synthia_is_that_on_gta5_with_another_source() -> None:
    gta5, synthia = leaves(resolved("gta5_cityscapes_paper")), leaves(resolved(SYNTHIA))
    differ = {"experiment", "classes", "source.layout", "source.root"}
    assert {key for key in gta5 if gta5[key] != synthia[key]} == differ
    assert synthia.keys() - gta5.keys() == {"tables.table3"} and synthia["tables.table3"] == gta5["tables.table1"]
    assert (synthia["classes"], synthia["source.layout"]) == ("cityscapes16", "synthia")


def iterations(name: str) -> dict[str, int]:
    """The iterations of each run of a configuration; of a chain, those of one stage."""
    return {run: settings["iterations"] for run, settings in resolved(name)["runs"].items()}


@pytest.mark.parametrize("name", [*BOTH, SYNTHIA])
def test_an_epoch_is_a_pass_over_the_target_as_the_authors_code_counts_it(name: str) -> None:
    """In whole batches: the code drops the last images of a pass."""
    config, long = resolved(name)["runs"], iterations(name)
    of_an_epoch = 2975 // config["cag"]["batch_size"]
    assert long["warm-up"] == 20 * of_an_epoch
    assert long["cag"] == (84 if name == "gta5_cityscapes_official" else 20) * of_an_epoch
    assert long["control"] == config["cag"]["stages"] * long["cag"]
    assert long["source_only"] == long["oracle"] == 150_000 // config["source_only"]["batch_size"]


@pytest.mark.parametrize("name", [*BOTH, SYNTHIA])
def test_the_documents_say_how_long_an_experiment_is(name: str) -> None:
    long, text = iterations(name), (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    to_the_end = long["source_only"] + long["warm-up"] + 3 * long["cag"]
    known = (long["source_only"], long["warm-up"], long["cag"], to_the_end, long["control"], long["oracle"])
    (row,) = (line for line in text.splitlines() if f"`{name}.yaml`" in line and line.count(" | ") == 7)
    assert row.strip("| ").split(" | ")[2:] == [f"{number:,}" for number in known]
    assert f"{to_the_end:,} iterations up to stage 3" in " ".join(
        file_of(name).read_text(encoding="utf-8").split("\n# ")
    )


@pytest.mark.parametrize(
    ("name", "added"),
    [("demo", "sweep"), ("demo_official", "sweep"), *((name, "sweep_paper") for name in (*BOTH, SYNTHIA)),
     *((name, "ablations") for name in ("demo", "demo_official", *BOTH, SYNTHIA))],
)  # fmt: skip
def test_the_runs_of_the_other_tables_can_be_added(name: str, added: str) -> None:
    """Each is a stage of cag as the experiment has it, of the same length."""
    merged = merge_all([read_merged(file_of(name)), read_merged(file_of(added))])
    config = parse_configuration(merged.values, Path(f"{name}+{added}"), merged.layers)
    own = [model for model in models(config) if model not in models(load_configuration(file_of(name)))]
    assert len(own) == 9 and all(config.runs[run].iterations == config.runs["cag"].iterations for run in own)
    assert {"ablations": "table4"}.get(added, "sweep") in config.tables
