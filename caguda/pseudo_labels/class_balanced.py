"""Pseudo-labels of the same share of every predicted category (CBST)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from caguda.config_types import Fraction
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@register("rule", "class_balanced")
class ClassBalancedRule(Rule):
    """The most probable category, for the surest share of the pixels of each; the share grows with every stage."""

    name: ClassVar[str] = "class_balanced"
    reads: ClassVar[tuple[str, ...]] = ("predicted", "confidence")
    portion: Fraction
    growth: Fraction = 0.0
    most: Fraction = 1.0

    @model_validator(mode="after")
    def _most_is_not_less(self) -> Self:
        if self.portion > self.most:
            raise ValueError(f"portion: must be at most `most`, {self.most}, found {self.portion}")
        return self

    def of_stage(self, stage: int) -> Self:
        """The rule with the portion of a stage: `growth` more in each after the first, until it is `most`."""
        portion = min(self.most, round(self.portion + self.growth * (stage - 1), 12))
        return self.model_copy(update={"portion": portion})

    def prepare(self, images: Iterable[Evidence], categories: int) -> list[float]:
        """The thresholds k_c of CBST."""
        from caguda.equations.thresholds import class_balanced_thresholds

        thresholds: list[float] = class_balanced_thresholds(images, categories, self.portion).tolist()
        return thresholds

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The most probable category where its softmax reaches its threshold, in float32; 255 elsewhere."""
        import numpy as np

        from caguda.equations.thresholds import labels_by_threshold

        return labels_by_threshold(evidence["predicted"], evidence["confidence"], np.asarray(prepared, np.float32))
