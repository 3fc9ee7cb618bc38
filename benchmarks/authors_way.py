"""A training step as the authors' released code takes it, for `step.py` to measure ours against.

The way is theirs (models/adaptation_model.py at commit 422f99e), the values are ours, to rounding: where their arithmetic
is another one by choice, it is that of the configuration which is computed, in their manner:

- a frozen copy of the network runs on the target's crop in every step, and labels it there (line 271);
- labels come category by category, each with a plane of its own in a copy of all logits (lines 43 and 61);
- a distance loss comes image by image and category by category, of one-hot planes, each with a copy of the whole
  feature map (lines 247 and 321). That of single pixels, which they do not have, is written likewise;
- the graphs of both domains are held until the sum is differentiated (line 307);
- float32, and NCHW in memory.

Left out is what they count only to print it: accuracies against the target's labels, on the CPU (line 67).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from caguda.equations import IGNORE
from caguda.equations.losses import objective
from caguda.methods.cag import Cag, Weights
from caguda.stages.session import Batch, Objective, Session
from caguda.stages.training import Step

AT_LEAST = 10


def authors_step(session: Session, method: Cag, labelling: nn.Module, thresholds: Mapping[str, float]) -> Step:
    """The step of an iteration, with the terms of `caguda.methods.cag`; means over pixels or class means."""
    network, anchors, choice = session.data_parallel("network"), session.anchors, method.distance
    assert (method.reduction, method.target_resolution) == ("mean", "features") and anchors.present.all()
    assert session.align_corners
    unit = anchors.mean_distance if choice.unit == "mean_anchor_distance" else 1.0
    vectors = list(anchors.vectors)
    in_units = [vector / unit for vector in vectors]

    def distance(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        planes = one_hot(labels, len(vectors))
        if choice.pixels == "correct":
            planes = planes * one_hot(logits.softmax(1).argmax(1), len(vectors))
        return DISTANCES[choice.norm](features / unit, planes, in_units)

    def step(batch: Batch, _iteration: int) -> Iterator[Objective]:
        source, target = (
            {name: value.to(session.device) for name, value in sample.items()} for sample in batch.values()
        )
        images = source["image"].float() / 255
        features, logits, _ = network(images)
        enlarged = functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)
        source_entropy = cross_entropy(enlarged, source["label"].long())
        images = target["image"].float() / 255
        with torch.no_grad():
            known, scores, _ = labelling(images)
            anchor_label, probability_label = labels_of(known, scores, vectors, thresholds)
        target_features, target_logits, _ = network(images)
        small = functional.interpolate(source["label"][:, None].float(), features.shape[2:], mode="nearest")
        terms = {
            "source_cross_entropy": source_entropy,
            "source_distance": distance(features, logits, small[:, 0].long()),
            "target_distance": distance(target_features, target_logits, anchor_label),
            "anchor_cross_entropy": cross_entropy(target_logits, anchor_label),
            "probability_cross_entropy": cross_entropy(target_logits, probability_label),
        }
        yield objective(terms, weights_of(method.weights)), terms

    return step


def weights_of(weights: Weights) -> dict[str, float]:
    """The weight of every term in Eq. 12."""
    return {
        "source_cross_entropy": 1.0,
        "source_distance": weights.distance,
        "target_distance": weights.distance,
        "anchor_cross_entropy": weights.anchor_cross_entropy,
        "probability_cross_entropy": weights.probability_cross_entropy,
    }


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of the labelled pixels."""
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE)


def one_hot(labels: Tensor, categories: int) -> Tensor:
    """Planes (n, c + 1, h, w) of labels (n, h, w): 1 where the label is the plane's, the last for IGNORE."""
    planes = torch.zeros(len(labels), categories + 1, *labels.shape[1:], device=labels.device)
    return planes.scatter_(1, labels.clamp(max=categories)[:, None], 1.0)


def labels_of(
    features: Tensor, logits: Tensor, vectors: Sequence[Tensor], thresholds: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """Pseudo-labels (n, h, w) by anchors and by probability, Eq. 6, 7 and 11; needs P0 >= 0.5."""
    certain = logits.softmax(1)
    for category in range(len(vectors)):
        certain[:, category] = torch.where(certain[:, category] > thresholds["p0"], 1.0, 0.0)
    by_probability = torch.cat([certain, torch.full_like(certain[:, :1], 0.2)], 1).argmax(1)
    by_probability[by_probability == len(vectors)] = IGNORE
    distances = logits.clone()
    for category, vector in enumerate(vectors):
        everywhere = vector[:, None, None].expand(-1, *features.shape[2:])
        distances[:, category] = torch.linalg.vector_norm(everywhere - features, dim=1)
    first, by_anchor = distances.min(1, keepdim=True)
    second = distances.scatter_(1, by_anchor, torch.inf).amin(1, keepdim=True)
    by_anchor[second - first <= thresholds["margin"]] = IGNORE
    return by_anchor[:, 0], by_probability


def class_mean_distance(features: Tensor, planes: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """The mean distance of class means to their anchors, as `caguda.equations.losses` defines it."""
    shares = functional.adaptive_avg_pool2d(planes, 1)
    total, found = features.new_zeros(()), 0
    for image, of_image, share in zip(features, planes, shares, strict=True):
        for category, vector in enumerate(vectors):
            if of_image[category].sum().item() < AT_LEAST:
                continue
            masked = image * of_image[category]
            if masked.requires_grad:
                masked.register_hook(lambda gradient, factor=2 * share[category]: gradient * factor)
            mean = functional.adaptive_avg_pool2d(masked, 1) / share[category]
            error = functional.smooth_l1_loss(mean.flatten(), vector)
            while error.item() > 5:
                error = error / 10
            total, found = total + error, found + 1
    return total / max(found, 1) * 10


def pixel_distance(features: Tensor, planes: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """The mean distance of labelled pixels to the anchors of their labels, Eq. 8 and 10."""
    total = features.new_zeros(())
    for image, of_image in zip(features, planes, strict=True):
        for plane, vector in zip(of_image, vectors, strict=False):  # there is no anchor of IGNORE
            if plane.sum().item() == 0:
                continue
            total = total + (torch.linalg.vector_norm(image - vector[:, None, None], dim=0) * plane).sum()
    return total / planes[:, :-1].sum().clamp(min=1)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]] = {
    "l2": pixel_distance,
    "class_mean": class_mean_distance,
}
