"""AdvEnt: the adversary of the warm-up sees how unsure the network is of each category, in place of its softmax."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from caguda.methods.adversarial import Adversarial
from caguda.networks.layers.network import Outputs
from caguda.registry import register


@register("method", "own_advent")
class AdvEnt(Adversarial):
    method: Literal["own_advent"]
    about: ClassVar[str] = "adversarial alignment of self-information"

    def discriminator_input(self, outputs: Outputs) -> Tensor:
        """Weighted self-information, -p log2 p / log2 c for every category, (n, c, h, w)."""
        probability = outputs.logits.softmax(dim=1)
        return -probability * torch.log2(probability + 1e-30) / math.log2(probability.shape[1])
