"""The pseudo-labels of one target image by both rules, and their statistics over all images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int64, UInt8, UInt16

from caguda.classes import IGNORE

BY_ANCHOR, BY_PROBABILITY = 1, 2
QUANTILES_IN_PERCENT = (5, 25, 50, 75, 95)
FLOAT16_BINS = 1 << 15
"""The bins of a histogram of float16 numbers that are not negative: one for each bit pattern, so that counting is exact."""


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """The evidence of one target image, and its pseudo-labels by anchors and by probability; Eq. 5 to 7 and 11.

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

    def with_thresholds(self, margin: float | None = None, p0: float | None = None) -> "ImageLabels":
        """The labels under another margin or P0, without the network; Eq. 6, 7 and 11.

        Active are d2 - d1 > margin and confidence > p0, strictly, in float32 as in the rules. None keeps the labels of
        that rule; a threshold below 0 makes every pixel active.
        """
        by_anchor, by_probability = (self.active & bit > 0 for bit in (BY_ANCHOR, BY_PROBABILITY))
        if margin is not None:
            by_anchor = self.margin > np.float32(margin)
        if p0 is not None:
            by_probability = self.confidence > np.float32(p0)
        return replace(
            self,
            active=(by_anchor * BY_ANCHOR + by_probability * BY_PROBABILITY).astype(np.uint8),
            anchor_label=np.where(by_anchor, self.nearest_anchor, np.uint8(IGNORE)),
            probability_label=np.where(by_probability, self.predicted, np.uint8(IGNORE)),
        )


def float16_bins(values: Float32[np.ndarray, " *s"]) -> UInt16[np.ndarray, " *s"]:
    """The bins, 0 to FLOAT16_BINS - 1, of numbers that are not negative, rounded to float16 (infinite beyond its range)."""
    with np.errstate(over="ignore"):
        bins: UInt16[np.ndarray, " *s"] = np.abs(values).astype(np.float16).view(np.uint16)
    return bins


def values_of_bins() -> Float16[np.ndarray, " v"]:
    """The number of every bin, in ascending order; the bins after infinity are nan."""
    return np.arange(FLOAT16_BINS, dtype=np.uint16).view(np.float16)


class LabelCounts:
    """Pixel counts over any number of images in constant memory: the statistics of their pseudo-labels follow from them.

    labels: pixels by truth, anchor label and probability label; the last index of each is void or no label.
    margins: pixels by nearest anchor and bin of the margin.    confidences: by predicted category and bin.
    """

    def __init__(self, categories: int) -> None:
        self.labels: Int64[np.ndarray, "c+1 c+1 c+1"] = np.zeros((categories + 1,) * 3, np.int64)
        self.margins: Int64[np.ndarray, "c v"] = np.zeros((categories, FLOAT16_BINS), np.int64)
        self.confidences: Int64[np.ndarray, "c v"] = np.zeros((categories, FLOAT16_BINS), np.int64)

    def add(self, image: ImageLabels, truth: UInt8[np.ndarray, "h w"] | None = None) -> None:
        """Counts the pixels of an image without faults; without a truth they are void."""
        void = len(self.margins)
        truth = np.full_like(image.active, void) if truth is None else truth
        maps = (truth, image.anchor_label, image.probability_label)
        _count(self.labels, *(np.minimum(values, void) for values in maps))
        _count(self.margins, image.nearest_anchor, float16_bins(image.margin))
        _count(self.confidences, image.predicted, float16_bins(image.confidence))

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """`pixels`; `share`, `per_category` and `margin_quantiles` as docs/formats.md has them (RULE+RULE.json).

        Shares are of all pixels. The agreement is over the pixels that both rules label: the share with the same label; for
        a category, the Jaccard index of both rules' labels (None without any). A quantile q is the smallest margin that at
        least q of the pixels do not exceed; None stands for infinity.
        """
        pairs = self.labels.sum(0)
        pixels, labelled_twice = int(pairs.sum()), pairs[:-1, :-1]
        same = labelled_twice.diagonal()
        union = labelled_twice.sum(0) + labelled_twice.sum(1) - same
        counts = {
            "anchor": pairs[:-1].sum(1),
            "probability": pairs[:, :-1].sum(0),
            "both": same,
            "nearest": self.margins.sum(1),
            "predicted": self.confidences.sum(1),
        }
        return {
            "pixels": pixels,
            "share": {
                "anchor": float(counts["anchor"].sum() / pixels),
                "probability": float(counts["probability"].sum() / pixels),
                "both": float(labelled_twice.sum() / pixels),
                "either": float((pixels - pairs[-1, -1]) / pixels),
                "agreement": _ratio(same.sum(), labelled_twice.sum()),
            },
            "per_category": [
                {"name": name}
                | {key: float(count[i] / pixels) for key, count in counts.items()}
                | {"agreement": _ratio(same[i], union[i]), "margin_quantiles": _quantiles(self.margins[i])}
                for i, name in enumerate(names)
            ],
            "margin_quantiles": _quantiles(self.margins.sum(0)),
        }

    def scores(self, names: Sequence[str]) -> dict[str, Any]:
        """The scores, see accuracy_of, of the labels by each rule, by anchors alone, and where both rules agree."""
        with_truth, diagonal = self.labels[:-1], np.arange(len(self.margins))
        truths = with_truth.sum((1, 2))
        confusions = {
            "anchor": with_truth[:, :-1].sum(2),
            "probability": with_truth[:, :, :-1].sum(1),
            "anchor_only": with_truth[:, :-1, -1],
            "both": with_truth[:, diagonal, diagonal],
        }
        return {labels: accuracy_of(confusion, truths, names) for labels, confusion in confusions.items()}


