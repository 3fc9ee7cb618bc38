"""Pseudo-labels by the distances to the anchors (ATI and PLA, Section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from caguda.config_types import IGNORE, NonNegative
from caguda.pseudo_labels import Evidence, Rule
from caguda.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@register("rule", "anchor")
class AnchorRule(Rule):
    """The category of the closest anchor, where the second closest is farther by more than the margin."""

    name: ClassVar[str] = "anchor"
    reads: ClassVar[tuple[str, ...]] = ("nearest_anchor", "margin")
    margin: NonNegative
    unit: Literal["absolute", "mean_anchor_distance"]

    def threshold(self, anchor_distance: float) -> float:
        """The margin of Eq. 6 in the units of the features."""
        return self.margin * (anchor_distance if self.unit == "mean_anchor_distance" else 1.0)

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The closest anchor where d2 - d1 > margin, strictly and in float32; 255 elsewhere: Eq. 6 and 7."""
        import numpy as np

        active = evidence["margin"] > np.float32(self.threshold(anchor_distance))
        return np.where(active, evidence["nearest_anchor"], np.uint8(IGNORE))
