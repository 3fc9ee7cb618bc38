"""A threshold of confidence for each category, and the pseudo-labels that it gives: CBST, LRENT, BDL and FDA.

Numpy arrays in, numpy arrays out. There is no torch here, since jobs that label stored evidence start without it.
`predicted` is the most probable category of a pixel, uint8; `confidence` its probability, float32 in 0..1.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer, UInt8

from caguda.equations import IGNORE

HALF = 15  # a float32 in 0..1 has 30 bits, which are counted in two halves
BINS = 2**HALF
BITS_OF_ONE = 0x3F800000

Images = Iterable[Mapping[str, np.ndarray]]
"""`predicted` and `confidence` of every image, of one shape; it is gone through twice."""


class SoftLabels(NamedTuple):
    """The pseudo-label of every pixel, IGNORE where it has none, and its soft label, 0 everywhere where it has none."""

    hard: UInt8[np.ndarray, "n h w"]
    soft: Float[np.ndarray, "n c h w"]


def class_balanced_thresholds(images: Images, categories: int, portion: float) -> Float32[np.ndarray, " c"]:
    """The confidence k_c of each category that a share `portion` of the pixels predicted as it reaches.

    The thresholds of class-balanced self-training (CBST, Zou et al., ECCV 2018). With n_c pixels, k_c is the
    floor(portion n_c)-th largest confidence; 1 where that is none. portion in 0..1. Pixels equal to k_c reach it too, so
    that ties can raise the share. All pixels count; the public code (CRST crst_seg.py:484-494) takes every fourth.
    """

    def rank(pixels: Int64[np.ndarray, " c"]) -> Int64[np.ndarray, " c"]:
        return pixels - np.floor(pixels * portion).astype(np.int64)

    return confidence_at(rank, images, categories, otherwise=1.0)


def quantile_thresholds(images: Images, categories: int, share: float, cap: float) -> Float32[np.ndarray, " c"]:
    """The confidence of each category at rank round(share n_c) of the n_c pixels predicted as it, or `cap` if that is less.

    The thresholds of BDL (Li et al., CVPR 2019; share 0.5, cap 0.9) and FDA (Yang and Soatto, CVPR 2020; 0.66 and 0.9).
    Ranks are ascending, from 0; halves are rounded to even. A category that is never predicted has 0. share and cap in
    0..1. A rank of n_c means the largest confidence; the public code of FDA (getSudoLabel_multi.py:78-85) raises an
    IndexError there, as for a category of one pixel. The cap is rounded to float32.
    """

    def rank(pixels: Int64[np.ndarray, " c"]) -> Int64[np.ndarray, " c"]:
        return np.rint(pixels * share).astype(np.int64).clip(max=pixels - 1)

    return confidence_at(rank, images, categories, otherwise=0.0).clip(max=np.float32(cap))


def confidence_at(
    rank: Callable[[Int64[np.ndarray, " c"]], Int64[np.ndarray, " c"]],
    images: Images,
    categories: int,
    otherwise: float,
) -> Float32[np.ndarray, " c"]:
    """The confidence at a rank among the pixels that are predicted as each category; `otherwise` where none is.

    `rank` gives ascending ranks, from 0, for the numbers of pixels. The result is exact, in memory that does not grow with
    the images: the first pass counts pixels by the upper half of their confidence's bits, the second those in the chosen
    bin by the lower half. Both have 2^15 counters for each category. A predicted category outside 0..c-1 is an IndexError.
    """
    assert iter(images) is not images, "the images are gone through twice, found an iterator"
    upper = np.zeros((categories, BINS), np.int64)
    for image in images:
        bits = _bits(image["confidence"])
        _count(upper, image["predicted"], bits >> HALF)
    cumulative = upper.cumsum(axis=1)
    ranks = rank(cumulative[:, -1])
    below = cumulative <= ranks[:, None]
    chosen, before = below.sum(axis=1), (upper * below).sum(axis=1)
    lower = np.zeros_like(upper)
    for image in images:
        bits, predicted = _bits(image["confidence"]), image["predicted"]
        near = bits >> HALF == chosen[predicted]
        _count(lower, predicted[near], bits[near] % BINS)
    rest = (lower.cumsum(axis=1) <= (ranks - before)[:, None]).sum(axis=1)
    found = (chosen * BINS + rest).astype(np.uint32).view(np.float32)
    return np.where((ranks >= 0) & (ranks < cumulative[:, -1]), found, np.float32(otherwise))


def _bits(confidence: Float32[np.ndarray, "*hw"]) -> Integer[np.ndarray, "*hw"]:
    """The bits of float32 numbers in 0..1, whose order is that of the numbers."""
    bits = confidence.view(np.uint32)
    assert (bits <= BITS_OF_ONE).all(), "confidences must be 0 to 1"
    return bits


def _count(
    counts: Int64[np.ndarray, "c bins"], predicted: UInt8[np.ndarray, "*hw"], bins: Integer[np.ndarray, "*hw"]
) -> None:
    """Adds 1 to the counter of every pixel's category and bin."""
    np.add.at(counts.reshape(-1), predicted.astype(np.int64) * BINS + bins, 1)


