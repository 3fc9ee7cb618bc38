"""The loss functions of Section 3.3. A loss is a sum and a count, so that means over images and GPUs are exact."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.anchors import class_sums, image_means
from caguda.equations.grid import enlarged_logits, labels_at


@dataclass(frozen=True)
class LossSum:
    """A loss summed over pixels or class means, and their number; both add up over images."""

    total: Float[Tensor, ""]
    count: Int64[Tensor, ""]

    def mean(self) -> Float[Tensor, ""]:
        """The mean; exactly 0, with a zero gradient, where the count is 0."""
        return self.total / self.count.clamp(min=1)


def cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The cross-entropy loss L_CE over the labelled pixels; labels are the truth or pseudo-labels.

    Eq. 2, 9 and 11. Pixels of IGNORE do not count. Adds in float32 or wider for any type of logits. Another label
    outside 0..c-1 is an IndexError.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(wide, labels.long(), ignore_index=IGNORE, reduction="sum")
    return LossSum(total, (labels != IGNORE).sum())


def image_cross_entropy(
    logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n H W"], align_corners: bool = False
) -> LossSum:
    """The cross-entropy loss L_CE at the resolution of the image: logits are enlarged to the labels.

    Eq. 2; see `cross_entropy` and `enlarged_logits`. `align_corners` is that of the network.
    """
    return cross_entropy(enlarged_logits(logits, labels.shape[-2:], align_corners), labels)


def feature_cross_entropy(
    logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n H W"], align_corners: bool = False
) -> LossSum:
    """The cross-entropy loss L_CE at the resolution of f_D, where pseudo-labels are made: labels are reduced to it.

    Eq. 9 and 11; see `cross_entropy` and `labels_at`. `align_corners` is that of the network.
    """
    return cross_entropy(logits, labels_at(labels, logits.shape[-2:], align_corners))


CROSS_ENTROPIES = {"image": image_cross_entropy, "features": feature_cross_entropy}
"""The cross entropies by their resolution, that of the image or of f_D."""


def distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
) -> LossSum:
    """The category-wise distance loss L_dis: the distances of features to the anchors of their labels.

    Eq. 8 and 10 with the L2 norm of every pixel, not its square. Pixels of IGNORE and of absent categories do not
    count. The gradient of a feature equal to its anchor is 0. Another label outside 0..c-1 is an IndexError.
    """
    lengths: Tensor = torch.linalg.vector_norm(offsets(features, anchors, labels, present), dim=1)
    return LossSum(lengths.sum(), lengths.new_tensor(len(lengths), dtype=torch.int64))


def squared_distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
) -> LossSum:
    """The category-wise distance loss L_dis with squared distances.

    The other reading of Eq. 8 and 10. The same pixels count as in `distance_loss`.
    """
    squares = offsets(features, anchors, labels, present).square().sum(dim=1)
    return LossSum(squares.sum(), squares.new_tensor(len(squares), dtype=torch.int64))


def offsets(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
) -> Float[Tensor, "pixels d"]:
    """The difference between feature and anchor of every pixel with a label of a present category."""
    labelled = labels != IGNORE
    category = labels.where(labelled, 0).long()
    counted = labelled & present[category]
    return features.movedim(1, -1)[counted] - anchors[category[counted]]


def class_mean_distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
    at_least: int = 10,
) -> LossSum:
    """The category-wise distance loss L_dis of the authors' code: the distances of class means to the anchors.

    In place of Eq. 8 and 10. A class mean is the mean feature of a present category in one image, where the category
    has n_c >= at_least pixels. Its distance to the anchor is the smooth L1 loss (beta 1, mean over d), divided by 10
    until it is at most 5, then multiplied by 10. The gradient of a class mean, not its value, is scaled by
    2 n_c / (h w). Pixels of IGNORE do not count. Another label outside 0..c-1 is a RuntimeError.
    """
    images = zip(features.split(1), labels.split(1), strict=True)
    by_image = [image_means(class_sums(image, truth, len(anchors)), at_least) for image, truth in images]
    means, counts = torch.stack([m.sums for m in by_image]), torch.stack([m.counts for m in by_image])
    pairs = (counts > 0) & present
    category = pairs.nonzero()[:, 1]
    vectors = means[pairs].to(torch.result_type(features, anchors))
    share = counts[pairs][:, None].to(vectors.dtype) / labels[0].numel()
    vectors = vectors.detach().lerp(vectors, 2 * share)
    errors = F.smooth_l1_loss(vectors, anchors[category].to(vectors.dtype), reduction="none").mean(dim=1)
    tens = (errors.detach() / 5).log10().ceil().clamp(min=0)
    return LossSum((10 * errors / 10**tens).sum(), pairs.sum())


DISTANCES = {"l2": distance_loss, "squared_l2": squared_distance_loss, "class_mean": class_mean_distance_loss}
"""The readings of Eq. 8 and 10, by name."""


def objective(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """The sum of loss terms, each times its weight: the final objective L, or a part of it.

    Eq. 12 of all terms. There the weight is 1 for the source cross entropy, lambda1 for a distance loss, lambda2 for a cross entropy of
    pseudo-labels. Both mappings have the same keys, at least one.
    """
    assert terms.keys() == weights.keys(), f"terms {sorted(terms)} and weights {sorted(weights)} must be the same"
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
