"""What is known of the pixels of one target image, what must hold of it, and its statistics over all images."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8

from caguda.classes import IGNORE, UNWRITTEN

BY_ANCHOR, BY_PROBABILITY = 1, 2
QUANTILES_IN_PERCENT = (5, 25, 50, 75, 95)


@dataclass(frozen=True, eq=False)
class LabelArrays:
    """What ATI, PLA and the probability rule say of one target image at the resolution of f_D; Eq. 5 to 7.

    `active` has bit 0 where the anchors and bit 1 where the probability make a pixel active; the two labels are 255
    where their bit is not set. `margin` is d2 - d1 >= 0, infinite where there is no second anchor (or beyond float16);
    `confidence` is the largest softmax probability, 0 to 1.
    """

    active: UInt8[np.ndarray, "h w"]
    anchor_label: UInt8[np.ndarray, "h w"]
    probability_label: UInt8[np.ndarray, "h w"]
    nearest_anchor: UInt8[np.ndarray, "h w"]
    predicted: UInt8[np.ndarray, "h w"]
    margin: Float16[np.ndarray, "h w"]
    confidence: Float16[np.ndarray, "h w"]


NAMES = tuple(field.name for field in fields(LabelArrays))
DTYPES = {name: np.dtype("f2" if name in ("margin", "confidence") else "u1") for name in NAMES}


def faults(labels: LabelArrays, categories: int) -> list[str]:
    """What is wrong with the arrays of one image, a sentence each; none if they are complete and agree."""
    found = [f"{name} holds {UNWRITTEN}, never written" for name in NAMES if _unwritten(getattr(labels, name))]
    for name in ("nearest_anchor", "predicted"):
        largest = getattr(labels, name).max()
        if largest >= categories and largest != UNWRITTEN:
            found.append(f"{name} must be below {categories}, found {largest}")
    if (labels.active > (BY_ANCHOR | BY_PROBABILITY)).any():
        found.append(f"active must be 0 to 3, found {labels.active.max()}")
    pairs = (("anchor_label", "nearest_anchor", BY_ANCHOR), ("probability_label", "predicted", BY_PROBABILITY))
    for label, category, bit in pairs:
        expected = np.where(labels.active & bit, getattr(labels, category), IGNORE)
        wrong = np.count_nonzero(getattr(labels, label) != expected)
        if wrong:
            found.append(
                f"{label} must be {category} where active has bit {bit} and 255 elsewhere, found {wrong} others"
            )
    if not (labels.margin >= 0).all():
        found.append("margin must be 0 or more, found a negative value or nan (never written)")
    if not ((labels.confidence >= 0) & (labels.confidence <= 1)).all():
        found.append("confidence must be 0 to 1, found a value outside or nan (never written)")
    return found


def _unwritten(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and bool((values == UNWRITTEN).any())


class LabelStatistics:
    """Counts over any number of images in constant memory, the margin's distribution included.

    float16 values that are not negative sort as their bit patterns do, so a histogram of the patterns is exact.
    """

    def __init__(self, categories: int) -> None:
        self.pixels = self.both = self.either = 0
        self.by_anchor = np.zeros(categories, np.int64)
        self.by_probability = np.zeros(categories, np.int64)
        self.margins = np.zeros(1 << 16, np.int64)

    def add(self, labels: LabelArrays) -> None:
        """Counts the pixels of one image that has no faults."""
        self.pixels += labels.active.size
        self.both += int(np.count_nonzero(labels.active == (BY_ANCHOR | BY_PROBABILITY)))
        self.either += int(np.count_nonzero(labels.active))
        for counts, label in ((self.by_anchor, labels.anchor_label), (self.by_probability, labels.probability_label)):
            counts += np.bincount(label.ravel(), minlength=256)[: len(counts)]
        self.margins += np.bincount(np.abs(labels.margin).view(np.uint16).ravel(), minlength=1 << 16)

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """`pixels`, and as shares of them what is active by each rule, in all and per category; quantiles of the margin.

        A quantile q is the smallest margin that at least q of all pixels do not exceed; None stands for infinity.
        """
        ranks = [-(-percent * self.pixels // 100) for percent in QUANTILES_IN_PERCENT]
        patterns = np.searchsorted(np.cumsum(self.margins), ranks).astype(np.uint16)
        quantiles = [float(value) for value in patterns.view(np.float16)]
        shares = {"anchor": self.by_anchor / self.pixels, "probability": self.by_probability / self.pixels}
        return {
            "pixels": self.pixels,
            "share": {rule: float(share.sum()) for rule, share in shares.items()}
            | {"both": self.both / self.pixels, "either": self.either / self.pixels},
            "per_category": [
                {"name": name} | {rule: float(share[i]) for rule, share in shares.items()}
                for i, name in enumerate(names)
            ],
            "margin_quantiles": {
                f"{percent / 100}": value if np.isfinite(value) else None
                for percent, value in zip(QUANTILES_IN_PERCENT, quantiles, strict=True)
            },
        }
