"""Copies of a network that gradients do not train: a teacher, or the network as it was."""

import copy
from typing import Literal, TypeVar

from torch import nn

from caguda.networks.layers.batch_norm import freeze

Network = TypeVar("Network", bound=nn.Module)


def untrained_copy(network: Network, batch_norm: Literal["train", "frozen"]) -> Network:
    """A copy of a network that works as the network does in training, and whose weights have no gradients.

    `batch_norm` is the key of the training: with `train`, layers of the copy normalise a batch with its own statistics.
    """
    made = copy.deepcopy(network).train().requires_grad_(False)
    if batch_norm == "frozen":
        freeze(made)
    return made
