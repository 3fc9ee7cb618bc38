"""Weights of other programs: read without executing anything, and compared with what a network has."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from caguda.errors import UserError

SHOWN = 3
# What pickles of arrays and numbers refer to; numpy 2 renamed its inner module.
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
    """What torch.save wrote, on the CPU: tensors, arrays, numbers, texts, and lists and dicts of them.

    Both of its file formats are read, the one before version 1.6 too. Nothing in the file is executed: a UserError
    where it refers to anything else, or is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: a file written by torch.save is needed, found none; check its name")
    try:
        with torch.serialization.safe_globals(NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch.load raises whatever the damage leads to
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        found = f"a reference to {foreign[1]}" if foreign else f"damage or another format ({type(error).__name__})"
        raise UserError(
            f"{path}: the file must hold tensors, arrays and plain values, written by torch.save, found {found}; "
            "get it again, or another one"
        ) from None


def misfit(weights: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str:
    """What keeps `weights` from being a state dict like `expected`, by key; empty if nothing does."""
    found = [f"no {name}" for name in expected if name not in weights]
    found += [f"{name} that it lacks" for name in weights if name not in expected]
    for name, value in expected.items():
        given = weights.get(name, value)
        if not isinstance(given, Tensor):
            found.append(f"{name} that is no tensor")
        elif given.shape != value.shape:
            found.append(f"{name} of shape {tuple(given.shape)} instead of {tuple(value.shape)}")
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join(found[:SHOWN] + more)
