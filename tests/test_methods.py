"""What methods of the package do beyond the equations that they are made of."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from caguda.equations.grid import labels_at
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels
from caguda.methods.cag_every_iteration import CagEveryIteration
from caguda.methods.self_training import SelfTraining
from caguda.methods.supervised import Supervised
from caguda.networks.layers.network import Outputs
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.stages.session import AnchorTensors


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(33, 49), (36, 52), (35, 50)])
def test_pseudo_labels_of_every_iteration_stay_with_their_features(size: tuple[int, int], align_corners: bool) -> None:
    """Losses take them to the resolution of f_D again: at any size of the image they are those that were made there."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 9, 13, generator=generator)
    logits = 5 * torch.randn(2, 3, 9, 13, generator=generator)
    anchors = AnchorTensors(torch.randn(3, 4, generator=generator), torch.ones(3, dtype=torch.bool), 2.0)
    rules = {"anchor": AnchorRule(margin=0.1, unit="mean_anchor_distance"), "probability": ProbabilityRule(p0=0.6)}
    method = CagEveryIteration.model_construct(pseudo_labels=rules)
    session: Any = SimpleNamespace(anchors=anchors, align_corners=align_corners)
    image = torch.zeros(2, 3, *size, dtype=torch.uint8)
    labels = method.target_labels(session, {"image": image}, Outputs(features, logits))
    anchored, probable = by_anchor(features, anchors.vectors, anchors.present, 0.2), by_probability(logits, 0.6)
    expected = (
        pseudo_labels(anchored.nearest, anchored.active),
        pseudo_labels(probable.predicted, probable.active),
    )
    for label, at_features in zip(labels, expected, strict=True):
        assert label.shape == (2, *size) and torch.equal(labels_at(label, (9, 13), align_corners), at_features)


@pytest.mark.parametrize(
    ("start", "statistics", "about"),
    [
        (None, False, "no adaptation"),
        (None, True, "source labels, target statistics"),
        ("warm-up", False, "source labels, from warm-up"),
        ("warm-up", True, "source labels, target statistics, from warm-up"),
    ],
)
def test_a_supervised_run_says_what_it_saw(start: str | None, statistics: bool, about: str) -> None:
    run = Supervised.model_construct(frames="source", start=start, target_statistics=statistics)
    assert run.about == about and run.adapts == statistics


def test_self_training_adds_its_losses_in_the_order_of_the_rules_names() -> None:
    """The order of the rules in the YAML is no difference between two runs, so it decides no bit."""
    generator = torch.Generator().manual_seed(0)
    maps = {f"{name}_label": torch.randint(0, 3, (2, 9, 13), generator=generator) for name in "abcd"}
    images = {"image": torch.randn(2, 3, 9, 13, generator=generator), "label": maps["a_label"]}
    session: Any = SimpleNamespace(
        outputs=lambda image: Outputs(image, image), reduced=lambda loss: loss.mean(), align_corners=False
    )
    results = []
    for names in ("abcd", "cdba"):
        method = SelfTraining.model_construct(pseudo_labels=dict.fromkeys(names), weight=0.3)
        _, (loss, terms) = method.step(session, {"source": images, "target": images | maps})
        assert list(terms) == [f"{name}_cross_entropy" for name in "abcd"]
        results.append(loss)
    assert torch.equal(*results)
