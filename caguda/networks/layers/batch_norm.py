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

    `batches` are the network's input, (n, 3, H, W) each, at least one. Means and (unbiased) variances are averaged over
    the batches with equal weight; weights do not change. A layer keeps its old statistics if it skips every batch, as
    image pooling does with single images. Leaves the network in evaluation mode.
    """
    norms = batch_norms(network)
    before = [(norm.momentum, {name: value.clone() for name, value in norm.state_dict().items()}) for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    count = 0
    for images in batches:
        network(images)
        count += 1
    assert count, "no image to estimate from"
    for norm, (momentum, state) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            norm.load_state_dict(state)
    network.eval()
