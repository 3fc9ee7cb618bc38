"""Batch normalisation between two domains: frozen, trained, or with statistics of other images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisation layers of the network, in its order."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def freeze(network: nn.Module) -> None:
    """Hold statistics and affine weights of every batch normalisation layer where they are (Section 4.1)."""
    for norm in batch_norms(network):
        norm.eval()
        norm.requires_grad_(False)


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of every batch normalisation layer by those of the given images (AdaBN).

    Means and variances are averaged over the batches with equal weight; weights do not change. The network is left in
    evaluation mode. No batch at all is an error of the caller.
    """
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        assert not norm.track_running_stats or int(norm.num_batches_tracked) > 0, "no image to estimate from"
        norm.momentum = momentum
    network.eval()
