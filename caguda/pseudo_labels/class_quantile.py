"""Pseudo-labels above a quantile of each predicted category's probabilities, or above a cap (BDL, FDA)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from caguda.config_types import Fraction
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@register("rule", "class_quantile")
class ClassQuantileRule(Rule):
    """The most probable category, where its probability reaches a quantile of the category's, or the cap."""

    name: ClassVar[str] = "class_quantile"
    reads: ClassVar[tuple[str, ...]] = ("predicted", "confidence")
    share: Fraction
    cap: Fraction

    def prepare(self, images: Iterable[Evidence], categories: int) -> list[float]:
        """The threshold of each category."""
        from caguda.equations.thresholds import quantile_thresholds

        thresholds: list[float] = quantile_thresholds(images, categories, self.share, self.cap).tolist()
        return thresholds

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The most probable category where its softmax reaches its threshold, in float32; 255 elsewhere."""
        import numpy as np

        from caguda.equations.thresholds import labels_by_threshold

        return labels_by_threshold(evidence["predicted"], evidence["confidence"], np.asarray(prepared, np.float32))
