"""Supervised training with cross entropy: source only (Algorithm 1, line 1), the control, and the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from caguda.config_run import DomainName, Method, Read
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.stages.session import Batch, Objective, Session


@register("method", "supervised")
class Supervised(Method):
    """Training on source labels or, as a reference, on target labels."""

    method: Literal["supervised"]
    frames: DomainName = "source"

    @property
    def about(self) -> str:  # type: ignore[override]
        """A few words about the run for a report."""
        if self.is_reference:
            return "trained with target labels"
        if self.start is None and not self.target_statistics:
            return "no adaptation"
        start = "" if self.start is None else f", from {self.start}"
        return f"source labels{', target statistics' if self.target_statistics else ''}{start}"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {self.frames: "truth"}

    @property
    def adapts(self) -> bool:
        return self.frames == "source" and self.target_statistics

    def frame_order(self, adaptation: int) -> str:
        # These texts, and those of other methods, seed the order of frames: other texts would give other weights.
        if self.is_reference:
            return "oracle"
        return "control" if self.start else "pretrain"

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of the labels at the resolution of the image: Eq. 2."""
        from caguda.equations.losses import image_cross_entropy

        sample = batch[self.frames]
        logits = session.outputs(sample["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, sample["label"], session.align_corners))
        yield loss, {f"{self.frames}_cross_entropy": loss}
