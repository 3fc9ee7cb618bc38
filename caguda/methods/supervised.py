"""Training with labels and cross entropy alone: source only, a control that goes on from another model, the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from caguda.config_run import DomainName, Method, Read
from caguda.kinds import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Session


@register("method", "supervised")
class Supervised(Method):
    """Training on the labels of the source or, as a reference, of the target."""

    method: Literal["supervised"]
    frames: DomainName = "source"

    @property
    def about(self) -> str:  # type: ignore[override]
        """What the run is, in the few words that a report has for it."""
        if self.is_reference:
            return "trained with target labels"
        if self.start:
            return f"source labels alone, from {self.start}"
        return "source labels, target statistics" if self.target_statistics else "no adaptation"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {self.frames: "truth"}

    @property
    def adapts(self) -> bool:
        return self.frames == "source" and self.target_statistics

    def frame_order(self, stage: int) -> str:
        if self.is_reference:
            return "oracle"
        return "control" if self.start else "pretrain"

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """L_CE of the labels, at the resolution of the image: Eq. 2 (Algorithm 1, line 1)."""
        from caguda.equations.losses import image_cross_entropy

        sample = batch[self.frames]
        loss = session.reduced(image_cross_entropy(session.outputs(sample["image"]).logits, sample["label"]))
        yield loss, {f"{self.frames}_cross_entropy": loss}
