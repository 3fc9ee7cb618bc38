"""Adversarial alignment of both domains as a whole: the paper's warm-up (Algorithm 1, line 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_frames import Few, NonNegative, Section
from caguda.config_run import DomainName, Method, Part, Read
from caguda.kinds import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import Batch, Session


class Discriminator(Section):
    """What tells the domains apart: what it sees, its width, and the learning rate that it is trained with."""

    learning_rate: Annotated[float, Field(gt=0.0)]
    width: Few = 64
    input: Literal["softmax", "features"] = "softmax"


@register("method", "adversarial")
class Adversarial(Method):
    """Training on source labels and target images, so that a discriminator cannot tell the domains apart.

    Each domain passes by itself: where batch normalisation is trained, it normalises either with its own statistics, and
    what is left to align is what statistics cannot.
    """

    method: Literal["adversarial"]
    weight: NonNegative
    discriminator: Discriminator
    about: ClassVar[str] = "adversarial global alignment"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def frame_order(self, stage: int) -> str:
        return "warmup"

    def parts(self, session: Session) -> Mapping[str, Part]:
        """The discriminator, of the softmax of the logits or of f_D's features."""
        from caguda.networks.layers.discriminator import discriminator

        of_softmax = self.discriminator.input == "softmax"
        channels = session.categories if of_softmax else session.network.classifier.in_channels
        return {
            "discriminator": Part(discriminator(channels, self.discriminator.width), self.discriminator.learning_rate)
        }

    def discriminated(self, outputs: Outputs) -> Tensor:
        """What the discriminator sees of the network's outputs."""
        return outputs.logits.softmax(dim=1) if self.discriminator.input == "softmax" else outputs.features

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Eq. 2 on the source, then what deceives the discriminator on the target, then the discriminator's own loss."""
        from caguda.equations.losses import image_cross_entropy
        from caguda.equations.warmup import adversarial_loss, discriminator_loss

        discriminator = session.parts["discriminator"]
        outputs = session.outputs(batch["source"]["image"])
        supervised = session.reduced(image_cross_entropy(outputs.logits, batch["source"]["label"]))
        source_seen = self.discriminated(outputs).detach()
        yield supervised, {"source_cross_entropy": supervised}
        target_seen = self.discriminated(session.outputs(batch["target"]["image"]))
        discriminator.requires_grad_(False)
        adversarial = adversarial_loss(discriminator(target_seen))
        discriminator.requires_grad_(True)
        yield self.weight * adversarial, {"adversarial": adversarial}
        shared = session.data_parallel("discriminator")
        own = discriminator_loss(shared(source_seen), shared(target_seen.detach()))
        yield own, {"discriminator": own}
