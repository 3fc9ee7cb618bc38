"""Category anchor-guided adaptation with new pseudo-labels in every iteration; the paper advises against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Read
from caguda.methods.cag import Cag
from caguda.pseudo_labels import PAPERS_RULES
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import Session


@register("method", "cag_every_iteration")
class CagEveryIteration(Cag):
    """`cag` with pseudo-labels of the network in training in place of those of the frozen model."""

    method: Literal["cag_every_iteration"]  # type: ignore[assignment]
    about: ClassVar[str] = "anchors, pseudo-labels of every iteration"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def target_labels(self, session: Session, target: Mapping[str, Tensor], outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The pseudo-labels of a target batch by anchors and by probability, (n, H, W) each: Eq. 6, 7 and 11.

        They are those of the network in training.
        """
        from caguda.equations.grid import enlarged_labels
        from caguda.equations.labels import by_anchor, by_probability, pseudo_labels

        anchor, probability = (self.pseudo_labels[name] for name in PAPERS_RULES)
        assert isinstance(anchor, AnchorRule) and isinstance(probability, ProbabilityRule)
        anchors, size = session.anchors, target["image"].shape[-2:]
        margin = anchor.threshold(anchors.mean_distance)
        anchored = by_anchor(outputs.features.detach(), anchors.vectors, anchors.present, margin)
        probable = by_probability(outputs.logits.detach(), probability.p0)
        anchor_label = pseudo_labels(anchored.nearest, anchored.active)
        probability_label = pseudo_labels(probable.predicted, probable.active)
        return (
            enlarged_labels(anchor_label, size, session.align_corners),
            enlarged_labels(probability_label, size, session.align_corners),
        )
