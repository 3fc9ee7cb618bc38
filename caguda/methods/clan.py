"""CLAN: adversarial alignment that is stronger where two classifiers disagree (Luo et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import ExtraModule
from caguda.config_types import Fraction, NonNegative
from caguda.methods.adaptsegnet import AdaptSegNet
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session


@register("method", "clan")
class Clan(AdaptSegNet):
    """Training with two classifiers of f_D, whose sum is the prediction and whose discrepancy weighs the adversarial loss.

    The discrepancy plays no role in the first share `preheat` of the training. The trained model has one classifier with the
    sum of both classifiers' weights, which gives the sum of their logits.
    """

    method: Literal["clan"]  # type: ignore[assignment]
    focus: NonNegative = 2.0
    epsilon: NonNegative = 0.4
    local: NonNegative = 40.0
    similarity_weight: NonNegative = 1e-2
    preheat: Fraction = 0.05
    about: ClassVar[str] = "category-level adversarial alignment"

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The discriminator, and the second classifier with fresh weights and the learning rate of the first."""
        from torch import nn

        first = session.network.classifier
        second = nn.Conv2d(first.in_channels, first.out_channels, 1)
        rate = self.optimiser.learning_rate * self.optimiser.head_factor
        return {**super().extra_modules(session), "second_classifier": ExtraModule(second, rate)}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """The focal losses of both classifiers, the adversarial loss, the similarity, and the discriminator's loss, in this order."""
        from caguda.equations.adversary import (
            classifier_similarity,
            prediction_discrepancy,
            weighted_adversarial_loss,
            weighted_discriminator_loss,
        )  # fmt: skip
        from caguda.equations.grid import enlarged_logits
        from caguda.equations.losses import objective
        from caguda.equations.regularisers import focal_cross_entropy

        source, damping = batch["source"], 1 - session.iteration / self.iterations
        weights = (1.0, 0.0) if session.iteration < self.preheat * self.iterations else (self.epsilon, self.local)
        first, second = self._both_logits(session, source["image"])
        terms = {
            "first_focal": session.reduced(focal_cross_entropy(first, source["label"], self.focus)),
            "second_focal": session.reduced(focal_cross_entropy(second, source["label"], self.focus)),
        }
        source_input = (first + second).detach().softmax(dim=1)
        yield objective(terms, dict.fromkeys(terms, 1.0)), terms

        first, second = self._both_logits(session, batch["target"]["image"])
        target_input, discrepancy = (first + second).softmax(dim=1), prediction_discrepancy(first, second)
        discriminator = session.extra_modules["discriminator"].requires_grad_(False)
        d_target = enlarged_logits(discriminator(target_input), target_input.shape[-2:], session.align_corners)
        discriminator.requires_grad_(True)
        loss = weighted_adversarial_loss(d_target, discrepancy, *weights)
        yield self.weight * damping * loss, {"adversarial": loss}

        classifiers = session.network.classifier, session.extra_modules["second_classifier"]
        loss = classifier_similarity(*(list(classifier.parameters()) for classifier in classifiers))
        yield self.similarity_weight * damping * loss, {"similarity": loss}

        discriminator = session.data_parallel("discriminator")
        d_source, d_target = discriminator(source_input), discriminator(target_input.detach())
        d_target = enlarged_logits(d_target, target_input.shape[-2:], session.align_corners)
        loss = weighted_discriminator_loss(d_source, d_target, discrepancy.detach(), *weights)
        yield loss, {"discriminator": loss}

    def _both_logits(self, session: Session, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both classifiers for images (n, 3, H, W), enlarged to their size."""
        from caguda.equations.grid import enlarged_logits

        outputs = session.outputs(image)
        second = session.data_parallel("second_classifier")(outputs.features)
        size, align_corners = image.shape[-2:], session.align_corners
        return enlarged_logits(outputs.logits, size, align_corners), enlarged_logits(second, size, align_corners)

    def after_training(self, session: Session) -> None:
        """Adds the weights of the second classifier to those of the network's."""
        import torch

        second = session.extra_modules["second_classifier"]
        with torch.no_grad():
            for weight, added in zip(session.network.classifier.parameters(), second.parameters(), strict=True):
                weight.add_(added)
