"""The category anchors as one HDF5 file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from caguda.artifacts.hdf5 import read_arrays, write_arrays
from caguda.errors import UserError

FORMAT = "caguda-anchors"
FORMAT_VERSION = 1
DATASETS = {"anchors": "<f4", "pixel_count": "<i8", "spread": "<f4", "pairwise": "<f4"}


@dataclass(frozen=True, eq=False)
class Anchors:
    """The category anchors f_c of Eq. 4, their spreads and their distances; those of absent categories are nan.

    `spread` is the root mean square distance of a category's features from its anchor, `pairwise` the L2 distance
    between two anchors. A category without pixels is absent: its anchor is no zero vector, and it never becomes a label.
    """

    vectors: Float32[np.ndarray, "c d"]
    pixel_count: Int64[np.ndarray, " c"]
    spread: Float32[np.ndarray, " c"]
    pairwise: Float32[np.ndarray, "c c"]

    @property
    def present(self) -> Bool[np.ndarray, " c"]:
        """Which categories have an anchor."""
        return self.pixel_count > 0

    @property
    def mean_distance(self) -> float:
        """The mean L2 distance between two different anchors over all pairs of present categories; nan without one."""
        categories = np.flatnonzero(self.present)
        first, second = np.triu_indices(len(categories), k=1)
        distances = self.pairwise[categories[first], categories[second]].astype(np.float64)
        return float(distances.mean()) if len(distances) else float("nan")


def save_anchors(path: Path, anchors: Anchors, attributes: Mapping[str, Any]) -> None:
    """Writes the anchors atomically with `attributes` (JSON values by name, among them `categories`, `provenance`)."""
    write_arrays(path, (FORMAT, FORMAT_VERSION), _checked_arrays(anchors, path), attributes)


def load_anchors(path: Path) -> tuple[Anchors, dict[str, Any]]:
    """The anchors and their attributes; a UserError if the file is missing, damaged or of another format."""
    arrays, attributes = read_arrays(path, (FORMAT, FORMAT_VERSION), DATASETS)
    anchors = Anchors(arrays["anchors"], arrays["pixel_count"], arrays["spread"], arrays["pairwise"])
    _checked_arrays(anchors, path)
    return anchors, attributes


def _checked_arrays(anchors: Anchors, path: Path) -> dict[str, np.ndarray]:
    """The datasets of a file of anchors; a UserError unless types, shapes and absent categories are right."""
    values = (anchors.vectors, anchors.pixel_count, anchors.spread, anchors.pairwise)
    arrays = {name: np.ascontiguousarray(value) for name, value in zip(DATASETS, values, strict=True)}
    c, d = anchors.vectors.shape if anchors.vectors.ndim == 2 else (-1, -1)
    shapes = {"anchors": (c, d), "pixel_count": (c,), "spread": (c,), "pairwise": (c, c)}
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != np.dtype(DATASETS[name]):
            raise UserError(
                f"{path}: {name} must be {DATASETS[name]} of shape {shapes[name]}, found {array.dtype} {array.shape}"
            )
    finite = np.isfinite(anchors.vectors).all(axis=1)
    if len(wrong := np.flatnonzero(finite != anchors.present)):
        raise UserError(
            f"{path}: an anchor must be finite where its category has pixels and nan where it has none, "
            f"found otherwise for category {wrong[0]}; the network that made the features may have diverged"
        )
    return arrays
