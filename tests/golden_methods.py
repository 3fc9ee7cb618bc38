"""Outputs of the compared systems' public functions on generated inputs."""

import numpy as np
import pytest
from frame_trees import SHARED


def golden(name: str) -> dict[str, np.ndarray]:
    """The inputs and outputs of a system's functions; skips the test where they are absent."""
    path = SHARED / "golden" / "methods" / f"{name}_a.npz"
    if not path.exists():
        pytest.skip(f"outputs of public functions are absent: {path}; name their folder with CAGUDA_SHARED")
    with np.load(path) as arrays:
        return dict(arrays)
