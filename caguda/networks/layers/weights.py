"""Weights of other programs: read without executing code, and compared with those of a network."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from caguda.errors import UserError

SHOWN = 3
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The names that a pickle of arrays and numbers may refer to; numpy 2 renamed its inner module.
NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")),
    *(
        (getattr(multiarray, name), f"numpy.{module}.multiarray.{name}")
        for module in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
]


def read_pickle(path: Path) -> Any:
    """The content of a file of torch.save, on the CPU: tensors, arrays, numbers, texts, and lists and dicts of them.

    Reads both file formats, also that before version 1.6. Executes nothing: UserError if the file is damaged or refers
    to anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: a file written by torch.save is needed, found none; check its name")
    try:
        with torch.serialization.safe_globals(NUMPY), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch.load raises whatever the damage leads to
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        found = f"a reference to {foreign[1]}" if foreign else f"damage or another format ({type(error).__name__})"
        raise UserError(
            f"{path}: the file must hold tensors, arrays and plain values, written by torch.save, found {found}; "
            "get it again, or another one"
        ) from None


def misfit(weights: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str:
    """The differences in names, shapes and types between `weights` and the state dict `expected`; empty if there are none."""
    faults = [f"no {name}" for name in expected if name not in weights]
    faults += [f"an unknown {name}" for name in weights if name not in expected]
    for name, value in expected.items():
        weight = weights.get(name, value)
        if not isinstance(weight, Tensor):
            faults.append(f"{name} that is no tensor")
        elif weight.shape != value.shape:
            faults.append(f"{name} of shape {tuple(weight.shape)} instead of {tuple(value.shape)}")
        elif value.is_floating_point() and weight.dtype not in _FLOATS:
            faults.append(f"{name} of {weight.dtype} instead of {value.dtype}")
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return ", ".join(faults[:SHOWN] + more)
