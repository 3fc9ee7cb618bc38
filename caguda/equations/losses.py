"""The objective functions of Section 3.3, each as the sum over what counts and how many count."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.anchors import class_sums, image_means, labels_at


@dataclass(frozen=True)
class LossSum:
    """A loss as the sum over what counts, pixels or class means, and how many count: both add up over images."""

    total: Float[Tensor, ""]
    count: Int64[Tensor, ""]

    def mean(self) -> Float[Tensor, ""]:
        """The mean over what counts; exactly 0, with a zero gradient, where nothing does."""
        return self.total / self.count.clamp(min=1)


def cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The cross-entropy loss L_CE of ground truth or pseudo-labels, summed over labelled pixels.

    Eq. 2, 9 and 11. Pixels of IGNORE take no part. Adds in float32 or wider, whatever the type of the logits. Another
    label outside 0..c-1 is an IndexError.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(wide, labels.long(), ignore_index=IGNORE, reduction="sum")
    return LossSum(total, (labels != IGNORE).sum())


def image_cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n H W"]) -> LossSum:
    """The cross-entropy loss L_CE at the resolution of the image, whose labels have it: logits are enlarged to them.

    Eq. 2. Otherwise as `cross_entropy`.
    """
    return cross_entropy(F.interpolate(logits, labels.shape[-2:], mode="bilinear"), labels)


def feature_cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n H W"]) -> LossSum:
    """The cross-entropy loss L_CE at the resolution of f_D, where pseudo-labels are made: labels are taken to it.

    Eq. 9 and 11. Otherwise as `cross_entropy`.
    """
    return cross_entropy(logits, labels_at(labels, (logits.shape[-2], logits.shape[-1])))


def distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
) -> LossSum:
    """The category-wise distance loss L_dis: how far features lie from the anchors of their labels.

    Eq. 8 and 10 with the L2 norm of every pixel, not its square. Pixels of IGNORE and of absent categories do not
    count. The gradient of a feature that lies on its anchor is 0. Another label outside 0..c-1 is an IndexError.
    """
    lengths: Tensor = torch.linalg.vector_norm(offsets(features, anchors, labels, present), dim=1)
    return LossSum(lengths.sum(), lengths.new_tensor(len(lengths), dtype=torch.int64))


def squared_distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
) -> LossSum:
    """The category-wise distance loss L_dis with squares: how far, squared, features lie from their anchors.

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
    """The difference of features and anchors at every pixel that has a label of a present category."""
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
    """The category-wise distance loss L_dis of the authors' code: how far class means of images lie from the anchors.

    In place of Eq. 8 and 10. What counts are the pairs of an image and a present category with n_c >= at_least pixels
    there. Each adds ten times the smooth L1 distance (beta 1, mean over d) of the mean feature to the anchor, which is
    divided by 10 until it is at most 5. The gradient of a mean feature, not the value, is scaled by 2 n_c / (h w).
    Pixels of IGNORE take no part. Another label outside 0..c-1 is a RuntimeError.
    """
    images = zip(features.split(1), labels.split(1), strict=True)
    found = [image_means(class_sums(image, truth, len(anchors)), at_least) for image, truth in images]
    means, counts = (torch.stack(parts) for parts in ([f.sums for f in found], [f.counts for f in found]))
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
    """The final objective L: the sum of the loss terms, each times its weight.

    Eq. 12: `weights` hold 1 for the source cross entropy, lambda1 for each distance loss and lambda2 for each cross
    entropy of pseudo-labels. Both mappings name the same terms, at least one.
    """
    assert terms.keys() == weights.keys(), f"terms {sorted(terms)} and weights {sorted(weights)} must be the same"
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
