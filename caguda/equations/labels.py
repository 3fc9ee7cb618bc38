"""Active target sample identification and pseudo-label assignment (ATI and PLA, Section 3.2), and labels by probability
(Section 3.3).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.anchors import distances, rows_per_block


class ByAnchor(NamedTuple):
    """The closest anchor of every pixel, the margin d2 - d1, and whether the pixel is active."""

    nearest: UInt8[Tensor, "n h w"]
    margin: Float[Tensor, "n h w"]
    active: Bool[Tensor, "n h w"]


class ByProbability(NamedTuple):
    """The most probable category of every pixel, its probability, and whether the pixel is active."""

    predicted: UInt8[Tensor, "n h w"]
    confidence: Float[Tensor, "n h w"]
    active: Bool[Tensor, "n h w"]


def by_anchor(
    features: Float[Tensor, "n d h w"], anchors: Float[Tensor, "c d"], present: Bool[Tensor, " c"], margin: float
) -> ByAnchor:
    """The closest anchor of every pixel, and the active pixels.

    Eq. 6 and 7: a pixel is active where d2 - d1 > margin, strictly; margin >= 0 in the features' units. Exact ties go to
    the lowest category and are never active. Absent categories are not compared. With one present category d2 is
    infinite, and every pixel is active. With none, or where a feature is not finite, nearest is IGNORE and the pixel is
    not active. Works on a few rows of the maps at a time, to save memory.
    """
    n, _, h, w = features.shape
    nearest = torch.empty(n, h, w, dtype=torch.uint8, device=features.device)
    gap = torch.empty(n, h, w, dtype=torch.result_type(features, anchors), device=features.device)
    rows = rows_per_block(features)
    for top in range(0, h, rows):
        block = slice(top, top + rows)
        nearest[:, block], gap[:, block] = closest_two(distances(features[:, :, block], anchors), present)
    return ByAnchor(nearest, gap, gap > margin)


def closest_two(
    distance: Float[Tensor, "n c h w"], present: Bool[Tensor, " c"]
) -> tuple[UInt8[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """The closest present category of every pixel, and d2 - d1; IGNORE and nan where d1 is not finite."""
    distance = distance.masked_fill(~present[:, None, None], torch.inf)
    first, nearest = distance.min(dim=1)
    second = distance.scatter(1, nearest[:, None], torch.inf).amin(dim=1)
    return nearest.where(first < torch.inf, IGNORE).to(torch.uint8), second - first


def by_probability(logits: Float[Tensor, "n c h w"], p0: float) -> ByProbability:
    """The most probable category of every pixel, and the pixels where its probability exceeds P0.

    The active state a^tP and the label y^tP of Eq. 11: a pixel is active where its largest softmax > p0, strictly; p0 in
    0..1. Exact ties go to the lowest category.
    """
    confidence = logits.softmax(dim=1).amax(dim=1)
    return ByProbability(logits.argmax(dim=1).to(torch.uint8), confidence, confidence > p0)


def pseudo_labels(category: UInt8[Tensor, "n h w"], active: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n h w"]:
    """The pseudo-labels, a times y in Eq. 9 to 11: the category of every active pixel, IGNORE elsewhere."""
    return category.masked_fill(~active, IGNORE)
