"""Less memory for more time: what lies inside a block is computed again on the way back."""

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
    """Keep only the input of a network's recomputable blocks for the way back; results stay the same to the last bit.

    A compiled network runs these blocks as they are: the compiler cannot tell the two passes apart. UserError where the
    network has no such blocks.
    """
    run_twice = torch.compiler.disable(checkpoint)
    if not (blocks := network.recomputable_blocks()):
        raise UserError(
            "compute.recompute_activations: the network must have blocks that can be computed again, found none; leave "
            "the key out"
        )
    for block in blocks:
        block.forward = partial(
            run_twice,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=False,  # no block draws random numbers
            context_fn=partial(_contexts, block),
        )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _spared_statistics(block)


@contextmanager
def _spared_statistics(block: nn.Module) -> Iterator[None]:
    """A context in which batch normalisation moves copies of its statistics: the first pass has moved them already."""
    norms = batch_norms(block)
    kept = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update({name: value if value is None else value.clone() for name, value in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
