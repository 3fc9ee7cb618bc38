"""Category anchor-guided adaptation: one stage of Algorithm 1, lines 7 to 10, on fixed anchors and pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from caguda.config_frames import NonNegative, Section
from caguda.config_run import DomainName, Method, Read
from caguda.kinds import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import AnchorTensors, Batch, Session

RULES = ("anchor", "probability")


class Weights(Section):
    """The weights of Eq. 12: lambda1 on both distance losses, lambda2 on each cross entropy of a pseudo-label."""

    distance: NonNegative
    anchor_cross_entropy: NonNegative
    probability_cross_entropy: NonNegative


class Distance(Section):
    """The readings of Eq. 8 and 10: the norm, which pixels count, in which unit, and whose labels the target has."""

    norm: Literal["l2", "squared_l2", "class_mean"] = "l2"
    pixels: Literal["all", "correct"] = "all"
    unit: Literal["absolute", "mean_anchor_distance"] = "mean_anchor_distance"
    target_labels: Literal["anchor", "probability"] = "anchor"


@register("method", "cag")
class CategoryAnchors(Method):
    """Training on source labels, on distances to the anchors, and on pseudo-labels by anchors and by probability.

    The source's cross entropy is at the resolution of the image, distances are at that of f_D, where features and anchors
    live; the target's cross entropies at either, as `target_resolution` says. Each domain passes by itself: where batch
    normalisation is trained, it normalises either with its own statistics.
    """

    method: Literal["cag"]
    weights: Weights
    distance: Distance = Distance()
    target_resolution: Literal["features", "image"] = "features"
    about: ClassVar[str] = "anchors and pseudo-labels"
    uses_anchors: ClassVar[bool] = True

    @model_validator(mode="after")
    def _has_both_rules(self) -> CategoryAnchors:
        if sorted(self.pseudo_labels) != sorted(RULES):
            raise ValueError(
                f"pseudo_labels: must be the rules {' and '.join(RULES)}, found {', '.join(self.pseudo_labels) or 'none'}"
            )
        return self

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels"}

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Eq. 12 on a batch of the source, then on one of the target."""
        from caguda.equations.losses import objective

        source, target = batch["source"], batch["target"]
        terms = self.source_terms(session, session.outputs(source["image"]), source["label"])
        yield objective(terms, self.weights_of(terms)), terms
        terms = self.target_terms(
            session, session.outputs(target["image"]), target["anchor_label"], target["probability_label"]
        )
        yield objective(terms, self.weights_of(terms)), terms

    def weights_of(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """The weight of every term of Eq. 12."""
        distance, entropies = self.weights.distance, self.weights.model_dump()
        known = {**entropies, "source_cross_entropy": 1.0, "source_distance": distance, "target_distance": distance}
        return {name: known[name] for name in terms}

    def source_terms(self, session: Session, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """L_CE and L_dis of the source, Eq. 2 and 8: `labels` are those of the images, (n, H, W)."""
        from caguda.equations.losses import image_cross_entropy

        return {
            "source_cross_entropy": session.reduced(image_cross_entropy(outputs.logits, labels)),
            "source_distance": self.distance_to_anchors(session, outputs, labels),
        }

    def target_terms(
        self, session: Session, outputs: Outputs, anchor_label: Tensor, probability_label: Tensor
    ) -> dict[str, Tensor]:
        """L_dis and both L_CE of the target's pseudo-labels, Eq. 9 to 11: labels (n, H, W), at the image's size or f_D's."""
        from caguda.equations.losses import feature_cross_entropy, image_cross_entropy

        cross_entropy = image_cross_entropy if self.target_resolution == "image" else feature_cross_entropy
        by_anchor = self.distance.target_labels == "anchor"
        return {
            "target_distance": self.distance_to_anchors(
                session, outputs, anchor_label if by_anchor else probability_label
            ),
            "anchor_cross_entropy": session.reduced(cross_entropy(outputs.logits, anchor_label)),
            "probability_cross_entropy": session.reduced(cross_entropy(outputs.logits, probability_label)),
        }

    def distance_to_anchors(self, session: Session, outputs: Outputs, labels: Tensor) -> Tensor:
        """L_dis of some labels (n, H, W), which are taken at the resolution of f_D: Eq. 8 and 10."""
        from caguda.equations.anchors import correctly_predicted, labels_at
        from caguda.equations.losses import DISTANCES

        anchors: AnchorTensors = session.anchors
        features, unit = (
            outputs.features,
            anchors.mean_distance if self.distance.unit == "mean_anchor_distance" else 1.0,
        )
        counted = labels_at(labels, (features.shape[-2], features.shape[-1]))
        if self.distance.pixels == "correct":
            counted = correctly_predicted(counted, outputs.logits)
        loss = DISTANCES[self.distance.norm]
        return session.reduced(loss(features / unit, anchors.vectors / unit, counted, anchors.present))
