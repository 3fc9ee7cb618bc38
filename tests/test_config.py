"""Every fault of a YAML is one line that names the file and the key."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from caguda.configfile import load_configuration
from caguda.errors import UserError

CONFIG = Path(__file__).parents[1] / "config"


def demo() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CONFIG / "demo.yaml").read_text(encoding="utf-8"))
    return values


def set_key(values: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values[part]
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
    assert load_configuration(path).experiment


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


def test_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text."""
    values = demo()
    set_key(values, "pretrain.optimiser.learning_rate", 12345)
    path = written(tmp_path, yaml.safe_dump(values).replace("12345", "1e-4"))
    assert load_configuration(path).pretrain.optimiser.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("labels.margn", 0.1, "labels.margn: unknown key, did you mean margin?"),
        ("datta_root", "x", "datta_root: unknown key, did you mean data_root?"),
        ("source.lables", "x", "source.lables: unknown key, did you mean labels?"),
        ("recipes.cag.distnce", 1, "recipes.cag.distnce: unknown key, did you mean distance?"),
        ("pretrain.optimiser.zzz", 1, "pretrain.optimiser.zzz: unknown key"),
        (
            "recipes",
            {"oracle": {"distance": 0, "anchor_cross_entropy": 0, "probability_cross_entropy": 0}},
            "recipes: oracle is a folder of other results",
        ),
        ("pretrain.iterations", "many", "pretrain.iterations: must be a whole number, found 'many'"),
        ("pretrain.iterations", 0, "pretrain.iterations: must be at least 1, found 0"),
        ("warmup.batch_norm", "sync", "warmup.batch_norm: must be one of 'train', 'frozen', found 'sync'"),
        ("labels.p0", 1.5, "labels.p0: must be at most 1.0, found 1.5"),
        ("labels.margin", float("nan"), "labels.margin: "),
        ("pretrain.augmentation.scale", [2.0, 0.5], "pretrain.augmentation.scale: the smaller factor comes first"),
        ("seeds", [], "seeds: "),
        ("seeds", [0, 0], "seeds: every seed must occur once, found more than once: 0"),
        ("recipes", {}, "recipes: "),
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
        ("compute.processes", 3, "pretrain.batch_size: must be a multiple of compute.processes, found 4"),
        (
            "stages.optimiser.poly_iterations",
            9,
            "stages.optimiser.poly_iterations: must reach the training's 150, found 9",
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
        ("losses.reduction", "none", "losses.reduction: must be one of 'mean', 'sum', found 'none'"),
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
    del values["labels"]["p0"]
    assert message(written(tmp_path, yaml.safe_dump(values))) == "labels.p0: this key is required"


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = (CONFIG / "demo.yaml").read_text(encoding="utf-8") + "\nrecipes: {}\n"
    assert message(written(tmp_path, text)).startswith("recipes: this key occurs twice")


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
