"""A mean teacher: pseudo-labels of every batch are those of a moving average of the network."""

import copy
from collections.abc import Iterator, Mapping
from typing import Literal

from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Fraction
from caguda.equations.labels import by_probability, pseudo_labels
from caguda.equations.losses import feature_cross_entropy, image_cross_entropy
from caguda.equations.teacher import ema_decay, update_teacher
from caguda.registry import register
from caguda.stages.session import Batch, Objective, Session


@register("method", "mean_teacher")
class MeanTeacher(Method):
    method: Literal["mean_teacher"]
    decay: Fraction = 0.99
    p0: Fraction = 0.9

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"source": "truth", "target": "images"}

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        return {"teacher": ExtraModule(copy.deepcopy(session.network).eval().requires_grad_(False))}

    def step(self, session: Session, batch: Batch) -> Iterator[Objective]:
        source, images = batch["source"], batch["target"]["image"]
        logits = session.outputs(source["image"]).logits
        loss = session.reduced(image_cross_entropy(logits, source["label"], session.align_corners))
        yield loss, {"source_cross_entropy": loss}
        label, _, active = by_probability(session.extra_modules["teacher"](images / 255).logits, self.p0)
        loss = session.reduced(feature_cross_entropy(session.outputs(images).logits, pseudo_labels(label, active)))
        yield loss, {"teacher_cross_entropy": loss}

    def after_update(self, session: Session) -> None:
        update_teacher(session.extra_modules["teacher"], session.network, ema_decay(session.iteration, self.decay))
