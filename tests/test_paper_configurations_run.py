"""Both published configurations run from fresh weights to the scores of a stage, on small frames and with a smaller backbone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import Miniature

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.checkpoint import load_checkpoint
from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.stages.check import check
from caguda.stages.evaluate import evaluate
from caguda.stages.labelling import open_labelling

CONFIG = Path(__file__).parents[1] / "config"


def small(name: str, root: Path) -> Configuration:
    """A configuration with the sizes of a miniature, and whatever else it says."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / f"gta5_cityscapes_{name}.yaml").read_text(encoding="utf-8"))
    content["data_root"] = str(root)
    for key, folder in (("source", "source"), ("target", "target"), ("evaluation", "target")):
        content[key]["root"] = folder
    content["network"] |= {"backbone": "resnet50", "weights": "none"}
    runs = content["runs"]
    for settings in (content["training"], *runs.values()):
        if "iterations" in settings:
            settings["iterations"] = 2
        if "batch_size" in settings:
            settings["batch_size"] = min(settings["batch_size"], 2)
        if "learning_rate" in settings.get("optimiser", {}):
            settings["optimiser"]["learning_rate"] = 1e-6
        for augmentation in ("augmentation", "target_augmentation"):
            if settings.get(augmentation):
                settings[augmentation]["crop"] = [32, 64]
    runs["warm-up"]["discriminator"]["width"] = 4
    runs["cag"]["pseudo_labels"]["anchor"]["margin"] = 1e-3  # random weights keep features close to each other
    content["anchors"]["pixels"] = runs["cag"]["distance"]["pixels"] = "all"  # and predict one category alone
    content["compute"] |= {"processes": 1, "workers": 0}
    return parse_configuration(content, Path(name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("paper", (4, 8)), ("official", (8, 16))])
def test_a_configuration_runs_to_the_scores_of_a_stage(elsewhere: Miniature, name: str, size: tuple[int, int]) -> None:
    configuration = small(name, elsewhere.root)
    check(configuration, elsewhere.manifest)
    source_only = elsewhere.train("source_only", "source_only", configuration)
    warm = elsewhere.train("warm-up", "warm-up", configuration, start=source_only)
    labels = elsewhere.label("labels", configuration, warm)
    anchors, _ = load_anchors(labels.with_name("anchors.h5"))
    assert anchors.vectors.shape == (19, 256)
    store = open_labelling(labels)
    assert store.shape == size and (store.read(0).active & 1).any()
    weights = elsewhere.stage("stage", configuration, warm, labels)
    _, description = load_checkpoint(weights)
    assert description["architecture"]["name"] == configuration.network.name
    terms = description["metrics"]["history"][-1]
    assert terms["source_distance"] > 0 and terms["anchor_cross_entropy"] > 0
    output = elsewhere.folder / "evaluation.json"
    evaluate(configuration, elsewhere.manifest, weights, output)
    assert 0 <= json.loads(output.read_text())["as_trained"]["miou"] < 1
