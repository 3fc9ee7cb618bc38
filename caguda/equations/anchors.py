"""Category anchor construction (CAC, Section 3.2): the centroids of the source features, and distances to them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Float64, Int64, Integer
from torch import Tensor

from caguda.equations import IGNORE

BLOCK = 2**18  # numbers per block of a feature map: 1 MB of float32, which fits into a core's cache


@dataclass(frozen=True)
class ClassSums:
    """The sums of Eq. 4 for each category; `+` adds those of two sets of images.

    sums: of features.    squares: of their squared norms.    weights: the divisor of both, in pixels or images.
    counts: number of pixels. A category without pixels has 0 everywhere.
    """

    sums: Float64[Tensor, "c d"]
    squares: Float64[Tensor, " c"]
    weights: Float64[Tensor, " c"]
    counts: Int64[Tensor, " c"]

    def __add__(self, other: "ClassSums") -> "ClassSums":
        return ClassSums(
            self.sums + other.sums,
            self.squares + other.squares,
            self.weights + other.weights,
            self.counts + other.counts,
        )


class CategoryAnchors(NamedTuple):
    """The category anchors and their statistics; a category is absent where `pixel_count` is 0.

    vectors: the centroids f_c, nan where absent.    pixel_count: |Lambda_c|.
    spread: the root mean square distance of a category's features to its anchor, nan where absent.
    pairwise: distances between anchors, 0 on the diagonal, nan in rows and columns of absent categories.
    """

    vectors: Float32[Tensor, "c d"]
    pixel_count: Int64[Tensor, " c"]
    spread: Float32[Tensor, " c"]
    pairwise: Float32[Tensor, "c c"]


def correctly_predicted(labels: Integer[Tensor, "n h w"], logits: Float[Tensor, "n c h w"]) -> Integer[Tensor, "n h w"]:
    """The labels of the correctly predicted pixels, IGNORE elsewhere.

    Not in the paper: the authors' code restricts Eq. 4, 8 and 10 to these pixels. Ties of logits go to the lowest category.
    """
    return labels.where(logits.argmax(dim=1) == labels, IGNORE)


def rows_per_block(features: Float[Tensor, "n d h w"]) -> int:
    """The number of rows of the maps, at least 1, that have about BLOCK numbers; all on the meta device, which has no memory."""
    if features.is_meta:
        return max(1, features.shape[2])
    return max(1, BLOCK // max(1, features[:, :, :1].numel()))


def class_sums(features: Float[Tensor, "n d h w"], labels: Integer[Tensor, "n h w"], categories: int) -> ClassSums:
    """The sums of each category's features over all labelled pixels, and the numbers of these pixels.

    Eq. 4 before its division; weights are counts. Pixels of IGNORE do not count, whatever their features. A category
    without pixels has sums and count 0. Another label outside 0..c-1 is a RuntimeError. Adds in float64 for any type of
    features. Works on a few rows of the maps at a time, to save memory.
    """
    sums = features.new_zeros(categories, features.shape[1], dtype=torch.float64)
    squares, counts = sums.new_zeros(categories), labels.new_zeros(categories, dtype=torch.int64)
    rows = rows_per_block(features)
    for block, truth in zip(features.split(rows, dim=2), labels.split(rows, dim=1), strict=True):
        labelled = truth != IGNORE
        vectors, category = block.movedim(1, -1)[labelled].double(), truth[labelled].long()
        sums.index_add_(0, category, vectors)
        squares.index_add_(0, category, vectors.square().sum(1))
        counts.index_add_(0, category, torch.ones_like(category))
    return ClassSums(sums, squares, counts.double(), counts)


def image_means(sums: ClassSums, at_least: int) -> ClassSums:
    """The mean feature of each category in one image, with weight 1; 0 for categories with fewer than `at_least` pixels.

    Not in the paper: the authors' code averages these means over images, while Eq. 4 averages over pixels. `sums` are
    of one image; at_least >= 1.
    """
    assert at_least >= 1, f"a mean needs a pixel, at_least is {at_least}"
    enough = sums.counts >= at_least
    weights = sums.weights.clamp(min=1)
    return ClassSums(
        (sums.sums / weights[:, None]).where(enough[:, None], 0),
        (sums.squares / weights).where(enough, 0),
        enough.double(),
        sums.counts.where(enough, 0),
    )


def anchors_from(sums: ClassSums) -> CategoryAnchors:
    """The category anchors f_c: the mean feature of each category, with pixel counts, spread and distances.

    Eq. 4. The anchor of a category without pixels is nan, never a zero vector.
    """
    vectors = sums.sums / sums.weights[:, None]
    variance = sums.squares / sums.weights - vectors.square().sum(1)
    pairwise = torch.linalg.vector_norm(vectors[:, None] - vectors, dim=2)
    return CategoryAnchors(vectors.float(), sums.counts, variance.clamp(min=0).sqrt().float(), pairwise.float())


def distances(features: Float[Tensor, "n d h w"], anchors: Float[Tensor, "c d"]) -> Float[Tensor, "n c h w"]:
    """The L2 distance of every pixel's feature to every category's anchor; nan for an absent category.

    Eq. 5, in the wider of the two types. Subtracts before squaring: the expanded square would lose precision near an
    anchor. Copies the features unless they are in channels-last order.
    """
    dtype = torch.result_type(features, anchors)
    pixels = features.movedim(1, -1)
    rows = pixels.flatten(0, 2).to(dtype)
    distance: Tensor = torch.cdist(rows, anchors.to(dtype), compute_mode="donot_use_mm_for_euclid_dist")
    return distance.view(*pixels.shape[:3], len(anchors)).movedim(-1, 1)
