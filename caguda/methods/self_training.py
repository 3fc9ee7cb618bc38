"""Training on pseudo-labels of any rules, as those methods do that need no anchors and no second network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_frames import NonNegative
from caguda.config_run import DomainName, Method, Read
from caguda.kinds import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Session


@register("method", "self_training")
class SelfTraining(Method):
    """Training on source labels, and on cached pseudo-labels of every rule that the run names."""

    method: Literal["self_training"]
    weight: NonNegative = 1.0
    target_resolution: Literal["features", "image"] = "features"
    about: ClassVar[str] = "pseudo-labels"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels"}

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """L_CE of the source's labels, Eq. 2, then `weight` times L_CE of every rule's pseudo-labels, as Eq. 9 and 11."""
        from caguda.equations.losses import feature_cross_entropy, image_cross_entropy, objective

        source, target = batch["source"], batch["target"]
        loss = session.reduced(image_cross_entropy(session.outputs(source["image"]).logits, source["label"]))
        yield loss, {"source_cross_entropy": loss}
        logits = session.outputs(target["image"]).logits
        cross_entropy = image_cross_entropy if self.target_resolution == "image" else feature_cross_entropy
        terms = {
            f"{rule}_cross_entropy": session.reduced(cross_entropy(logits, target[f"{rule}_label"]))
            for rule in self.pseudo_labels
        }
        yield objective(terms, dict.fromkeys(terms, self.weight)), terms
