"""BDL, "BLF" in the tables of CAG-UDA: adversarial alignment with pseudo-labels (Li et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Read
from caguda.methods.adaptsegnet import AdaptSegNet
from caguda.methods.self_training import label_cross_entropies
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Session


@register("method", "bdl")
class Bdl(AdaptSegNet):
    """AdaptSegNet with the cross entropy of cached pseudo-labels; in the paper those of the rule `class_quantile`.

    The other half of the paper is the key `source_images: translated`: images that a CycleGAN made elsewhere.
    """

    method: Literal["bdl"]  # type: ignore[assignment]
    target_resolution: Literal["features", "image"] = "image"
    about: ClassVar[str] = "adversarial alignment and pseudo-labels"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels"}

    def target_terms(self, session: Session, target: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """L_CE of each rule's pseudo-labels."""
        return label_cross_entropies(session, target, logits, self.pseudo_labels, self.target_resolution)
