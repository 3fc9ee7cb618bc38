"""Outputs of the compared systems' public functions on generated inputs."""

import numpy as np
import pytest
import torch
from frame_trees import SHARED
from torch import nn


def golden(name: str) -> dict[str, np.ndarray]:
    """The inputs and outputs of a system's functions; skips the test where they are absent."""
    path = SHARED / "golden" / "methods" / f"{name}_a.npz"
    if not path.exists():
        pytest.skip(f"outputs of public functions are absent: {path}; name their folder with CAGUDA_SHARED")
    with np.load(path) as arrays:
        return dict(arrays)


def network_of_dacs(arrays: dict[str, np.ndarray], prefix: str) -> nn.Sequential:
    """The small network of the outputs of DACS, with the weights and buffers below a prefix."""
    state = {
        key.removeprefix(f"{prefix}."): torch.from_numpy(values)
        for key, values in arrays.items()
        if key.startswith(f"{prefix}.")
    }
    made = nn.Sequential(
        nn.Conv2d(*state["0.weight"].shape[1::-1], state["0.weight"].shape[-1], padding=1),
        nn.BatchNorm2d(len(state["1.weight"])),
        nn.Conv2d(*state["2.weight"].shape[1::-1], state["2.weight"].shape[-1]),
    )
    made.load_state_dict(state)
    return made
