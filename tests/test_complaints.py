"""Whatever stands in place of a value: it is taken, or one line in plain words says what must be there."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from caguda.complaints import LONGEST
from caguda.configfile import FAULTS_SHOWN, load_configuration, parse_configuration, read_configuration
from caguda.errors import UserError
from caguda.merging import Merged
from caguda.runs import models

ROOT = Path(__file__).parents[1]
OURS = re.compile(r"Input should|valid (tuple|string|integer|number|dict)|pydantic|Value error|Traceback")
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
WRONG: list[Any] = [
    None, "", "many", -1, 0, 1.5, 10**12, 2**64, 10**400, 1e-9, 1e300, float("nan"), float("inf"), True, [], [1], [1, 2, 3, 4, 5],
    ["a", "b"], [None, -1], {}, {"a": 1}, {1: 2}, "x" * 500, [[1]], "a\nb", [0, 0.5], [1e9, 1e9],
]  # fmt: skip


def everything() -> dict[str, Any]:
    """An experiment with every section."""
    values = copy.deepcopy(DEMO)
    augmentation = {"flip": True, "scale": [1.0, 1.5], "crop": [64, 64], "color_jitter": 0.1, "blur": 0.1}
    optimiser = {"momentum": 0.9, "poly_power": 0.9, "poly_iterations": 10**6}
    values["training"] |= {"accumulate": 1, "reduction": "mean", "augmentation": dict(augmentation)}
    values["training"]["optimiser"] |= optimiser
    for run in values["runs"].values():
        if "method" in run:
            run |= {
                "augmentation": dict(augmentation),
                "accumulate": 1,
                "target_statistics": True,
                "batch_norm": "train",
            }
            run["optimiser"] = {"name": "sgd", "learning_rate": 0.1, **optimiser}
    values["runs"]["cag"] |= {
        "distance": {"norm": "l2", "pixels": "all", "unit": "absolute", "target_labels": "anchor"},
        "target_resolution": "image", "note": "a note", "target_augmentation": dict(augmentation),
    }  # fmt: skip
    values["runs"]["warm-up"]["discriminator"]["input"] = "features"
    values["runs"]["brought"] = {"method": "imported", "file": "a.safetensors", "title": "from elsewhere"}
    values["runs"]["plain"] = {"method": "supervised", "iterations": 1}
    values["classes"] = [{"id": i, "name": f"c{i}", "color": [i, 0, 0]} for i in range(3)]
    values["inference"] = {"scales": [1.0, 0.5], "flip": False}
    values["anchors"] = {"pixels": "all", "mean": "images", "min_pixels": 1, "every_stage": True}
    values["compute"] = {
        "threads": 1, "workers": 0, "processes": 1, "parts": 1, "precision": "float32", "inference_batch_size": 8,
        "save_every": 50,
    }  # fmt: skip
    values["test"] = {"layout": "cityscapes", "split": "test", "labels": None, "skip": ["a"]}
    return values


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value at any depth."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def complained(values: Any) -> str:
    """The message about an experiment, empty where it is taken; anything but a UserError goes through."""
    try:
        parse_configuration(values, Path("own.yaml"))
    except UserError as error:
        return str(error)
    return ""


def test_the_experiment_with_every_section_is_sound() -> None:
    assert complained(everything()) == ""
    assert len(list(places(everything()))) > 200


@pytest.mark.parametrize("place", list(places(everything())), ids=lambda place: ".".join(map(str, place)))
def test_a_wrong_value_is_named_in_plain_words(place: tuple[Any, ...]) -> None:
    refused = 0
    for wrong in WRONG:
        values = everything()
        node = values
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = wrong
        message = complained(values)
        assert "\n" not in message and not OURS.search(message), message
        assert len(message) < 300 + FAULTS_SHOWN * (LONGEST + 100), message
        assert not message or message.startswith("own.yaml: "), message
        refused += bool(message)
    assert refused > 0


@pytest.mark.parametrize(
    "key", ["network.name", "source.layout", "runs.odd.method", "runs.odd.stages", "runs.odd.start"]
)
def test_a_wrong_value_is_named_in_plain_words_where_no_plugin_is_run(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Who looks at artifacts lets names through that only a plugin knows, and nothing else."""
    *way, last = key.split(".")
    for wrong in WRONG:
        values = everything()
        values["runs"]["odd"] = {"method": "of_a_plugin", "stages": 2, "start": "cag/stage2", "whatever": [1]}
        node = values
        for part in way:
            node = node[part]
        node[last] = wrong
        monkeypatch.setattr("caguda.configfile.read_merged", lambda _, values=values: Merged(values, ()))
        try:
            found = read_configuration(Path("own.yaml"))
        except UserError as error:
            message = str(error)
            assert "\n" not in message and not OURS.search(message) and key.partition(".")[0] in message, message
        else:
            assert isinstance(wrong, str) or last in ("stages", "start")
            assert {"odd/stage1", "odd/stage2"} < set(models(found)) or last == "stages"


