"""The domain discriminators of the adversarial methods. Each gives logits of the class "source"."""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn


def discriminator(inputs: int, width: int) -> nn.Sequential:
    """The domain discriminator of the warm-up: logits of "source" for every patch of its input (n, inputs, h, w).

    Section 4.1: five 3x3 convolutions of stride 2 with [1, 2, 4, 8] x `width` filters (the paper's width is 64), then
    one filter; ReLU after the first three, LeakyReLU 0.2 after the fourth.
    """
    return _strided(inputs, width, 3, [nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.LeakyReLU(0.2)])


def adaptsegnet_discriminator(inputs: int, width: int) -> nn.Sequential:
    """The domain discriminator of AdaptSegNet, AdvEnt, CLAN and BDL: logits of "source" for every patch of its input.

    Five 4x4 convolutions of stride 2 with [1, 2, 4, 8] x `width` filters (published: 64), then one filter; LeakyReLU 0.2
    after the first four (AdaptSegNet model/discriminator.py:10-32).
    """
    return _strided(inputs, width, 4, [nn.LeakyReLU(0.2) for _ in range(4)])


def pixel_discriminator(inputs: int, width: int) -> nn.Sequential:
    """The domain discriminator of CyCADA: logits of "source" for every pixel of its input.

    Three 1x1 convolutions with `width` and width / 2 filters (published: 512), then one; dropout of channels and ReLU between
    them. The published one has two classes, whose difference of logits is ours (CyCADA cycada/models/fcn8s.py:188-201).
    """
    channels = [inputs, width, max(1, width // 2)]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 1), nn.Dropout2d(0.5), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))


def _strided(inputs: int, width: int, kernel: int, activations: list[nn.Module]) -> nn.Sequential:
    channels = [inputs, width, 2 * width, 4 * width, 8 * width, 1]
    layers: list[nn.Module] = []
    for i, activation in enumerate([*activations, nn.Identity()]):
        layers += [nn.Conv2d(channels[i], channels[i + 1], kernel, stride=2, padding=1), activation]
    return nn.Sequential(*layers[:-1])


DISCRIMINATORS: Mapping[int, Callable[[int, int], nn.Sequential]] = {3: discriminator, 4: adaptsegnet_discriminator}
"""The strided discriminators by the side of their kernels."""


class RecentValues(nn.Module):
    """The values of the last `window` iterations, which belong to the state of a training."""

    values: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(window))

    def forward(self, iteration: int, value: Tensor) -> Tensor:
        """The mean of the last values, this one of the iteration included."""
        self.values[iteration % len(self.values)] = value
        return self.values[: iteration + 1].mean()
