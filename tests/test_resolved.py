"""`caguda config`: the whole experiment, where each value comes from, and the same experiment when it is read back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_runs import ROOT, SMOKE

from caguda.artifacts.atomic import write_json
from caguda.cli import main
from caguda.configfile import load_configuration, read_merged

CONFIG = ROOT / "config"
YAMLS = [*(path for path in sorted(CONFIG.glob("*.yaml")) if "experiment" in read_merged(path).values), SMOKE]


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
    texts = {f"{'  ' * (len(keys) - 1)}{keys[-1]}: " for keys, value in leaves(whole).items() if isinstance(value, str)}
    long = [line for line in text.splitlines() if len(line) > 120]
    assert all(line.startswith(tuple(texts)) for line in long)
    assert set(origins(printed(again)).values()) == {"printed.yaml"}
    assert printed(saved(tmp_path, printed(again))) == printed(again)


def test_the_workflows_json_is_taken(printed: Any, tmp_path: Path) -> None:
    made = load_configuration(SMOKE)
    write_json(tmp_path / "config.json", made.model_dump(mode="json"))
    text = printed(tmp_path / "config.json")
    assert load_configuration(saved(tmp_path, text)) == made and set(origins(text).values()) == {"config.json"}


def test_every_value_has_the_file_that_it_comes_from(printed: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        f"base: {CONFIG / 'demo_official.yaml'}\nruns: {{cag: {{iterations: 1}}, oracle: {{title: best}}}}\ncache: false\n"
        "training: {batch_norm: frozen}\n"
    )
    found = origins(printed(tmp_path / "own.yaml"))
    said = {
        "own.yaml": {"runs.cag.iterations", "runs.oracle.title", "cache", "training.batch_norm"},
        "own.yaml: training": {"runs.cag.batch_norm", "runs.oracle.batch_norm"},
        "demo_official.yaml": {
            "experiment",
            "anchors.min_pixels",
            "runs.cag.weights.distance",
            "runs.cag.distance.norm",
        },
        "demo.yaml": {"seeds", "runs.cag.stages", "runs.warm-up.iterations", "runs.oracle.frames", "street.photo"},
        "demo.yaml: runs.source_only": {
            "runs.oracle.iterations",
            "runs.oracle.optimiser.learning_rate",
            "runs.oracle.method",
        },
        "demo.yaml: training": {
            "runs.cag.optimiser.name",
            "runs.oracle.batch_size",
            "runs.oracle.optimiser.weight_decay",
        },
        "default": {"test", "runs.cag.accumulate", "runs.cag.reduction", "inference.flip", "runs.source_only.title"},
    }
    for name, keys in said.items():
        assert {found[tuple(key.split("."))] for key in keys} == {name}
    assert set(found.values()) == set(said)


def test_a_value_of_a_run_has_the_place_that_it_comes_from(printed: Any, tmp_path: Path) -> None:
    """Its own entry before those of the runs that it is like, the nearest first, these before `training`; what they replace is none."""
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    values["training"] |= {"accumulate": 2, "augmentation": {"blur": 0.5}, "target_augmentation": {"flip": True}}
    values["training"]["optimiser"] |= {"momentum": 0.8}
    values["runs"] = {
        "first": {"method": "supervised", "title": "T", "note": "N", "iterations": 7, "augmentation": {"flip": True}},
        "second": {"like": "first", "batch_size": 8, "target_augmentation": None},
        "third": {"like": "second", "batch_size": 9, "optimiser": {"name": "sgd", "learning_rate": 1}, "reduction": "mean"},
        "brought": {"method": "imported", "file": "x.safetensors"},
    }  # fmt: skip
    del values["reports"], values["tables"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    found = {".".join(keys[1:]): said for keys, said in origins(printed(path)).items() if keys[0] == "runs"}
    expected = {
        "first.title": "own.yaml", "second.title": "default", "third.note": "default", "third.method": "own.yaml: runs.first",
        "second.batch_size": "own.yaml", "third.batch_size": "own.yaml", "first.batch_size": "own.yaml: training",
        "third.iterations": "own.yaml: runs.first", "third.accumulate": "own.yaml: training", "first.optimiser.momentum": "own.yaml: training",
        "third.optimiser.name": "own.yaml", "third.optimiser.momentum": "default", "third.optimiser.weight_decay": "default",
        "second.optimiser.name": "own.yaml: training", "third.reduction": "own.yaml", "second.reduction": "default",
        "third.augmentation.flip": "own.yaml: runs.first", "third.augmentation.blur": "own.yaml: training",
        "third.augmentation.crop": "default", "second.target_augmentation": "own.yaml",
        "third.target_augmentation": "own.yaml: runs.second", "first.target_augmentation.flip": "own.yaml: training",
        "brought.file": "own.yaml", "brought.title": "default",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_a_key_of_a_replaced_section_is_no_origin(printed: Any, tmp_path: Path) -> None:
    """The base's network has this key too, but nothing of it is left."""
    path = tmp_path / "own.yaml"
    path.write_text(f"base: {SMOKE}\nnetwork: {{normalisation: unit}}\n")
    (tmp_path / "top.yaml").write_text("base: own.yaml\nnetwork: {name: deeplab_v2, weights: none}\n")
    found = origins(printed(tmp_path / "top.yaml"))
    assert {keys[1]: said for keys, said in found.items() if keys[0] == "network"} == {
        "name": "top.yaml", "normalisation": "default", "align_corners": "default",
        "backbone": "default", "weights": "top.yaml",
    }  # fmt: skip