def test_many_faults_are_told_in_part_and_counted() -> None:
    message = complained({**everything(), "training": {}, "seeds": [], "street": {}, "network": {}, "compute": 3})
    assert message.count("; ") == FAULTS_SHOWN and re.search(r"; and \d+ more$", message)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("runs.cag.augmentation.crop", "big", "must be a list, found 'big'"),
        ("runs.cag.augmentation.crop", [1], "runs.cag.augmentation.crop.1: must be given"),
        ("runs.cag.augmentation.crop", [1, 2, 3], "must be a list of 2, found [1, 2, 3]"),
        ("runs.cag.augmentation.crop", [10**6, 1], "crop.0: must be at most 16384, found 1000000"),
        ("runs.cag.augmentation.scale", [1e-9, 1], "scale.0: must be at least 0.01, found 1e-09"),
        ("runs.cag.augmentation.blur", 1e9, "must be at most 100.0"),
        ("runs.cag.augmentation.color_jitter", 1e9, "must be at most 10.0"),
        ("runs.cag.augmentation.flip", "perhaps", "must be true or false, found 'perhaps'"),
        ("runs.cag.optimiser", 3, "runs.cag.optimiser: must be keys with values, found 3"),
        ("runs.cag.optimiser.learning_rate", 0, "must be greater than 0.0, found 0"),
        ("runs.cag.iterations", 10**12, "must be at most 1000000000"),
        ("network.width", 10**9, "network.width: must be at most 4096, found 1000000000"),
        ("network.feature_channels", 0, "must be at least 1, found 0"),
        ("compute.threads", 10**6, "must be at most 4096"),
        ("seeds", [2**63], "seeds.0: must be less than 4294967296"),
        ("street.seed", -1, "street.seed: must be at least 0, found -1"),
        ("street.strength", float("nan"), "must be a finite number"),
        ("compute.precision", "double", "must be one of 'float32', 'bfloat16', 'float16', found 'double'"),
        ("data_root", 3, "must be text, found 3; put it in quotes"),
        ("seeds", 3, "seeds: must be a list, found 3"),
        ("runs.brought.file", 3, "runs.brought.file: must be text, found 3; put it in quotes"),
        ("runs.cag.method", ["cag"], "runs.cag.method: must be one of imported, adaptsegnet, "),
        (
            "runs.cag.start",
            "warm-up/stage0",
            "that begins with a letter or digit, or RUN/stageK, found 'warm-up/stage0'",
        ),
        (
            "training.optimiser.learning_rate",
            0,
            "runs.plain.optimiser.learning_rate: must be greater than 0.0, found 0 (in training)",
        ),
        ("experiment", "../x", "must be a name of letters, digits"),
    ],
)
def test_what_is_said(key: str, value: Any, said: str) -> None:
    values = everything()
    *way, last = key.split(".")
    node = values
    for part in way:
        node = node[part]
    node[last] = value
    assert said in complained(values)


@pytest.mark.parametrize("text", ["a:\n\t- b\n", "", "- a\n", "a: [1\n", "just words\n", "3\n", "a: {b: c\n"])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_configuration(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
