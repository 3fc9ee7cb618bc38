"""Activation checkpointing: activations inside a block are computed again in the backward pass, to save memory."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from caguda.errors import UserError
from caguda.networks.layers.batch_norm import batch_norms
from caguda.networks.layers.network import SegmentationNetwork


def recompute_activations(network: SegmentationNetwork) -> None:
    """Keep only the inputs of a network's recomputable blocks for the backward pass; results stay equal bit for bit.

    Blocks are left out of compilation: the compiler cannot tell the two passes apart. UserError if the network has no
    recomputable blocks.
    """
    uncompiled_checkpoint = torch.compiler.disable(checkpoint)
    if not (blocks := network.recomputable_blocks()):
        raise UserError(
            "compute.recompute_activations: the network must have blocks that can be computed again, found none; leave "
            "the key out"
        )
    for block in blocks:
        block.forward = partial(
            uncompiled_checkpoint,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=False,  # no block draws random numbers
            context_fn=partial(_contexts_of_both_passes, block),
        )


def _contexts_of_both_passes(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _unchanged_statistics(block)


@contextmanager
def _unchanged_statistics(block: nn.Module) -> Iterator[None]:
    """A context in which batch normalisation updates copies of its statistics, as the first pass has updated them."""
    norms = batch_norms(block)
    before = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update({name: value if value is None else value.clone() for name, value in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)
