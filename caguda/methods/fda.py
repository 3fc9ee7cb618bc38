"""FDA: source images with the target's low frequencies (Yang and Soatto, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import DomainName, Method, Read
from caguda.config_types import NonNegative
from caguda.methods.self_training import label_cross_entropies
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session


@register("method", "fda")
class Fda(Method):
    """Training on translated source images, on the entropy of target images, and on pseudo-labels if there are any.

    Every source image takes the low frequencies of a target image of its batch: those below `beta` times the shorter side.
    """

    method: Literal["fda"]
    beta: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.05
    entropy_weight: NonNegative = 5e-3
    entropy_power: NonNegative = 2.0
    target_resolution: Literal["features", "image"] = "features"
    about: ClassVar[str] = "the target's low frequencies"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels" if self.pseudo_labels else "images"}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the translated source, then the entropy and L_CE of each rule's pseudo-labels on the target."""
        from torch.nn.functional import interpolate

        from caguda.equations.losses import image_cross_entropy, objective
        from caguda.equations.regularisers import power_entropy_loss
        from caguda.equations.translation import fourier_translated

        source, target = batch["source"], batch["target"]
        style = interpolate(target["image"].float(), source["image"].shape[-2:], mode="bilinear")
        translated = fourier_translated(source["image"].float(), style, self.beta)
        logits = session.outputs(translated).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
        logits = session.outputs(target["image"]).logits
        terms: dict[str, Tensor] = {"entropy": session.reduced(power_entropy_loss(logits, self.entropy_power))}
        terms |= label_cross_entropies(session, target, logits, self.pseudo_labels, self.target_resolution)
        yield objective(terms, {name: self.entropy_weight if name == "entropy" else 1.0 for name in terms}), terms
