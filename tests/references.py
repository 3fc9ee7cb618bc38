"""What the equations are compared with: softmax in plain Python, and tensors of the compared systems' public functions."""

import math

import numpy as np
import torch
from golden_methods import golden
from torch import Tensor


def softmaxes(logits: Tensor) -> list[list[float]]:
    """The softmax vectors of all pixels of (n c h w), image by image."""
    vectors = []
    for vector in logits.flatten(2).mT.flatten(0, 1).double().tolist():
        powers = [math.exp(z - max(vector)) for z in vector]
        vectors.append([power / sum(powers) for power in powers])
    return vectors


def golden_tensors(name: str) -> dict[str, Tensor]:
    """The inputs and outputs of a system's public functions as tensors, in the order of the file."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in golden(name).items()}


def named(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies, which want gradients, of the arrays whose names begin with a prefix, by the rest of their names."""
    found = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return {name: value.clone().requires_grad_() for name, value in found.items()}


def assert_golden(found: Tensor, expected: Tensor) -> None:
    """Within the relative 2e-5 that the files are known to; where values cancel, within 1e-6 of the largest."""
    atol = 1e-6 * expected.abs().max().item()
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=2e-5, atol=atol)
