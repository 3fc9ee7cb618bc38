"""The first layer of a network: the normalisation of colours for its backbone."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class InputNormalisation(nn.Module):
    """RGB in 0..1, minus ImageNet's mean, divided by its standard deviation. No part of the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        return images.sub(self.mean).div(self.std)
