"""What is known of the pixels of one target image, what must hold of it, and its statistics over all images."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int64, UInt8, UInt16

from caguda.classes import IGNORE

BY_ANCHOR, BY_PROBABILITY = 1, 2
QUANTILES_IN_PERCENT = (5, 25, 50, 75, 95)
PATTERNS = 1 << 15
"""The bit patterns of float16 numbers that are not negative. They sort as the numbers do: counting them is exact."""


@dataclass(frozen=True, eq=False)
class LabelArrays:
    """What ATI, PLA and the probability rule say of one target image at the resolution of f_D; Eq. 5 to 7.

    `active` has bit 0 where the anchors and bit 1 where the probability make a pixel active; the two labels are 255
    where their bit is not set. `margin` is d2 - d1 >= 0, infinite where there is no second anchor;
    `confidence` is the largest softmax probability, 0 to 1.
    """

    active: UInt8[np.ndarray, "h w"]
    anchor_label: UInt8[np.ndarray, "h w"]
    probability_label: UInt8[np.ndarray, "h w"]
    nearest_anchor: UInt8[np.ndarray, "h w"]
    predicted: UInt8[np.ndarray, "h w"]
    margin: Float32[np.ndarray, "h w"]
    confidence: Float32[np.ndarray, "h w"]


NAMES = tuple(field.name for field in fields(LabelArrays))
DTYPES = {name: np.dtype("f4" if name in ("margin", "confidence") else "u1") for name in NAMES}


def relabelled(labels: LabelArrays, margin: float | None = None, p0: float | None = None) -> LabelArrays:
    """The labels of one image under another margin or P0, without the network; Eq. 6, 7 and 11.

    By anchors where d2 - d1 > margin, by probability where the confidence > p0, strictly, in float32 as the rules do; as
    they are without a threshold. Below 0, every pixel is active.
    """
    by_anchor, by_probability = (labels.active & bit > 0 for bit in (BY_ANCHOR, BY_PROBABILITY))
    if margin is not None:
        by_anchor = labels.margin > np.float32(margin)
    if p0 is not None:
        by_probability = labels.confidence > np.float32(p0)
    return replace(
        labels,
        active=(by_anchor * BY_ANCHOR + by_probability * BY_PROBABILITY).astype(np.uint8),
        anchor_label=np.where(by_anchor, labels.nearest_anchor, np.uint8(IGNORE)),
        probability_label=np.where(by_probability, labels.predicted, np.uint8(IGNORE)),
    )


def pattern(values: Float32[np.ndarray, " *s"]) -> UInt16[np.ndarray, " *s"]:
    """The bit patterns, 0 to PATTERNS - 1, of numbers that are not negative, rounded to float16; infinite beyond it."""
    with np.errstate(over="ignore"):
        patterns: UInt16[np.ndarray, " *s"] = np.abs(values).astype(np.float16).view(np.uint16)
    return patterns


def values_of_patterns() -> Float16[np.ndarray, " v"]:
    """The number of every bit pattern, in order; beyond infinity they are nan."""
    return np.arange(PATTERNS, dtype=np.uint16).view(np.float16)


class LabelStatistics:
    """Counts over any number of images in constant memory, from which shares, agreement, quantiles and scores follow.

    counts: pixels by truth, anchor label and probability label; in each the c categories and, last, void or no label.
    margins: pixels by nearest anchor and bit pattern of the margin.    confidences: by predicted category likewise.
    """

    def __init__(self, categories: int) -> None:
        self.counts: Int64[np.ndarray, "c+1 c+1 c+1"] = np.zeros((categories + 1,) * 3, np.int64)
        self.margins: Int64[np.ndarray, "c v"] = np.zeros((categories, PATTERNS), np.int64)
        self.confidences: Int64[np.ndarray, "c v"] = np.zeros((categories, PATTERNS), np.int64)

    def add(self, labels: LabelArrays, truth: UInt8[np.ndarray, "h w"] | None = None) -> None:
        """Counts the pixels of one image that has no faults; without a truth they are void."""
        none = len(self.margins)
        maps = (
            np.full_like(labels.active, none) if truth is None else truth,
            labels.anchor_label,
            labels.probability_label,
        )
        _count(self.counts, *(np.minimum(values, none) for values in maps))
        _count(self.margins, labels.nearest_anchor, pattern(labels.margin))
        _count(self.confidences, labels.predicted, pattern(labels.confidence))

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """`pixels`; `share`, `per_category` and `margin_quantiles` as docs/formats.md has them (RULE+RULE.json).

        Shares are of all pixels. The agreement is over pixels that both rules label: in all, the share that gets one
        label; of a category, those that both give it among those that either does (None without any). A quantile q is
        the smallest margin that at least q of the pixels do not exceed; None stands for infinity.
        """
        pairs = self.counts.sum(0)
        pixels, twice, same = int(pairs.sum()), pairs[:-1, :-1], pairs[:-1, :-1].diagonal()
        found = {"anchor": pairs[:-1].sum(1), "probability": pairs[:, :-1].sum(0), "both": same}
        found |= {"nearest": self.margins.sum(1), "predicted": self.confidences.sum(1)}
        either = twice.sum(0) + twice.sum(1) - same
        return {
            "pixels": pixels,
            "share": {
                "anchor": float(found["anchor"].sum() / pixels),
                "probability": float(found["probability"].sum() / pixels),
                "both": float(twice.sum() / pixels),
                "either": float((pixels - pairs[-1, -1]) / pixels),
                "agreement": _ratio(same.sum(), twice.sum()),
            },
            "per_category": [
                {"name": name}
                | {key: float(number[i] / pixels) for key, number in found.items()}
                | {"agreement": _ratio(same[i], either[i]), "margin_quantiles": _quantiles(self.margins[i])}
                for i, name in enumerate(names)
            ],
            "margin_quantiles": _quantiles(self.margins.sum(0)),
        }

    def scores(self, names: Sequence[str]) -> dict[str, Any]:
        """How right labels are where the truth is known: by each rule, by anchors alone, and where both rules agree.

        `accuracy`: right ones among the labelled pixels with a truth. `coverage`: those among all pixels with a truth.
        `per_category`: precision and recall. None where there is nothing to divide by.
        """
        known, each = self.counts[:-1], np.arange(len(self.margins))
        truths = known.sum((1, 2))
        confusions = {
            "anchor": known[:, :-1].sum(2),
            "probability": known[:, :, :-1].sum(1),
            "anchor_only": known[:, :-1, -1],
            "both": known[:, each, each],
        }
        return {kind: accuracy_of(confusion, truths, names) for kind, confusion in confusions.items()}


def _count(counts: np.ndarray, *indices: np.ndarray) -> None:
    """Adds one for every pixel at its place, without an array of the size of `counts` beside it."""
    places = np.ravel_multi_index(tuple(values.ravel() for values in indices), counts.shape)
    np.add.at(counts.reshape(-1), places, 1)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def _quantiles(counts: Int64[np.ndarray, " v"]) -> dict[str, float | None] | None:
    """The quantiles of numbers of which `counts` has how often each bit pattern occurs; None without any."""
    total = int(counts.sum())
    if total == 0:
        return None
    ranks = [-(-percent * total // 100) for percent in QUANTILES_IN_PERCENT]
    values = values_of_patterns()[np.searchsorted(np.cumsum(counts), ranks)]
    return {
        f"{percent / 100}": float(value) if np.isfinite(value) else None
        for percent, value in zip(QUANTILES_IN_PERCENT, values, strict=True)
    }


def accuracy_of(
    confusion: Int64[np.ndarray, "c c"], truths: Int64[np.ndarray, " c"], names: Sequence[str]
) -> dict[str, Any]:
    """How right labels are, by (c, c) counts of truth and label and (c,) counts of the truth: see LabelStatistics.scores."""
    hits, labelled = confusion.diagonal(), confusion.sum(0)
    return {
        "accuracy": _ratio(hits.sum(), labelled.sum()),
        "coverage": _ratio(labelled.sum(), truths.sum()),
        "per_category": [
            {"name": name, "precision": _ratio(hits[i], labelled[i]), "recall": _ratio(hits[i], truths[i])}
            for i, name in enumerate(names)
        ],
    }


def count_verdicts(
    counts: Int64[np.ndarray, "2 v"],
    category: UInt8[np.ndarray, "h w"],
    values: Float32[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
) -> None:
    """Adds the pixels of one image with a truth to `counts`: wrong and right categories by the bit pattern of `values`."""
    known = truth != IGNORE
    _count(counts, (category == truth)[known].astype(np.intp), pattern(values[known]))


def precision_and_coverage(
    wrong: Int64[np.ndarray, " v"], right: Int64[np.ndarray, " v"]
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " v"]]:
    """The precision and the coverage of the labels above every threshold, by its bit pattern; precision nan without any.

    `wrong` and `right` count the pixels with a truth by the bit pattern of what is compared with the threshold.
    """
    right_above, above = (np.cumsum(counts[::-1])[::-1] - counts for counts in (right, wrong + right))
    with np.errstate(invalid="ignore"):
        return right_above / above, above / (wrong + right).sum()
