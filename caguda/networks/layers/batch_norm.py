"""Batch normalisation in two domains: frozen layers, and statistics estimated on other images (AdaBN)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisation layers of the network, in its order."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def freeze(network: nn.Module) -> None:
    """Freeze the statistics and affine weights of every batch normalisation layer (Section 4.1).

    The next `network.train()` undoes it for the statistics. Call it before the optimiser is made.
    """
    for norm in batch_norms(network):
        norm.eval()
        norm.requires_grad_(False)


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the statistics of every batch normalisation layer anew on some images (AdaBN).

    `batches` are the network's input, (n, 3, H, W) each, at least one. A layer gets the mean and the (unbiased) variance of
    all values of all images, of E[x] and E[x^2]; weights do not change. During the pass each image is normalised with its
    own mean and variance, so that the sizes of the batches play no role; a channel of a single value, as in image pooling,
    is normalised with the old statistics. A layer that sees a single value keeps its old ones. Leaves the network in
    evaluation mode.
    """
    network.eval()
    sums = {norm: _Sums() for norm in batch_norms(network)}
    hooks = [norm.register_forward_hook(sums_of_layer.add) for norm, sums_of_layer in sums.items()]
    count = 0
    try:
        for images in batches:
            network(images)
            count += len(images)
    finally:
        for hook in hooks:
            hook.remove()
    assert count, "no image to estimate from"
    for norm, sums_of_layer in sums.items():
        sums_of_layer.set_statistics(norm, count)


class _Sums:
    """The number of values that have reached a layer in each channel, and the sums of x and x^2 in float64."""

    def __init__(self) -> None:
        self.values = 0
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def add(self, norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """A forward hook: adds the input of a layer image by image; returns it normalised with each image's statistics."""
        assert isinstance(norm, _BatchNorm)
        values = inputs[0].flatten(2) if inputs[0].dim() > 2 else inputs[0][..., None]
        variance, mean = torch.var_mean(values, dim=2, correction=0)
        count = values.shape[2]
        for expectation, square in zip(mean.double(), variance.double() + mean.double().square(), strict=True):
            self.first = self.first + count * expectation
            self.second = self.second + count * square
        self.values += len(values) * count
        if count == 1:
            return output
        scale = (variance + norm.eps).rsqrt()
        shape = (*mean.shape, *[1] * (inputs[0].dim() - 2))
        if norm.affine:
            scale = scale * norm.weight
        shift = (norm.bias if norm.affine else 0) - mean * scale
        return inputs[0] * scale.view(shape) + shift.view(shape)

    def set_statistics(self, norm: _BatchNorm, images: int) -> None:
        """Give the mean and the variance to the layer, unless it has seen at most one value of each channel."""
        if self.values < 2 or norm.running_mean is None or norm.running_var is None:
            return
        assert isinstance(self.first, Tensor) and isinstance(self.second, Tensor)
        mean = self.first / self.values
        variance = (self.second / self.values - mean.square()).clamp(min=0) * self.values / (self.values - 1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(images)
