"""CRST: class-balanced self-training with regularised confidence (Zou et al., ICCV 2019), the variant MRKLD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_types import NonNegative
from caguda.methods.cbst import Cbst
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Session


@register("method", "crst")
class Crst(Cbst):
    """CBST with the divergence of the predictions from uniform ones, at f_D's resolution on pixels with a pseudo-label."""

    method: Literal["crst"]  # type: ignore[assignment]
    divergence_weight: NonNegative = 0.1
    about: ClassVar[str] = "class-balanced pseudo-labels, regularised"

    def target_terms(self, session: Session, target: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """L_CE of each rule's pseudo-labels, and the divergence on the pixels that each labels."""
        from caguda.equations.grid import labels_at
        from caguda.equations.regularisers import uniform_divergence_loss

        terms = super().target_terms(session, target, logits)
        for rule in sorted(self.pseudo_labels):
            labels = labels_at(target[f"{rule}_label"], logits.shape[-2:], session.align_corners)
            terms[f"{rule}_divergence"] = session.reduced(uniform_divergence_loss(logits, labels))
        return terms

    def weights_of(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        factors = {name: self.divergence_weight if name.endswith("_divergence") else 1.0 for name in terms}
        return {name: self.weight * factor for name, factor in factors.items()}
