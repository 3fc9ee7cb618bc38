"""DAFormer's training: DACS, and features that stay near those of a frozen network on things (Hoyer et al., CVPR 2022)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import ExtraModule
from caguda.config_types import Fraction, NonNegative
from caguda.errors import UserError, did_you_mean, first
from caguda.methods.dacs import Dacs
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Objective, Session

THINGS = ("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
"""The categories of the published feature distance."""


@register("method", "daformer")
class DaFormer(Dacs):
    """DACS with the feature distance to a frozen network: the encoder's own first weights in this training.

    The distance is between the coarsest maps of both encoders for a source image, where `cell_share` of a cell's pixels are
    of one thing. `feature_weight: 0` leaves it out. The key `source_sampling` adds the rare class sampling.
    """

    method: Literal["daformer"]  # type: ignore[assignment]
    teacher_decay: Fraction = 0.999
    feature_weight: NonNegative = 5e-3
    cell_share: Annotated[float, Field(gt=0.5, le=1.0)] = 0.75
    things: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    about: ClassVar[str] = "mixed images, labels of a mean teacher, distance to first features"

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """The teacher, and the frozen encoder with the normalisation of its images. UserError if there are no things."""
        from torch import nn

        modules = super().extra_modules(session)
        if self.feature_weight == 0:
            return modules
        self.thing_ids(session.class_names)
        network = session.network
        first_encoder = nn.Sequential(copy.deepcopy(network.normalisation), copy.deepcopy(network.encoder))
        return {**modules, "first_encoder": ExtraModule(first_encoder.eval().requires_grad_(False))}

    def thing_ids(self, names: Sequence[str]) -> list[int]:
        """The train ids of the things in a class table: of those published if no key names them; none without a table.

        UserError for a thing that the table does not have, and for a table without any of those published.
        """
        wanted = [name for name in THINGS if name in names] if self.things is None else self.things
        unknown = [name for name in wanted if name not in names]
        if names and (unknown or not wanted):
            found = f"{unknown[0]}{did_you_mean(unknown[0], names)}" if unknown else "none of those published"
            raise UserError(
                f"method {self.method}: things: must be categories of the key classes ({first(names, 30)}), found {found}; "
                "give the key things, or set feature_weight to 0"
            )
        return [names.index(name) for name in wanted if name in names]

    def source_objective(self, session: Session, source: Mapping[str, Tensor]) -> Objective:
        """L_CE of the source (Eq. 2) and `feature_weight` times the feature distance."""
        from caguda.equations.losses import image_cross_entropy

        if self.feature_weight == 0:
            return super().source_objective(session, source)
        outputs, encoded = session.outputs_with_map(source["image"])
        loss = session.reduced(image_cross_entropy(outputs.logits, source["label"], session.align_corners))
        distance = self.distance_to_first_features(session, encoded, source)
        return loss + self.feature_weight * distance, {"source_cross_entropy": loss, "feature_distance": distance}

    def distance_to_first_features(self, session: Session, encoded: Tensor, source: Mapping[str, Tensor]) -> Tensor:
        """The distance of the encoder's map to that of the frozen encoder, over the cells of things."""
        import torch

        from caguda.datasets.image_batches import scaled
        from caguda.equations.sampling import feature_distance, labels_of_cells
        from caguda.networks.layers.network import coarsest

        with torch.no_grad():
            reference = coarsest(session.extra_modules["first_encoder"](scaled(source["image"], session.device)))
        labels = labels_of_cells(source["label"], encoded.shape[-2:], self.cell_share)
        things = torch.tensor(self.thing_ids(session.class_names), dtype=torch.int64, device=session.device)
        return session.reduced(feature_distance(encoded, reference, labels, things))