class RuleCounts:
    """Pixel counts of the labels of any rules over any number of images, and of each pair of these rules.

    confusions: pixels of each rule by truth and label; the last index of each is void or not known, and no label.
    both: the pixels that both rules of a pair label.    same: those to which both give one label.
    """

    def __init__(self, rules: Sequence[str], categories: int) -> None:
        self.rules = tuple(rules)
        self.confusions: Int64[np.ndarray, "r c+1 c+1"] = np.zeros(
            (len(rules), categories + 1, categories + 1), np.int64
        )
        self.both: Int64[np.ndarray, "r r"] = np.zeros((len(rules),) * 2, np.int64)
        self.same: Int64[np.ndarray, "r r"] = np.zeros((len(rules),) * 2, np.int64)

    def add(self, labels: Sequence[UInt8[np.ndarray, "h w"]], truth: UInt8[np.ndarray, "h w"] | None = None) -> None:
        """Counts the pixels of an image by the labels of every rule; without a truth they are void."""
        void = self.confusions.shape[-1] - 1
        rows = np.full_like(labels[0], void) if truth is None else np.minimum(truth, void)
        columns = [np.minimum(label, void) for label in labels]
        for i, first in enumerate(columns):
            _count(self.confusions[i], rows, first)
            for j, second in enumerate(columns[:i]):
                both = (first < void) & (second < void)
                self.both[i, j] += np.count_nonzero(both)
                self.same[i, j] += np.count_nonzero(both & (first == second))

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """`pixels`, `share`, `per_category` and `accuracy` as docs/formats.md has them (RULE+RULE.json); see accuracy_of."""
        pixels, by_label = int(self.confusions[0].sum()), self.confusions.sum(1)[:, :-1]
        rules = dict(zip(self.rules, by_label, strict=True))
        return {
            "pixels": pixels,
            "share": {rule: float(counts.sum() / pixels) for rule, counts in rules.items()},
            "per_category": [
                {"name": name} | {rule: float(counts[i] / pixels) for rule, counts in rules.items()}
                for i, name in enumerate(names)
            ],
            "accuracy": {
                rule: accuracy_of(confusion[:-1, :-1], confusion[:-1].sum(1), names)
                for rule, confusion in zip(self.rules, self.confusions, strict=True)
            },
        }

    def pairs(self) -> list[dict[str, Any]]:
        """For each pair of rules the share of all pixels that both label, and of these the share with the same label."""
        pixels = self.confusions[0].sum()
        return [
            {"rules": [self.rules[j], self.rules[i]], "both": float(self.both[i, j] / pixels),
             "agreement": _ratio(self.same[i, j], self.both[i, j])}
            for j in range(len(self.rules)) for i in range(j + 1, len(self.rules))
        ]  # fmt: skip


