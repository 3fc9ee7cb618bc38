"""ProDA, stage 1: pseudo-labels that prototypes of the target correct in every iteration (Zhang et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import model_validator

from caguda.config_frames import Augmentation
from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Fraction, NonNegative, Section
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.networks.layers.prototypes import Prototypes
    from caguda.stages.session import Batch, Objective, Session

STRONG = Augmentation(color_jitter=0.5, blur=1.15)
"""The random changes of a target image in its strongly augmented view."""
AT_LEAST = 10  # pixels that a category needs in an image to have a mean feature there, as published


class TargetWeights(Section):
    """The weights of the target's losses, by their names, beside 1 for the source's cross entropy."""

    target_cross_entropy: NonNegative = 0.1
    reverse_cross_entropy: NonNegative = 1.0
    uniform_divergence: NonNegative = 0.1
    consistency: NonNegative = 10.0


@register("method", "proda")
class Proda(Method):
    """Training on source labels, on soft labels that prototypes correct, and on the consistency of two views of the target.

    The soft labels are those of the network that the training starts from, which stays as it is. The prototypes are means
    of a teacher's features. The teacher is the moving average of the network. Both copies work as the network does in
    training. All losses of the target are at f_D's resolution. docs/methods.md lists the departures from the public code.
    """

    method: Literal["proda"]
    weights: TargetWeights = TargetWeights()
    temperature: NonNegative = 1.0
    teacher_decay: Fraction = 0.999
    prototype_decay: Fraction = 0.9999
    about: ClassVar[str] = "pseudo-labels corrected by prototypes"

    @model_validator(mode="after")
    def _starts_from_a_run(self) -> Proda:
        if self.start is None:
            raise ValueError("start: proda must start from a run, whose model gives soft labels")
        return self

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The teacher, the network that the training starts from, and the prototypes."""
        from caguda.networks.layers.copies import untrained_copy
        from caguda.networks.layers.prototypes import Prototypes

        network = session.network
        modules = {
            "teacher": untrained_copy(network, self.batch_norm),
            "start": untrained_copy(network, self.batch_norm),
            "prototypes": Prototypes(session.categories, network.classifier.in_channels),
        }
        return {name: ExtraModule(module) for name, module in modules.items()}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the source (Eq. 2), then the losses of the target's labels and of the consistency of its views."""
        from caguda.datasets.image_batches import scaled
        from caguda.datasets.transforms import recoloured
        from caguda.equations.losses import image_cross_entropy, objective

        source, weak = batch["source"], batch["target"]["image"]
        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
        of_teacher = session.extra_modules["teacher"](scaled(weak, session.device))
        self.move_prototypes(session, of_teacher)
        labels = self.rectified_labels(session, weak, of_teacher.features)
        strong = recoloured(weak, STRONG, session.generators("strong view", len(weak)))
        terms = self.label_terms(session, session.outputs(weak).logits, labels)
        terms["consistency"] = self.consistency(session, session.outputs(strong).features, of_teacher.features)
        yield objective(terms, self.weights.model_dump()), terms

    def move_prototypes(self, session: Session, of_teacher: Outputs) -> None:
        """Move the prototypes by the mean features of each image of the whole batch, by the teacher's own predictions."""
        from caguda.equations.prototypes import class_means

        predicted = of_teacher.logits.argmax(dim=1)
        means = class_means(of_teacher.features, predicted, session.categories, AT_LEAST)
        sums, added = session.sum(means.vectors.double().sum(dim=0)), session.sum(means.present.sum(dim=0))
        _prototypes(session).move(sums, added, self.prototype_decay)

    def rectified_labels(self, session: Session, images: Tensor, features: Tensor) -> Tensor:
        """The labels (n, h, w) of target images: the largest soft label after the correction; IGNORE where all of them are 0.

        `features` are the teacher's for the same images.
        """
        from caguda.datasets.image_batches import scaled
        from caguda.equations import IGNORE
        from caguda.equations.prototypes import category_weights, rectified_probabilities

        prototypes = _prototypes(session)
        soft = session.extra_modules["start"](scaled(images, session.device)).logits.softmax(dim=1)
        weights = category_weights(features, prototypes.vectors, prototypes.present, self.temperature)
        largest, labels = rectified_probabilities(weights, soft).max(dim=1)
        return labels.masked_fill(largest == 0, IGNORE)

    def label_terms(self, session: Session, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The symmetric cross entropy of the labels (n, h, w) in its two parts, and the divergence of all pixels."""
        from caguda.equations.losses import cross_entropy
        from caguda.equations.regularisers import reverse_cross_entropy_loss, uniform_divergence_loss

        every_pixel = labels.new_zeros(labels.shape)
        return {
            "target_cross_entropy": session.reduced(cross_entropy(logits, labels)),
            "reverse_cross_entropy": session.reduced(reverse_cross_entropy_loss(logits, labels)),
            "uniform_divergence": session.reduced(uniform_divergence_loss(logits, every_pixel)),
        }

    def consistency(self, session: Session, student: Tensor, teacher: Tensor) -> Tensor:
        """The divergence of the weights of prototypes in two views, by the features (n, d, h, w) of network and teacher."""
        from caguda.equations.anchors import distances
        from caguda.equations.prototypes import consistency_loss

        prototypes = _prototypes(session)
        of_student, of_teacher = (
            distances(features, prototypes.vectors)[:, prototypes.present] for features in (student, teacher)
        )
        return session.reduced(consistency_loss(of_student, of_teacher, self.temperature))

    def after_update(self, session: Session) -> None:
        """Move the teacher's weights towards the network's."""
        from caguda.equations.teacher import update_teacher

        update_teacher(session.extra_modules["teacher"], session.network, self.teacher_decay)


def _prototypes(session: Session) -> Prototypes:
    return cast("Prototypes", session.extra_modules["prototypes"])
