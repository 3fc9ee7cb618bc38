"""CyCADA's adaptation: adversarial alignment of the network's scores, pixel by pixel (Hoffman et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Count, Fraction, NonNegative, Section
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.stages.session import Batch, Objective, Session

WINDOW = 100  # iterations


class PixelDiscriminator(Section):
    """The settings of a discriminator of single pixels: its learning rate, and the channels of its first layer."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    width: Count = 512


@register("method", "cycada")
class Cycada(Method):
    """Training on source labels and target images, as long as a discriminator of single pixels can tell the domains apart.

    The network is trained in an iteration only if the discriminator was right, in the mean of the last 100 iterations, on a
    larger share of the pixels than `gate`.
    """

    method: Literal["cycada"]
    weight: NonNegative = 0.1
    discriminator: PixelDiscriminator = PixelDiscriminator()
    gate: Fraction = 0.6
    about: ClassVar[str] = "adversarial alignment of scores"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The discriminator, and the shares of pixels on which it was right in the last iterations."""
        from caguda.networks.layers.discriminator import RecentValues, pixel_discriminator

        discriminator = pixel_discriminator(session.categories, self.discriminator.width)
        return {
            "discriminator": ExtraModule(discriminator, self.discriminator.learning_rate),
            "recent_accuracy": ExtraModule(RecentValues(WINDOW)),
        }

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """The discriminator's loss; then, if it is right often enough, L_CE of the source and the adversarial loss."""
        import torch

        from caguda.equations.adversary import adversarial_loss, discriminator_loss
        from caguda.equations.losses import LossSum, image_cross_entropy, objective

        source, target = batch["source"], batch["target"]
        of_source, of_target = session.outputs(source["image"]).logits, session.outputs(target["image"]).logits
        discriminator = session.data_parallel("discriminator")
        d_source, d_target = discriminator(of_source.detach()), discriminator(of_target.detach())
        loss = discriminator_loss(d_source, d_target)
        right = (d_source > 0).sum(dtype=torch.float64) + (d_target < 0).sum(dtype=torch.float64)
        accuracy = session.mean(
            LossSum(right, right.new_tensor(d_source.numel() + d_target.numel(), dtype=torch.int64))
        )
        yield loss, {"discriminator": loss, "discriminator_accuracy": accuracy}

        recent = session.extra_modules["recent_accuracy"]
        if not session.holds(recent(session.iteration, accuracy) > self.gate):
            return
        discriminator = session.extra_modules["discriminator"].requires_grad_(False)
        adversarial = adversarial_loss(discriminator(of_target))
        discriminator.requires_grad_(True)
        supervised = session.reduced(image_cross_entropy(of_source, source["label"], session.align_corners))
        terms = {"source_cross_entropy": supervised, "adversarial": adversarial}
        yield objective(terms, {"source_cross_entropy": 1.0, "adversarial": self.weight}), terms