def _count(counts: np.ndarray, *indices: np.ndarray) -> None:
    """Adds 1 to `counts` at the indices of every pixel, without another array of its size."""
    flat = np.ravel_multi_index(tuple(values.ravel() for values in indices), counts.shape)
    np.add.at(counts.reshape(-1), flat, 1)


def _ratio(part: float, total: float) -> float | None:
    return float(part / total) if total > 0 else None


def _quantiles(counts: Int64[np.ndarray, " v"]) -> dict[str, float | None] | None:
    """The quantiles of the numbers in a histogram; None for an empty one."""
    total = int(counts.sum())
    if total == 0:
        return None
    ranks = [-(-percent * total // 100) for percent in QUANTILES_IN_PERCENT]
    values = values_of_bins()[np.searchsorted(np.cumsum(counts), ranks)]
    return {
        f"{percent / 100}": float(value) if np.isfinite(value) else None
        for percent, value in zip(QUANTILES_IN_PERCENT, values, strict=True)
    }


def accuracy_of(
    confusion: Int64[np.ndarray, "c c"], truths: Int64[np.ndarray, " c"], names: Sequence[str]
) -> dict[str, Any]:
    """The scores of labels by their confusion matrix (truth, label) and the pixels of every true category.

    `accuracy`: the right ones among the labelled pixels with a truth. `coverage`: the labelled ones among all pixels with
    a truth. `per_category`: precision and recall. None where there is nothing to divide by.
    """
    hits, labelled = confusion.diagonal(), confusion.sum(0)
    return {
        "accuracy": _ratio(hits.sum(), labelled.sum()),
        "coverage": _ratio(labelled.sum(), truths.sum()),
        "per_category": [
            {"name": name, "precision": _ratio(hits[i], labelled[i]), "recall": _ratio(hits[i], truths[i])}
            for i, name in enumerate(names)
        ],
    }


def mean_score(scores: Mapping[str, Any], score: str) -> float | None:
    """The mean of a score, `precision` or `recall` of `accuracy_of`, over the categories that have one; None if none has."""
    values = [row[score] for row in scores["per_category"] if row[score] is not None]
    return sum(values) / len(values) if values else None


def recall_of_pixels(scores: Mapping[str, Any]) -> float | None:
    """The share of the pixels with a truth that are labelled right, of the scores of `accuracy_of`."""
    return None if scores["accuracy"] is None else float(scores["accuracy"] * scores["coverage"])


def count_right_and_wrong(
    counts: Int64[np.ndarray, "2 v"],
    category: UInt8[np.ndarray, "h w"],
    values: Float32[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
) -> None:
    """Adds the pixels of one image with a truth to two histograms of `values`: wrong categories first, then right ones."""
    has_truth = truth != IGNORE
    _count(counts, (category == truth)[has_truth].astype(np.intp), float16_bins(values[has_truth]))


def precision_and_coverage(
    wrong: Int64[np.ndarray, " v"], right: Int64[np.ndarray, " v"]
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " v"]]:
    """The precision and the coverage of the labels above each threshold, one for each bin; nan precision without labels.

    `wrong` and `right` are histograms of the values that a threshold is compared with, over all pixels with a truth.
    """
    right_above, above = (np.cumsum(counts[::-1])[::-1] - counts for counts in (right, wrong + right))
    with np.errstate(invalid="ignore"):
        return right_above / above, above / (wrong + right).sum()
