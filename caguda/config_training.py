"""Sections of a run's settings: its optimiser, and the sampling of source frames. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from caguda.config_types import Fraction, NonNegative, Positive, Section


def left_out_at(default: Any) -> Any:
    """A field's default that is not written where settings are recorded: a later key leaves earlier records as they are."""
    return Field(default, exclude_if=lambda value: value == default)


class Optimiser(Section):
    """The optimiser. The learning rate falls to 0 at `poly_iterations`, by default at the end of the training.

    It rises from 0 in the first `warmup_iterations`. That of all weights outside the network's encoder is `head_factor`
    times as large.
    """

    name: Literal["sgd", "adamw"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 1e-4
    poly_power: NonNegative = 0.9
    poly_iterations: Positive | None = None
    warmup_iterations: Annotated[int, Field(ge=0, le=10**9)] = left_out_at(0)
    head_factor: Annotated[float, Field(gt=0.0, le=1e6)] = left_out_at(1.0)


class SourceSampling(Section):
    """Rare class sampling of DAFormer (Hoyer et al., CVPR 2022) in place of a random order of the source's frames.

    A category is drawn, the more often the rarer it is, then one of the frames that have more than `least_pixels` pixels of
    it. A crop is drawn again if it has too few: not more than the share `crop_share` of `least_pixels`.
    """

    temperature: Annotated[float, Field(gt=0.0, le=1e6)] = 0.01
    least_pixels: Annotated[int, Field(ge=0, le=10**9)] = 3000
    crop_share: Fraction = 0.5
