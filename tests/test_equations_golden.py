"""The method against the outputs of the authors' functions on the same inputs."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from caguda.equations.anchors import class_sums, correctly_predicted, image_means
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels
from caguda.equations.losses import class_mean_distance_loss, cross_entropy
from caguda.equations.metrics import confusion_matrix, iou, mean_iou

SHARED = Path(os.environ.get("CAGUDA_SHARED") or Path(__file__).parents[1].parent / "shared")
FILES = sorted((SHARED / "golden").glob("official_seed*.npz")) or [SHARED / "golden" / "official_seed1.npz"]
MARGIN, P0 = 2.5, 0.95

Golden = dict[str, Tensor]


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    if not request.param.exists():
        pytest.skip(
            f"needs {request.param}; the environment variable CAGUDA_SHARED names the folder that holds golden/"
        )
    with np.load(request.param) as arrays:
        found = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    return found | {name: found[name].float() for name in ("features", "logits", "anchors")}


def test_anchors_give_the_same_labels_and_active_pixels(golden: Golden) -> None:
    anchors, gap = golden["anchors"], golden["gap_float64"]
    found = by_anchor(golden["features"], anchors, torch.ones(len(anchors), dtype=torch.bool), MARGIN)
    torch.testing.assert_close(found.margin.double(), gap, rtol=0, atol=1e-4)
    far = (gap - MARGIN).abs() > 1e-4
    assert far.float().mean() > 0.99
    assert torch.equal(found.active[far], golden["active_anchor"].bool()[far])
    labels = pseudo_labels(found.nearest, found.active)
    assert torch.equal(labels[far], golden["pl_anchor"][far])


def test_probabilities_give_the_same_labels_and_active_pixels(golden: Golden) -> None:
    found = by_probability(golden["logits"], P0)
    assert torch.equal(found.active, golden["active_prob"].bool())
    assert torch.equal(pseudo_labels(found.predicted, found.active), golden["pl_prob"])


@pytest.mark.parametrize(
    ("labels", "name"),
    [("labels", "ce_source"), ("pl_anchor", "ce_target_anchor"), ("pl_prob", "ce_target_prob")],
)
def test_cross_entropies_are_the_same(golden: Golden, labels: str, name: str) -> None:
    assert cross_entropy(golden["logits"], golden[labels]).mean().item() == pytest.approx(golden[name].item(), rel=1e-6)


def test_iou_is_the_same(golden: Golden) -> None:
    confusion = confusion_matrix(golden["logits"].argmax(1).byte(), golden["labels"], len(golden["anchors"]))
    assert iou(confusion).tolist() == pytest.approx(golden["iou"].tolist(), rel=1e-6)
    assert mean_iou(confusion).item() == pytest.approx(golden["miou"].item(), rel=1e-6)


def test_class_means_of_correct_pixels_are_the_same(golden: Golden) -> None:
    """The authors average, per image, pixels whose prediction is the label, in classes with at least 10 of them."""
    correct = correctly_predicted(golden["labels"], golden["logits"])
    ids, vectors = [], []
    for features, labels in zip(golden["features"].split(1), correct.split(1), strict=True):
        found = image_means(class_sums(features, labels, len(golden["anchors"])), at_least=10)
        ids += found.weights.nonzero().flatten().tolist()
        vectors.append(found.sums[found.weights > 0].float())
    assert ids == golden["official_class_mean_ids"].tolist()
    torch.testing.assert_close(torch.cat(vectors), golden["official_class_mean_vectors"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "name"),
    [("labels", "official_distance_loss_source"), ("pl_anchor", "official_distance_loss_target")],
)
def test_distance_losses_are_the_same(golden: Golden, labels: str, name: str) -> None:
    correct = correctly_predicted(golden[labels], golden["logits"])
    present = torch.ones(len(golden["anchors"]), dtype=torch.bool)
    found = class_mean_distance_loss(golden["features"], golden["anchors"], correct, present)
    assert found.mean().item() == pytest.approx(golden[name].item(), rel=1e-6)
