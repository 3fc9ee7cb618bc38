"""Maximum squares: the largest squared probabilities on the target (Chen et al., ICCV 2019), one level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_types import Fraction, NonNegative
from caguda.methods.minent import MinEnt
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.equations.losses import LossSum


@register("method", "maxsquare")
class MaxSquare(MinEnt):
    """Training on source labels and on the negative squares of the probabilities of target images.

    With `image_wise_ratio` categories that are rare in an image have a larger weight there; 0 weighs all alike.
    """

    method: Literal["maxsquare"]  # type: ignore[assignment]
    weight: NonNegative = 0.1
    image_wise_ratio: Fraction = 0.2
    about: ClassVar[str] = "maximum squares"

    def target_loss(self, logits: Tensor) -> LossSum:
        """The loss of the target's predictions: the negative mean square of the probabilities."""
        from caguda.equations.regularisers import image_wise_max_square_loss, max_square_loss

        if self.image_wise_ratio == 0:
            return max_square_loss(logits)
        return image_wise_max_square_loss(logits, self.image_wise_ratio)
