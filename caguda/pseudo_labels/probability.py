"""Pseudo-labels by the classifier's probability (Section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from caguda.config_types import IGNORE, Fraction
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@register("rule", "probability")
class ProbabilityRule(Rule):
    """The most probable category, where its probability exceeds P0."""

    name: ClassVar[str] = "probability"
    reads: ClassVar[tuple[str, ...]] = ("predicted", "confidence")
    p0: Fraction

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The most probable category where its softmax > P0, strictly and in float32; 255 elsewhere: Eq. 11."""
        import numpy as np

        active = evidence["confidence"] > np.float32(self.p0)
        return np.where(active, evidence["predicted"], np.uint8(IGNORE))
