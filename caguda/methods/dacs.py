"""DACS: training on mixtures of source and target images, which a mean teacher labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_frames import Augmentation
from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Fraction, NonNegative
from caguda.errors import UserError
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session

STRONG = Augmentation(color_jitter=0.25, blur=1.15)
"""The random changes of a mixed image."""


@register("method", "dacs")
class Dacs(Method):
    """Training on source labels, and on mixed images whose target pixels have the teacher's labels.

    DACS (Tranheden et al., WACV 2021). The teacher is the moving average of the network, and is trained by nothing else. It
    works as the network does in training: batch normalisation that is trained normalises a batch with its own statistics.
    docs/methods.md lists the departures from the public code.
    """

    method: Literal["dacs"]
    weight: NonNegative = 1.0
    teacher_decay: Fraction = 0.99
    threshold: Fraction = 0.968
    about: ClassVar[str] = "mixed images, labels of a mean teacher"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The teacher."""
        from caguda.networks.layers.copies import untrained_copy

        return {"teacher": ExtraModule(untrained_copy(session.network, self.batch_norm))}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """The objective of the source, then those of the target, with the teacher's labels of its images."""
        source, target = batch["source"], batch["target"]["image"]
        self._refuse_other_sizes(source["image"], target)
        yield self.source_objective(session, source)
        label, weights = self.teacher_labels(session, target)
        yield from self.target_objectives(session, source, target, label, weights)

    def source_objective(self, session: Session, source: Mapping[str, Tensor]) -> Objective:
        """L_CE of the source (Eq. 2)."""
        from caguda.equations.losses import image_cross_entropy

        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        return loss, {"source_cross_entropy": loss}

    def teacher_labels(self, session: Session, target: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's most probable category of each pixel of target images, and the pixel's weight, (n, H, W) each.

        The weight is the share of the target's pixels, of the whole batch, for which the teacher is confident.
        """
        from caguda.datasets.image_batches import scaled
        from caguda.equations.grid import enlarged_logits
        from caguda.equations.labels import by_probability
        from caguda.equations.mixing import confident_share

        logits = session.extra_modules["teacher"](scaled(target, session.device)).logits
        logits = enlarged_logits(logits, target.shape[-2:], session.align_corners)
        label, confidence, _ = by_probability(logits, self.threshold)
        share = session.mean(confident_share(confidence, self.threshold)).to(confidence.dtype)
        return label, share.expand_as(confidence)

    def target_objectives(
        self, session: Session, source: Mapping[str, Tensor], target: Tensor, label: Tensor, weights: Tensor
    ) -> Iterator[Objective]:
        """`weight` times the weighted cross entropy of the mixed images; `label` and `weights` are of the target's pixels."""
        images, labels, weights = self.mixtures(session, source, target, label, weights)
        loss = self.cross_entropy(session, images, labels, weights)
        yield self.weight * loss, {"mixed_cross_entropy": loss}

    def cross_entropy(self, session: Session, images: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """The weighted cross entropy of images at their resolution."""
        from caguda.equations.grid import enlarged_logits
        from caguda.equations.mixing import weighted_cross_entropy

        logits = enlarged_logits(session.outputs(images).logits, labels.shape[1:], session.align_corners)
        return session.reduced(weighted_cross_entropy(logits, labels, weights))

    def mixtures(
        self, session: Session, source: Mapping[str, Tensor], target: Tensor, label: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed images (n, 3, H, W), their labels and the weights of their pixels, (n, H, W) each.

        A pixel of the source has weight 1, one of the target the given label and weight.
        """
        import torch

        from caguda.datasets.transforms import recoloured
        from caguda.equations.mixing import categories_to_mix, class_mask, mixed

        generators = session.generators("mixture", len(target))
        orders = torch.stack([torch.randperm(session.categories, generator=generator) for generator in generators])
        mask = class_mask(source["label"], categories_to_mix(source["label"], orders.to(session.device)))
        images = recoloured(mixed(mask, source["image"], target), STRONG, generators)
        return images, mixed(mask, source["label"], label), mixed(mask, torch.ones_like(weights), weights)

    def after_update(self, session: Session) -> None:
        """Move the teacher's weights towards the network's."""
        from caguda.equations.teacher import ema_decay, update_teacher

        decay = ema_decay(session.iteration, self.teacher_decay)
        update_teacher(session.extra_modules["teacher"], session.network, decay)

    def _refuse_other_sizes(self, source: Tensor, target: Tensor) -> None:
        """UserError unless images of both domains have one size."""
        if source.shape != target.shape:
            found = " and ".join(f"{width}x{height}" for height, width in (source.shape[-2:], target.shape[-2:]))
            raise UserError(f"method {self.method}: source and target images must have one size to be mixed, found {found}; give "
                            "augmentation and target_augmentation the same crop")  # fmt: skip
