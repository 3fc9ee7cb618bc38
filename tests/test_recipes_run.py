"""Both published recipes run from fresh weights to the scores of a stage, on small frames and with a smaller backbone."""

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
from caguda.stages.supervised import pretrain
from caguda.stages.warmup import warmup

CONFIG = Path(__file__).parents[1] / "config"


def small(recipe: str, root: Path) -> Configuration:
    """A recipe with the sizes of a miniature, and whatever else it says."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / f"gta5_cityscapes_{recipe}.yaml").read_text(encoding="utf-8"))
    content["data_root"] = str(root)
    for name, folder in (("source", "source"), ("target", "target"), ("evaluation", "target")):
        content[name]["root"] = folder
    content["network"] |= {"backbone": "resnet50", "weights": "none"}
    for name in ("pretrain", "warmup", "stages"):
        content[name] |= {"iterations": 2, "batch_size": min(content[name]["batch_size"], 2)}
        content[name]["optimiser"] |= {"learning_rate": 1e-6}
        for augmentation in {"augmentation", "target_augmentation"} & content[name].keys():
            content[name][augmentation] |= {"crop": [32, 64]}
    content["warmup"]["discriminator_width"] = 4
    content["labels"]["margin"] = 1e-3  # random weights keep features close to each other
    content["anchors"]["pixels"] = content["losses"]["distance_pixels"] = "all"  # and predict one category alone
    content["compute"] |= {"processes": 1, "workers": 0}
    return parse_configuration(content, Path(recipe))


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "size"), [("paper", (4, 8)), ("official", (8, 16))])
def test_a_recipe_runs_to_the_scores_of_a_stage(elsewhere: Miniature, recipe: str, size: tuple[int, int]) -> None:
    configuration = small(recipe, elsewhere.root)
    check(configuration, elsewhere.manifest)
    source_only = elsewhere.train(pretrain, "pretrain", configuration)
    warm = elsewhere.train(warmup, "warmup", configuration, initial=source_only)
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
