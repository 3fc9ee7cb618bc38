"""Every fault of a YAML is one line that names the file and the key."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from caguda.config_run import Method
from caguda.configfile import load_configuration, parse_configuration, read_merged
from caguda.errors import UserError
from caguda.merging import merge_all

CONFIG = Path(__file__).parents[1] / "config"


def demo() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CONFIG / "demo.yaml").read_text(encoding="utf-8"))
    return values


def set_key(values: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_configuration(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


CLASSES = [{"id": 0, "name": "sky", "color": [0, 0, 0]}, {"id": 1, "name": "road", "color": [9, 9, 9]}]


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_published_configurations_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CAMVID_ROOT", "GTA5_ROOT", "CITYSCAPES_ROOT", "DATA_ROOT"):
        monkeypatch.setenv(variable, "/data")
    if "experiment" in read_merged(path).values:
        assert load_configuration(path).experiment
        return
    commands = re.findall(r"^#.* --configfile (\S+) (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands and {part for _, part in commands} == {f"config/{path.name}"}
    for files in commands:
        merged = merge_all(read_merged(CONFIG.parent / file) for file in files)
        assert parse_configuration(merged.values, path, merged.layers).tables


def test_resolved_configuration_is_read_back_unchanged(tmp_path: Path) -> None:
    configuration = load_configuration(CONFIG / "demo.yaml")
    path = tmp_path / "config.json"
    path.write_text(configuration.model_dump_json(), encoding="utf-8")
    assert load_configuration(path) == configuration


@pytest.mark.parametrize("name", ["demo", "gta5_cityscapes_official"])
def test_another_process_gets_the_same_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")
    configuration = load_configuration(CONFIG / f"{name}.yaml")
    sent = pickle.loads(pickle.dumps(configuration))
    assert sent == configuration and type(sent.network) is type(configuration.network)
    assert list(map(type, sent.runs.values())) == list(map(type, configuration.runs.values()))


def test_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text."""
    values = demo()
    set_key(values, "runs.source_only.optimiser.learning_rate", 12345)
    path = written(tmp_path, yaml.safe_dump(values).replace("12345", "1e-4"))
    run = load_configuration(path).runs["source_only"]
    assert isinstance(run, Method) and run.optimiser.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "runs.cag.pseudo_labels.anchor.margn",
            0.1,
            "runs.cag.pseudo_labels.anchor.margn: unknown key, did you mean margin?",
        ),
        (
            "runs.cag.pseudo_labels.ancor",
            {"margin": 0.1},
            "runs.cag.pseudo_labels.ancor: must be one of anchor, class_balanced, class_quantile, probability, did you mean anchor?",
        ),
        ("runs.cag.metod", "cag", "runs.cag.metod: unknown key, did you mean method?"),
        ("datta_root", "x", "datta_root: unknown key, did you mean data_root?"),
        ("source.lables", "x", "source.lables: unknown key, did you mean labels?"),
        ("runs.cag.weights.distnce", 1, "runs.cag.weights.distnce: unknown key, did you mean distance?"),
        ("runs.cag.optimiser.zzz", 1, "runs.cag.optimiser.zzz: unknown key"),
        ("training.optimizer.name", "sgd", "training.optimizer: unknown key, did you mean optimiser?"),
        ("training.start", "cag", "training.start: unknown key"),
        ("training", [1], "training: must be keys with values, found [1]"),
        ("training.optimiser.zzz", 1, "runs.cag.optimiser.zzz: unknown key (in training)"),
        ("training.batch_size", 0, "runs.cag.batch_size: must be at least 1, found 0 (in training)"),
        ("runs.source_only.iterations", 0, "runs.oracle.iterations: must be at least 1, found 0 (in runs.source_only)"),
        ("runs.a/b", {"like": "cag"}, "runs.a/b: must be a name of letters, digits, _ and -"),
        ("runs.cag", {"iterations": 1}, "runs.cag.method: this key is required"),
        ("runs.cag", 3, "runs.cag: must be keys with values, found 3"),
        ("runs.cag.method", "adversarail", "runs.cag.method: must be one of imported, adaptsegnet, "),
        ("runs.cag.method", None, "runs.cag.method: must be one of imported, adaptsegnet, "),
        ("runs.cag.method", "supervised", "runs.cag.weights: unknown key"),
        ("runs.control.iterations", "many", "runs.control.iterations: must be a whole number, found 'many'"),
        ("runs.control.iterations", 0, "runs.control.iterations: must be at least 1, found 0"),
        ("runs.cag.batch_norm", "sync", "runs.cag.batch_norm: must be one of 'train', 'frozen', found 'sync'"),
        (
            "runs.cag.pseudo_labels.probability.p0",
            1.5,
            "runs.cag.pseudo_labels.probability.p0: must be at most 1.0, found 1.5",
        ),
        ("runs.cag.pseudo_labels.anchor.margin", float("nan"), "runs.cag.pseudo_labels.anchor.margin: "),
        (
            "runs.cag.pseudo_labels.probability",
            None,
            "runs.cag.pseudo_labels.probability: must be keys with values, found None",
        ),
        ("runs.cag.pseudo_labels", "anchor", "runs.cag.pseudo_labels: must be keys with values, found 'anchor'"),
        (
            "runs.cag.pseudo_labels",
            {"anchor": {"margin": 0.1, "unit": "absolute"}},
            "runs.cag.pseudo_labels: must be the rules anchor and probability, found anchor",
        ),
        ("runs.cag.augmentation.scale", [2.0, 0.5], "runs.cag.augmentation.scale: the smaller factor comes first"),
        ("runs.cag.stages", 0, "runs.cag.stages: must be at least 1, found 0"),
        ("runs.cag.title", "=1+1", "runs.cag.title: must not begin as a formula of a spreadsheet does, found '=1+1'"),
        ("runs.cag.note", "one\ntwo", "runs.cag.note: must be one line without control characters, found "),
        ("runs.control.frames", "both", "runs.control.frames: must be one of 'source', 'target', found 'both'"),
        ("runs.more", {"method": "imported"}, "runs.more.file: this key is required"),
        (
            "runs.more",
            {"method": "imported", "file": "a", "iterations": 1},
            "runs.more.iterations: unknown key",
        ),
        ("reports.cag", [], "reports.cag: must be at least 1 of them, found []"),
        ("reports.a b", ["cag"], "reports.a b: must be a name of letters, digits, _ and -"),
        ("tables.table5", ["cag"], "tables.table5: must be one of 'table1', 'table2', 'table3', 'table4', 'sweep'"),
        ("tables.table1", "cag", "tables.table1: must be a list, found 'cag'"),
        ("seeds", [], "seeds: "),
        ("seeds", [0, 0], "seeds: every seed must occur once, found more than once: 0"),
        ("runs", {}, "runs: must be at least 1 of them, found {}"),
        ("source.skip", [15188], "source.skip.0: must be text, found 15188; put it in quotes"),
        ("source.split", "train", "source.split: layout gta5 has no splits, found 'train'"),
        ("target.split", None, "target.split: layout cityscapes needs the name of a split"),
        ("target.labels", "gt", "target.images, labels: layout cityscapes has folders of its own"),
        (
            "target.labels",
            "labelIds",
            "target.images, labels: layout cityscapes has folders of its own, leave the keys out (or labels: labelTrainIds",
        ),
        (
            "source",
            {"layout": "synthia", "images": "RGB"},
            "source.images, labels: layout synthia has folders of its own",
        ),
        (
            "source",
            {"layout": "synthia", "labels": "labelTrainIds"},
            "source.images, labels: layout synthia has folders",
        ),
        (
            "source",
            {"layout": "synthia", "split": "train"},
            "source.split: layout synthia has no splits, found 'train'",
        ),
        ("source.labels", None, "source.labels: the source set needs labels"),
        ("classes", "cityscapes", "classes: must be one of 'cityscapes19', 'cityscapes16', 'cityscapes13', found"),
        ("classes", CLASSES[:1], "classes: a table needs 2 to 254 categories, found 1"),
        ("classes", CLASSES + CLASSES[:1], "classes: every id must occur once, found more than once: 0"),
        ("classes", [{**CLASSES[0], "id": 5}, CLASSES[0]], "classes: every name must occur once"),
        ("classes", [CLASSES[0], {"id": 1, "name": "road"}], "classes.1.color: this key is required"),
        ("classes", [CLASSES[0], {**CLASSES[1], "color": [0, 0, 256]}], "classes.1.color.2: "),
        ("classes", [{**entry, "id": i + 254} for i, entry in enumerate(CLASSES)], "ignore: value 255 is a category"),
        ("ignore", [34], "ignore: cityscapes19 knows its void values"),
        ("experiment", "a/b", "experiment: "),
        ("network.widht", 3, "network.widht: unknown key, did you mean width?"),
        ("network.width", 0, "network.width: must be at least 1, found 0"),
        ("network.name", "deeplab", "network.name: must be one of 'deeplab_v2', 'deeplab_v3plus', 'small', found"),
        ("network", {"width": 3}, "network.name: this key is required"),
        ("network", {"name": "deeplab_v2", "backbone": "vgg16"}, "network.backbone: must be one of 'resnet50', "),
        (
            "compute.processes",
            3,
            "runs.cag.batch_size: must be a multiple of compute.processes, found 4 (in training)",
        ),
        (
            "runs.cag.optimiser.poly_iterations",
            9,
            "runs.cag.optimiser.poly_iterations: must reach the training's 150, found 9",
        ),
        ("anchors.min_pixels", 10, "anchors.min_pixels: a minimum per image needs mean: images, found 10 without it"),
        ("inference", {"scales": []}, "inference.scales: "),
        ("inference", {"scales": [1.0, 0.0]}, "inference.scales.1: must be at least 0.01, found 0.0"),
        (
            "inference",
            {"scales": [1.0, 1.0]},
            "inference.scales: every scale must occur once, found more than once: 1.0",
        ),
        ("inference", {"flips": True}, "inference.flips: unknown key, did you mean flip?"),
        ("test", {"layout": "cityscapes"}, "test.split: layout cityscapes needs the name of a split"),
        ("runs.cag.reduction", "none", "runs.cag.reduction: must be one of 'mean', 'sum', found 'none'"),
        ("street", 3, "street: "),
    ],
)
def test_fault_names_file_and_key(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    values = demo()
    set_key(values, key, value)
    found = message(written(tmp_path, yaml.safe_dump(values)))
    assert found.startswith(expected)
    assert ";" not in found.removeprefix(expected) or "quotes" in expected or "use the key" in found


def test_missing_key_is_named(tmp_path: Path) -> None:
    values = demo()
    del values["runs"]["cag"]["pseudo_labels"]["probability"]["p0"]
    expected = "runs.cag.pseudo_labels.probability.p0: this key is required"
    assert message(written(tmp_path, yaml.safe_dump(values))) == expected
    del values["training"]["batch_norm"], values["runs"]["cag"]["weights"]
    found = message(written(tmp_path, yaml.safe_dump(values)))
    assert found == "; ".join(f"runs.{name}.batch_norm: this key is required" for name in sorted(values["runs"]))


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = (CONFIG / "demo.yaml").read_text(encoding="utf-8") + "\ntables: {}\n"
    assert message(written(tmp_path, text)).startswith("tables: this key occurs twice")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the configuration is empty"),
        ("- 1", "the file must hold keys and values, found a list"),
        ("a: [1", "this is not YAML: "),
        ("a:\n\t- b", "this is not YAML: "),
    ],
)
def test_file_that_is_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    assert message(written(tmp_path, text)).startswith(expected)


def test_absent_file(tmp_path: Path) -> None:
    assert "found: No such file or directory; correct the name" in message(tmp_path / "none.yaml")


def test_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("experiment: é".encode("latin-1"))
    assert "UTF-8" in message(path)


def test_environment_variable_is_expanded_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, yaml.safe_dump(demo() | {"data_root": "${SOME_FRAMES}/day"}))
    monkeypatch.delenv("SOME_FRAMES", raising=False)
    assert message(path).startswith("data_root: ${SOME_FRAMES}/day names an environment variable that is not set")
    monkeypatch.setenv("SOME_FRAMES", "/data with spaces")
    assert load_configuration(path).root == Path("/data with spaces/day")
