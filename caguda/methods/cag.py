"""Category anchor-guided adaptation: one stage with fixed anchors and pseudo-labels (Algorithm 1, lines 7 to 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from caguda.config_run import DomainName, Method, Read
from caguda.config_types import NonNegative, Section
from caguda.pseudo_labels import PAPERS_RULES, are_papers_rules
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import Batch, Objective, Session


class Weights(Section):
    """The weights of Eq. 12: lambda1 of both distance losses, lambda2 of each cross entropy of pseudo-labels."""

    distance: NonNegative
    anchor_cross_entropy: NonNegative
    probability_cross_entropy: NonNegative


class Distance(Section):
    """The choices in Eq. 8 and 10: the norm, the pixels that count, the unit, and the target's labels."""

    norm: Literal["l2", "squared_l2", "class_mean"] = "l2"
    pixels: Literal["all", "correct"] = "all"
    unit: Literal["absolute", "mean_anchor_distance"] = "mean_anchor_distance"
    target_labels: Literal["anchor", "probability"] = "anchor"


@register("method", "cag")
class Cag(Method):
    """Training on source labels, on distances to the anchors, and on pseudo-labels by anchors and by probability.

    The source cross entropy is at the resolution of the image, the distances at that of f_D, the target cross entropies
    at `target_resolution`. Each domain has a forward pass of its own: batch normalisation, where it is trained,
    normalises each domain with its own statistics.
    """

    method: Literal["cag"]
    weights: Weights
    distance: Distance = Distance()
    target_resolution: Literal["features", "image"] = "features"
    about: ClassVar[str] = "anchors and pseudo-labels"
    uses_anchors: ClassVar[bool] = True

    @model_validator(mode="after")
    def _has_both_rules(self) -> Cag:
        if not are_papers_rules(self.pseudo_labels):
            raise ValueError(
                f"pseudo_labels: must be the rules {' and '.join(PAPERS_RULES)}, found {', '.join(self.pseudo_labels) or 'none'}"
            )
        return self

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels"}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """Eq. 12: its terms of the source, then those of the target."""
        from caguda.equations.losses import objective

        source, target = batch["source"], batch["target"]
        terms = self.source_terms(session, session.outputs(source["image"]), source["label"])
        yield objective(terms, self.weights_of(terms)), terms
        outputs = session.outputs(target["image"])
        terms = self.target_terms(session, outputs, *self.target_labels(session, target, outputs))
        yield objective(terms, self.weights_of(terms)), terms

    def target_labels(self, session: Session, target: Mapping[str, Tensor], outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The cached pseudo-labels of a target batch by anchors and by probability, (n, H, W) each."""
        return target["anchor_label"], target["probability_label"]

    def weights_of(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """The weights of some terms in Eq. 12, by their names."""
        weights = {
            "source_cross_entropy": 1.0,
            "source_distance": self.weights.distance,
            "target_distance": self.weights.distance,
            "anchor_cross_entropy": self.weights.anchor_cross_entropy,
            "probability_cross_entropy": self.weights.probability_cross_entropy,
        }
        return {name: weights[name] for name in terms}

    def source_terms(self, session: Session, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """L_CE and L_dis of the source, Eq. 2 and 8; labels (n, H, W) at the image's size."""
        from caguda.equations.losses import image_cross_entropy

        return {
            "source_cross_entropy": session.reduced(image_cross_entropy(outputs.logits, labels, session.align_corners)),
            "source_distance": self.distance_to_anchors(session, outputs, labels),
        }

    def target_terms(
        self, session: Session, outputs: Outputs, anchor_label: Tensor, probability_label: Tensor
    ) -> dict[str, Tensor]:
        """L_dis and both L_CE of the target, Eq. 9 to 11; pseudo-labels (n, H, W) at the size of the image or of f_D."""
        from caguda.equations.losses import CROSS_ENTROPIES

        cross_entropy = CROSS_ENTROPIES[self.target_resolution]
        distance_label = anchor_label if self.distance.target_labels == "anchor" else probability_label
        return {
            "target_distance": self.distance_to_anchors(session, outputs, distance_label),
            "anchor_cross_entropy": session.reduced(cross_entropy(outputs.logits, anchor_label, session.align_corners)),
            "probability_cross_entropy": session.reduced(
                cross_entropy(outputs.logits, probability_label, session.align_corners)
            ),
        }

    def distance_to_anchors(self, session: Session, outputs: Outputs, labels: Tensor) -> Tensor:
        """L_dis with labels (n, H, W), which are reduced to the resolution of f_D: Eq. 8 and 10."""
        from caguda.equations.anchors import correctly_predicted
        from caguda.equations.grid import labels_at
        from caguda.equations.losses import DISTANCES

        anchors, features = session.anchors, outputs.features
        unit = anchors.mean_distance if self.distance.unit == "mean_anchor_distance" else 1.0
        labels = labels_at(labels, features.shape[-2:], session.align_corners)
        if self.distance.pixels == "correct":
            labels = correctly_predicted(labels, outputs.logits)
        loss = DISTANCES[self.distance.norm]
        return session.reduced(loss(features / unit, anchors.vectors / unit, labels, anchors.present))
