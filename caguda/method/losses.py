"""The objective functions of Section 3.3, as means over the pixels that have a label."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from caguda.method import IGNORE


def cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """The cross-entropy loss L_CE of ground truth or pseudo-labels.

    Eq. 2, 9 and 11, divided by the number of labelled pixels, so that a loss weight means the same for any image size
    and any share of active pixels. Pixels of IGNORE take no part; exactly 0, with a zero gradient, where none is
    labelled. Another label outside 0..c-1 is an IndexError.
    """
    total = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def distance_loss(
    features: Float[Tensor, "n d h w"],
    anchors: Float[Tensor, "c d"],
    labels: Integer[Tensor, "n h w"],
    present: Bool[Tensor, " c"],
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """The category-wise distance loss L_dis: how far features lie from the anchors of their labels.

    Eq. 8 and 10 with the L2 norm (not its square), divided by the number of pixels that count and by `scale`, the unit
    of distance. Pixels of IGNORE and of absent categories do not count; exactly 0, with a zero gradient, where none
    does. The gradient of a feature that lies on its anchor is 0. Another label outside 0..c-1 is an IndexError.
    """
    labelled = labels != IGNORE
    category = labels.where(labelled, 0).long()
    counted = labelled & present[category]
    offsets = features.movedim(1, -1)[counted] - anchors[category[counted]]
    lengths: Tensor = torch.linalg.vector_norm(offsets, dim=1)
    return lengths.sum() / (scale * max(len(offsets), 1))


def objective(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """The final objective L: the sum of the loss terms, each times its weight.

    Eq. 12: `weights` hold 1 for the source cross entropy, lambda1 for each distance loss and lambda2 for each cross
    entropy of pseudo-labels. Both mappings name the same terms, at least one.
    """
    assert terms.keys() == weights.keys(), f"terms {sorted(terms)} and weights {sorted(weights)} must be the same"
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
