"""Rare class sampling: the frame of a sample is drawn for a category, rare ones more often (DAFormer)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from caguda.config_training import SourceSampling
from caguda.equations.sampling import rare_class_probabilities
from caguda.errors import UserError


@dataclass(frozen=True)
class RareClasses:
    """The probability of each category, and for each the indices of the frames that have enough pixels of it.

    A crop has enough pixels of a category with more than `least_in_crop`.
    """

    probabilities: NDArray[np.float64]
    frames: tuple[NDArray[np.int64], ...]
    least_in_crop: float

    def draw(self, generator: np.random.Generator) -> tuple[int, int]:
        """A random category, and one of its frames, all alike."""
        category = int(generator.choice(len(self.frames), p=self.probabilities))
        return category, int(generator.choice(self.frames[category]))


def rare_classes(pixels: Int64[Tensor, "frames c"], settings: SourceSampling) -> RareClasses:
    """The rare class sampling of frames with these numbers of pixels by category; UserError if no category can be drawn."""
    least = settings.least_pixels
    if (most := int(pixels.max())) <= least:
        raise UserError(
            f"source_sampling.least_pixels: some frame of the source must have more than {least} pixels of a category, found "
            f"at most {most}; lower it"
        )
    probabilities = rare_class_probabilities(pixels, settings.temperature, least).numpy()
    frames = tuple((column > least).nonzero().flatten().numpy() for column in pixels.unbind(dim=1))
    return RareClasses(probabilities, frames, settings.crop_share * least)