def test_several_files_are_merged_as_by_the_workflow(printed: Any, tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("seeds: [4]\nnetwork: {name: deeplab_v2, weights: none}\n")
    text = printed(CONFIG / "demo.yaml", tmp_path / "demo.yaml")
    found = origins(text)
    assert found["seeds",] == str(tmp_path / "demo.yaml"), "two files have one name"
    assert found["runs", "warm-up", "weight"] == str(CONFIG / "demo.yaml")
    assert found["runs", "warm-up", "batch_size"] == f"{CONFIG / 'demo.yaml'}: training"
    assert yaml.safe_load(text)["network"] == {
        "name": "deeplab_v2", "backbone": "resnet101", "weights": "none", "normalisation": "imagenet",
        "align_corners": False,
    }  # fmt: skip


ODD = ["null", "1e5", "0x1F", "2024-01-01", "on", "a-b_c", "12"]


def test_names_and_paths_of_any_kind_come_back(printed: Any, tmp_path: Path) -> None:
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    values["runs"] |= {name: {"like": "cag", "title": f"{name}: #1", "note": "x" * 200} for name in ODD}
    values["data_root"] = "a\nb\t\x1b[2J \x85 \u2028 'x' \"y\" # z: {1} ä 🚗"
    values["source"] |= {"root": "- a", "skip": [f"{number:05}" for number in range(40)], "list": "!x"}
    values["classes"] = [{"id": i, "name": f"c {i}: #{i}", "color": [i, 0, 0]} for i in range(30)]
    path = tmp_path / "odd  näme #1.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    text = printed(path)
    again = load_configuration(saved(tmp_path, text))
    assert again == load_configuration(path) and list(again.runs)[-len(ODD) :] == ODD
    assert re.search("[^\n\x20-\x7eä🚗]", text) is None and "  # odd  näme #1.yaml" in text


def test_a_fault_is_one_line_and_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("base: none.yaml\n")
    (tmp_path / "more.yaml").write_text("anchors: {man: 1}\n")
    for files, words in (
        ([tmp_path / "own.yaml"], "own.yaml: base: "),
        ([SMOKE, tmp_path / "more.yaml"], f"anchors.man: unknown key, did you mean mean? (in {tmp_path}/more.yaml)"),
    ):
        assert main(["config", *map(str, files)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err
