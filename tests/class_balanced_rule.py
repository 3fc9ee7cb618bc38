"""CBST as its code has it: `class_balanced` with thresholds from every fourth pixel of a category."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from caguda.config_types import IGNORE, Fraction
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register


@register("rule", "class_balanced_sampled")
class ClassBalancedSampled(Rule):
    name: ClassVar[str] = "class_balanced_sampled"
    reads: ClassVar[tuple[str, ...]] = ("predicted", "confidence")
    portion: Fraction
    growth: Fraction = 0.05

    def of_stage(self, stage: int) -> Self:
        return self.model_copy(update={"portion": min(1.0, round(self.portion + self.growth * (stage - 1), 6))})

    def prepare(self, images: Iterable[Evidence], categories: int) -> list[float]:
        """k_c: the confidence that a share `portion` of the pixels of category c reaches; 1 where that is no pixel."""
        confidences: list[list[NDArray[Any]]] = [[np.empty(0, np.float32)] for _ in range(categories)]
        for image in images:
            for category in np.unique(image["predicted"]):
                confidences[category].append(image["confidence"][image["predicted"] == category][::4])
        ordered = [np.append(1.0, np.sort(np.concatenate(found))[::-1]) for found in confidences]
        return [float(values[int((len(values) - 1) * self.portion)]) for values in ordered]

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: list[float]) -> NDArray[np.uint8]:
        active = evidence["confidence"] >= np.float32(prepared)[evidence["predicted"]]
        return np.where(active, evidence["predicted"], np.uint8(IGNORE))
