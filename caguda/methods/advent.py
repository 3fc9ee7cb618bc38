"""AdvEnt: adversarial alignment of the network's uncertainty (Vu et al., CVPR 2019), one level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.methods.adaptsegnet import AdaptSegNet
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register("method", "advent")
class AdvEnt(AdaptSegNet):
    """AdaptSegNet whose discriminator takes the weighted self-information of every category in place of its softmax."""

    method: Literal["advent"]  # type: ignore[assignment]
    about: ClassVar[str] = "adversarial alignment of self-information"

    def discriminator_input(self, logits: Tensor) -> Tensor:
        """The discriminator's input: -p log2 p / log2 c of every category."""
        from caguda.equations.adversary import self_information

        return self_information(logits)
