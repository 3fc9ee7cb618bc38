"""AdaptSegNet: adversarial alignment of the network's output (Tsai et al., CVPR 2018), one level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Count, NonNegative, Section
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session


class OutputDiscriminator(Section):
    """The discriminator's settings: its learning rate, kernel and width, the resolution of its input, and its loss.

    Kernel 4 is the discriminator of AdaptSegNet, kernel 3 that of the warm-up of CAG-UDA.
    """

    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    kernel: Literal[3, 4] = 4
    width: Count = 64
    resolution: Literal["features", "image"] = "image"
    objective: Literal["cross_entropy", "least_squares"] = "cross_entropy"


@register("method", "adaptsegnet")
class AdaptSegNet(Method):
    """Training on source labels and target images, so that a discriminator cannot tell both domains' softmax maps apart."""

    method: Literal["adaptsegnet"]
    weight: NonNegative = 1e-3
    discriminator: OutputDiscriminator = OutputDiscriminator()
    about: ClassVar[str] = "adversarial alignment of the output"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The discriminator, with a channel for each category."""
        from caguda.networks.layers.discriminator import DISCRIMINATORS

        settings = self.discriminator
        module = DISCRIMINATORS[settings.kernel](session.categories, settings.width)
        return {"discriminator": ExtraModule(module, settings.learning_rate)}

    def discriminator_input(self, logits: Tensor) -> Tensor:
        """The discriminator's input, a map for each category: here the softmax."""
        return logits.softmax(dim=1)

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the source, the losses of the target, and the discriminator's loss, in this order."""
        from caguda.equations.adversary import ADVERSARIES
        from caguda.equations.losses import image_cross_entropy, objective

        source, target = batch["source"], batch["target"]
        adversarial_loss, discriminator_loss = ADVERSARIES[self.discriminator.objective]
        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        source_input = self.discriminator_input(self._at_resolution(session, logits, source["image"])).detach()
        yield loss, {"source_cross_entropy": loss}
        logits = session.outputs(target["image"]).logits
        target_input = self.discriminator_input(self._at_resolution(session, logits, target["image"]))
        discriminator = session.extra_modules["discriminator"].requires_grad_(False)
        terms = {
            "adversarial": adversarial_loss(discriminator(target_input)),
            **self.target_terms(session, target, logits),
        }
        discriminator.requires_grad_(True)
        yield objective(terms, {name: self.weight if name == "adversarial" else 1.0 for name in terms}), terms
        discriminator = session.data_parallel("discriminator")
        loss = discriminator_loss(discriminator(source_input), discriminator(target_input.detach()))
        yield loss, {"discriminator": loss}

    def target_terms(self, session: Session, target: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """Further losses of a target batch, of weight 1; none here."""
        return {}

    def _at_resolution(self, session: Session, logits: Tensor, image: Tensor) -> Tensor:
        from caguda.equations.grid import enlarged_logits

        if self.discriminator.resolution == "features":
            return logits
        return enlarged_logits(logits, image.shape[-2:], session.align_corners)
