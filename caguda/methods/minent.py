"""MinEnt: direct minimisation of the target's entropy (Vu et al., CVPR 2019), one level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Method, Read
from caguda.config_types import NonNegative
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.equations.losses import LossSum
    from caguda.stages.session import Batch, Objective, Session


@register("method", "minent")
class MinEnt(Method):
    """Training on source labels and on the entropy of the network's predictions of target images."""

    method: Literal["minent"]
    weight: NonNegative = 1e-3
    target_resolution: Literal["features", "image"] = "image"
    about: ClassVar[str] = "least entropy"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def target_loss(self, logits: Tensor) -> LossSum:
        """The loss of the target's predictions: the entropy, in 0..1."""
        from caguda.equations.regularisers import entropy_loss

        return entropy_loss(logits)

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the source, then the loss of the target's predictions."""
        from caguda.equations.grid import enlarged_logits
        from caguda.equations.losses import image_cross_entropy

        source, image = batch["source"], batch["target"]["image"]
        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
        logits = session.outputs(image).logits
        if self.target_resolution == "image":
            logits = enlarged_logits(logits, image.shape[-2:], session.align_corners)
        loss = session.reduced(self.target_loss(logits))
        yield self.weight * loss, {"target_loss": loss}