def labels_by_threshold(
    predicted: UInt8[np.ndarray, "*hw"], confidence: Float[np.ndarray, "*hw"], thresholds: Float[np.ndarray, " c"]
) -> UInt8[np.ndarray, "*hw"]:
    """The pseudo-labels: the most probable category where its probability reaches the category's threshold, else IGNORE.

    The labels of BDL (SSL.py:57-62) and FDA. With the thresholds of CBST almost its labels: see `class_balanced_labels`.
    A predicted category outside 0..c-1 is an IndexError.
    """
    return np.where(confidence >= thresholds[predicted], predicted, np.uint8(IGNORE))


def class_balanced_labels(
    probability: Float[np.ndarray, "n c h w"], thresholds: Float[np.ndarray, " c"]
) -> UInt8[np.ndarray, "n h w"]:
    """The pseudo-labels of CBST: the category with the largest p_c / k_c where that is at least 1, else IGNORE.

    Class-balanced self-training (Zou et al., ECCV 2018); thresholds k_c > 0. Ties go to the lowest category. The label
    need not be the most probable category. On generated street scenes these labels and those of `labels_by_threshold`
    differ at no more than 0.01 % of the selected pixels for portions up to 0.5, and at 0.18 % for 0.8.
    """
    ratio = probability / thresholds[:, None, None]
    return np.where(ratio.max(axis=1) >= 1, ratio.argmax(axis=1).astype(np.uint8), np.uint8(IGNORE))


def entropy_regularised_labels(
    probability: Float[np.ndarray, "n c h w"], thresholds: Float[np.ndarray, " c"], alpha: float
) -> SoftLabels:
    """The soft and hard pseudo-labels of LRENT: q_c in proportion to (p_c / k_c)^(1 / alpha), and its largest category.

    Label-entropy regularisation of CRST (Zou et al., ICCV 2019); thresholds k_c > 0, 0 < alpha <= 1, the public code's is
    0.25. Ties go to the lowest category. A pixel is selected where its label lowers the regularised loss,
    sum_c q_c (alpha log q_c - log p_c) < -sum_c q_c log k_c; with q as above that is sum_c (p_c / k_c)^(1 / alpha) > 1,
    which is what is compared, in float64. The public code (crst_seg.py:674-695) compares the sums in float32.
    """
    ratio = probability / thresholds.astype(np.float64)[:, None, None]
    largest = ratio.max(axis=1, keepdims=True)
    powers = (ratio / largest) ** (1 / alpha)
    total = powers.sum(axis=1, keepdims=True)
    selected = largest * total**alpha > 1
    hard = np.where(selected[:, 0], ratio.argmax(axis=1).astype(np.uint8), np.uint8(IGNORE))
    return SoftLabels(hard, np.where(selected, powers / total, 0).astype(probability.dtype))
