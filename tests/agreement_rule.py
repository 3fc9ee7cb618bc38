"""Pseudo-labels where anchors and classifier agree, and the classifier is sure enough."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from caguda.classes import IGNORE
from caguda.config_types import Fraction
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register


@register("rule", "agreement")
class Agreement(Rule):
    name: ClassVar[str] = "agreement"
    reads: ClassVar[tuple[str, ...]] = ("nearest_anchor", "predicted", "confidence")
    p0: Fraction

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: None) -> NDArray[np.uint8]:
        same = evidence["nearest_anchor"] == evidence["predicted"]
        active = same & (evidence["confidence"] > np.float32(self.p0))
        return np.where(active, evidence["predicted"], np.uint8(IGNORE))
