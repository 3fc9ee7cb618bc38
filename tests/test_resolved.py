"""`caguda config`: the whole experiment, where each value comes from, and the same experiment when it is read back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_runs import ROOT, SMOKE

from caguda.artifacts.atomic import write_json
from caguda.cli import main
from caguda.configfile import load_configuration

CONFIG = ROOT / "config"
YAMLS = [*sorted(CONFIG.glob("*.yaml")), SMOKE]


@pytest.fixture(autouse=True)
def _roots(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CAMVID_ROOT", "DATA_ROOT"):
        monkeypatch.setenv(variable, "/data with spaces: #1")


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """What the verb prints about some files."""

    def call(*files: Path) -> str:
        assert main(["config", *map(str, files)]) == 0
        return capsys.readouterr().out

    return call


def saved(folder: Path, text: str) -> Path:
    path = folder / "printed.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def leaf_lines(node: yaml.Node, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of the key of every value, and where a mapping is on one line, of that mapping."""
    found = {}
    for key, value in node.value:
        keys = (*above, key.value)
        if isinstance(value, yaml.MappingNode) and value.value:
            inner = leaf_lines(value, keys)
            found |= dict.fromkeys(inner, key.start_mark.line) if value.flow_style else inner
        else:
            found[keys] = key.start_mark.line
    return found


def origins(text: str) -> dict[tuple[str, ...], str]:
    """What the comment behind each value says."""
    lines = text.splitlines()
    places = leaf_lines(yaml.compose(text, Loader=yaml.SafeLoader))
    return {keys: lines[line].rpartition("  # ")[2] for keys, line in places.items()}


def leaves(values: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(values, dict) or not values:
        return {above: values}
    return {keys: leaf for key, inner in values.items() for keys, leaf in leaves(inner, (*above, key)).items()}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_what_is_printed_is_the_same_experiment_and_says_all_of_it(printed: Any, tmp_path: Path, path: Path) -> None:
    text = printed(path)
    again = saved(tmp_path, text)
    assert load_configuration(again) == load_configuration(path)
    whole = load_configuration(path).model_dump(mode="json")
    assert yaml.safe_load(text) == whole and list(yaml.safe_load(text)) == list(whole)
    assert origins(text).keys() == leaves(whole).keys()
    assert max(map(len, text.splitlines())) <= 120
    assert set(origins(printed(again)).values()) == {"printed.yaml"}


def test_the_workflows_json_is_taken(printed: Any, tmp_path: Path) -> None:
    made = load_configuration(SMOKE)
    write_json(tmp_path / "config.json", made.model_dump(mode="json"))
    text = printed(tmp_path / "config.json")
    assert load_configuration(saved(tmp_path, text)) == made and set(origins(text).values()) == {"config.json"}


def test_every_value_has_the_file_that_it_comes_from(printed: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {CONFIG / 'demo_official.yaml'}\nstages: {{count: 1}}\ncache: false\n")
    found = origins(printed(tmp_path / "own.yaml"))
    said = {
        "own.yaml": {"stages.count", "cache"},
        "demo_official.yaml": {"experiment", "anchors.min_pixels", "recipes.cag.distance", "losses.distance"},
        "demo.yaml": {"seeds", "losses.reduction", "stages.iterations", "street.photo"},
        "default": {"test", "stages.accumulate", "recipes.cag.renewed", "inference.flip", "start_from"},
    }
    for name, keys in said.items():
        assert {found[tuple(key.split("."))] for key in keys} == {name}
    assert set(found.values()) == set(said)


def test_several_files_are_merged_as_by_the_workflow(printed: Any, tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("seeds: [4]\nnetwork: {name: deeplab_v2, weights: none}\n")
    text = printed(CONFIG / "demo.yaml", tmp_path / "demo.yaml")
    found = origins(text)
    assert found["seeds",] == str(tmp_path / "demo.yaml"), "two files have one name"
    assert found["labels", "margin"] == str(CONFIG / "demo.yaml")
    assert yaml.safe_load(text)["network"] == {
        "name": "deeplab_v2", "backbone": "resnet101", "weights": "none", "normalisation": "imagenet"
    }  # fmt: skip


ODD = ["null", "1e5", "0x1F", "2024-01-01", "on", "a-b_c", "12"]


def test_names_and_paths_of_any_kind_come_back(printed: Any, tmp_path: Path) -> None:
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    weights = values["recipes"]["cag"]
    values["recipes"] = {name: weights for name in ODD}
    values["data_root"] = "a\nb\t\x1b[2J \x85 \u2028 'x' \"y\" # z: {1} ä 🚗"
    values["source"] |= {"root": "- a", "skip": [f"{number:05}" for number in range(40)], "list": "!x"}
    values["classes"] = [{"id": i, "name": f"c {i}: #{i}", "color": [i, 0, 0]} for i in range(30)]
    path = tmp_path / "odd  näme #1.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    text = printed(path)
    again = load_configuration(saved(tmp_path, text))
    assert again == load_configuration(path) and list(again.recipes) == ODD
    assert re.search("[^\n\x20-\x7eä🚗]", text) is None and "  # odd  näme #1.yaml" in text


def test_a_fault_is_one_line_and_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("base: none.yaml\n")
    (tmp_path / "more.yaml").write_text("labels: {margn: 1}\n")
    for files, words in (
        ([tmp_path / "own.yaml"], "own.yaml: base: "),
        ([SMOKE, tmp_path / "more.yaml"], f"labels.margn: unknown key, did you mean margin? (in {tmp_path}/more.yaml)"),
    ):
        assert main(["config", *map(str, files)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err
