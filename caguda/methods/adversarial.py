"""Global adversarial alignment of both domains: the paper's warm-up (Algorithm 1, line 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Count, NonNegative, Section
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import Batch, Objective, Session


class Discriminator(Section):
    """The discriminator's settings: its learning rate, its width, and its input."""

    learning_rate: Annotated[float, Field(gt=0.0)]
    width: Count = 64
    input: Literal["softmax", "features"] = "softmax"


@register("method", "adversarial")
class Adversarial(Method):
    """Training on source labels and target images, so that a discriminator cannot tell the domains apart.

    Each domain has a forward pass of its own: batch normalisation, where it is trained, normalises each domain with its
    own statistics.
    """

    method: Literal["adversarial"]
    weight: NonNegative
    discriminator: Discriminator
    about: ClassVar[str] = "adversarial global alignment"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def frame_order(self, adaptation: int) -> str:
        return "warmup"

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The discriminator."""
        from caguda.networks.layers.discriminator import discriminator

        settings = self.discriminator
        channels = session.categories if settings.input == "softmax" else session.network.classifier.in_channels
        return {"discriminator": ExtraModule(discriminator(channels, settings.width), settings.learning_rate)}

    def discriminator_input(self, outputs: Outputs) -> Tensor:
        """The discriminator's input: the softmax of the logits, or the features f_D."""
        return outputs.logits.softmax(dim=1) if self.discriminator.input == "softmax" else outputs.features

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the source (Eq. 2), the adversarial loss on the target, and the discriminator's loss, in this order."""
        from caguda.equations.adversary import adversarial_loss, discriminator_loss
        from caguda.equations.losses import image_cross_entropy

        discriminator = session.extra_modules["discriminator"]
        outputs = session.outputs(batch["source"]["image"])
        supervised = session.reduced(
            image_cross_entropy(outputs.logits, batch["source"]["label"], session.align_corners)
        )
        source_input = self.discriminator_input(outputs).detach()
        yield supervised, {"source_cross_entropy": supervised}
        target_input = self.discriminator_input(session.outputs(batch["target"]["image"]))
        discriminator.requires_grad_(False)
        adversarial = adversarial_loss(discriminator(target_input))
        discriminator.requires_grad_(True)
        yield self.weight * adversarial, {"adversarial": adversarial}
        parallel_discriminator = session.data_parallel("discriminator")
        loss = discriminator_loss(parallel_discriminator(source_input), parallel_discriminator(target_input.detach()))
        yield loss, {"discriminator": loss}
