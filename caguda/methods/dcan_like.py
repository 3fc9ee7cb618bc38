"""A method like DCAN (Wu et al., ECCV 2018): channel statistics of the target in source images and features.

DCAN has no public code and renders images by a network of its own; here the statistics of the colours take its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_run import DomainName, Method, Read
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.stages.session import Batch, Objective, Session


@register("method", "dcan_like")
class DcanLike(Method):
    """Training on source images, and on their features f_D, with the channel means and deviations of target images."""

    method: Literal["dcan_like"]
    about: ClassVar[str] = "the target's channel statistics"

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        """L_CE of source images whose colours and features have the statistics of the target images of the batch."""
        import torch

        from caguda.equations.losses import image_cross_entropy
        from caguda.equations.translation import statistics_translated

        source, target = batch["source"], batch["target"]["image"]
        with torch.no_grad():
            style = session.outputs(target).features
        translated = statistics_translated(source["image"].float(), target.float())
        features = statistics_translated(session.outputs(translated).features, style)
        logits = session.network.classifier(features)
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
