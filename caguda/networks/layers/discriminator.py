"""The warm-up's domain discriminator."""

from torch import nn


def discriminator(inputs: int, width: int) -> nn.Sequential:
    """The domain discriminator of the warm-up: logits of "source" for every patch of its input (n, inputs, h, w).

    Section 4.1: five 3x3 convolutions of stride 2 with [1, 2, 4, 8] x `width` filters (the paper's width is 64), then
    one filter; ReLU after the first three, LeakyReLU 0.2 after the fourth.
    """
    channels = [inputs, width, 2 * width, 4 * width, 8 * width, 1]
    activations = [nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity()]
    layers: list[nn.Module] = []
    for i, activation in enumerate(activations):
        layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1), activation]
    return nn.Sequential(*layers[:-1])
