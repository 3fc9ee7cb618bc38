"""Category anchor-guided adaptation whose pseudo-labels are renewed at every iteration, which the paper reports against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Read
from caguda.kinds import register
from caguda.methods.cag import CategoryAnchors
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.networks.layers.network import Outputs
    from caguda.stages.session import Batch, Session


@register("method", "cag_every_iteration")
class CagEveryIteration(CategoryAnchors):
    """The same objective with the pseudo-labels of the network in training, in place of those of the model before it."""

    method: Literal["cag_every_iteration"]  # type: ignore[assignment]
    about: ClassVar[str] = "anchors, pseudo-labels of every iteration"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Eq. 12 on a batch of the source, then on one of the target with labels of this moment."""
        from caguda.equations.anchors import labels_at
        from caguda.equations.losses import objective

        source, images = batch["source"], batch["target"]["image"]
        terms = self.source_terms(session, session.outputs(source["image"]), source["label"])
        yield objective(terms, self.weights_of(terms)), terms
        outputs = session.outputs(images)
        labels = [labels_at(label, (images.shape[-2], images.shape[-1])) for label in self.renewed(session, outputs)]
        terms = self.target_terms(session, outputs, *labels)
        yield objective(terms, self.weights_of(terms)), terms

    def renewed(self, session: Session, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Both pseudo-labels of a batch by the network as it is, (n, h, w): Eq. 6, 7 and 11 without the delay of a stage."""
        from caguda.equations.labels import by_anchor, by_probability, pseudo_labels

        anchor, probability = (self.pseudo_labels[name] for name in ("anchor", "probability"))
        assert isinstance(anchor, AnchorRule) and isinstance(probability, ProbabilityRule)
        anchors, features, logits = session.anchors, outputs.features.detach(), outputs.logits.detach()
        anchored = by_anchor(features, anchors.vectors, anchors.present, anchor.threshold(anchors.mean_distance))
        probable = by_probability(logits, probability.p0)
        return pseudo_labels(anchored.nearest, anchored.active), pseudo_labels(probable.predicted, probable.active)
