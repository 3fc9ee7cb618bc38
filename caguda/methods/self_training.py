"""Self-training on the pseudo-labels of any rules, without anchors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Method, Read
from caguda.config_types import NonNegative
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session


@register("method", "self_training")
class SelfTraining(Method):
    """Training on source labels and on the cached pseudo-labels of each rule of the run."""

    method: Literal["self_training"]
    weight: NonNegative = 1.0
    target_resolution: Literal["features", "image"] = "features"
    about: ClassVar[str] = "pseudo-labels"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "pseudo-labels"}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the source labels (Eq. 2), then `weight` times L_CE of each rule's pseudo-labels (Eq. 9 and 11)."""
        from caguda.equations.losses import image_cross_entropy, objective

        source, target = batch["source"], batch["target"]
        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
        terms = self.target_terms(session, target, session.outputs(target["image"]).logits)
        yield objective(terms, self.weights_of(terms)), terms

    def target_terms(self, session: Session, target: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """L_CE of each rule's pseudo-labels."""
        return label_cross_entropies(session, target, logits, self.pseudo_labels, self.target_resolution)

    def weights_of(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """The weights of some terms of the target, by their names."""
        return dict.fromkeys(terms, self.weight)


def label_cross_entropies(
    session: Session, target: Mapping[str, Tensor], logits: Tensor, rules: Iterable[str], resolution: str
) -> dict[str, Tensor]:
    """L_CE of the pseudo-labels of each rule (Eq. 9 and 11), reduced, by the name of its term.

    They are in the order of the rules' names: that in the YAML is no difference between two runs.
    """
    from caguda.equations.losses import CROSS_ENTROPIES

    cross_entropy = CROSS_ENTROPIES[resolution]
    return {
        f"{rule}_cross_entropy": session.reduced(cross_entropy(logits, target[f"{rule}_label"], session.align_corners))
        for rule in sorted(rules)
    }
