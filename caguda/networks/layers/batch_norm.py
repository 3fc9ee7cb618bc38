"""Batch normalisation between two domains: frozen, trained, or with statistics of other images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisation layers of the network, in its order."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def freeze(network: nn.Module) -> None:
    """Hold statistics and affine weights of every batch normalisation layer where they are (Section 4.1).

    It lasts until the next `network.train()`, and comes before the optimiser, which takes the weights left to train.
    """
    for norm in batch_norms(network):
        norm.eval()
        norm.requires_grad_(False)


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of every batch normalisation layer by those of the given images (AdaBN).

    `batches` are the network's input, (n, 3, H, W) each. Means and (unbiased) variances are averaged over the batches
    with equal weight; weights do not change. A layer that takes none from any batch, as one over whole images does from
    single ones, keeps what it had. The network is left in evaluation mode. At least one batch is needed.
    """
    norms = batch_norms(network)
    before = [(norm.momentum, {name: value.clone() for name, value in norm.state_dict().items()}) for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    seen = 0
    for images in batches:
        network(images)
        seen += 1
    assert seen, "no image to estimate from"
    for norm, (momentum, state) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            norm.load_state_dict(state)
    network.eval()
