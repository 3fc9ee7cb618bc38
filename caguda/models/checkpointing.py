"""Less memory for more time: what lies inside a residual block is computed again on the way back."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from caguda.models.batch_norm import batch_norms
from caguda.models.small import Residual


def recompute_activations(network: nn.Module) -> None:
    """Keep only the input of every residual block for the way back; all results stay the same to the last bit.

    A compiled network runs these blocks as they are: the compiler cannot tell the two passes apart.
    """
    run_twice = torch.compiler.disable(checkpoint)
    for block in network.modules():
        if isinstance(block, Residual | Bottleneck):
            block.forward = partial(  # type: ignore[method-assign]
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
